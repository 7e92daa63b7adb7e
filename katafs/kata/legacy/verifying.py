"""Is everything in a kata's plain files also in its repository? Asked before the plain files go.

Both are read anew: the plain files from the disk, the repository through what the mount shows
(`katafs.kata.legacy.plain_paths`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from katafs.errors import KataError
from katafs.kata.legacy.plain_kata import OUTPUT_NAMES, PlainKata, joined
from katafs.kata.legacy.plain_paths import has_plain_paths, plain_event, plain_row
from katafs.kata.model.listing import Listing
from katafs.kata.read.kata import Kata
from katafs.text import decode

_MOST_DIFFERENCES = 5
# of an event file, but for its row
_OWN_KEYS = ("files", *OUTPUT_NAMES, "status")


def differences(plain: PlainKata, kata: Kata) -> list[str]:
    """Sentences about what is in the plain files and not, or otherwise, in the repository; some of them at most."""
    try:
        return list(islice(_differences(plain, kata), _MOST_DIFFERENCES))
    except (KataError, RecursionError) as error:
        return [f"it cannot be read back: {error}"]


def has_event(kata: Kata, index: int, document: Mapping[str, Any], version: int) -> bool:
    """Whether event ``index`` of a kata is the one in the JSON object of a plain event file, whatever else its row says
    than its time."""
    rows = kata.tip().rows
    if not has_plain_paths(rows, index) or (version and document.get("time") != rows.stored[index].get("time")):
        return False
    shown = plain_event(kata.repo, kata.snapshot(index), rows.stored[index], _listing(kata, index), version)
    one, other = ({key: each.get(key) for key in _OWN_KEYS} for each in (_event(document), _event(shown)))
    return _is_same(one, other)


def _differences(plain: PlainKata, kata: Kata) -> Iterator[str]:
    rows = kata.tip().rows
    if not _is_same(_manifest(plain.manifest), _manifest(kata.manifest())):
        yield "the manifest is another"
    if plain.version and "visible_files" in plain.manifest:
        first = {name: {"content": text} for name, text in _contents(kata, 0).items()}
        if not _is_same(_files(plain.manifest["visible_files"]), first):
            yield "the manifest's visible_files are not the files of event 0"
    for index in plain.indexes:
        if not has_plain_paths(rows, index):
            yield f"event {index} is missing"
            continue
        snapshot = kata.snapshot(index)
        if kata.repo.tag(index) != snapshot.commit.oid:
            yield f"event {index} has no tag"
        shown = plain_row(rows.stored[index], plain.version)
        if not _is_same(list(plain.row(index).items()), list(shown.items())):
            yield f"event {index} has another row"
        document = plain_event(kata.repo, snapshot, rows.stored[index], _listing(kata, index), plain.version)
        if not _is_same(_event(plain.document(index)), _event(document)):
            yield f"event {index} is another"
    yield from _options(plain, kata)


def _options(plain: PlainKata, kata: Kata) -> Iterator[str]:
    wanted: dict[str, list[str]] = {}
    for change in plain.options():
        wanted.setdefault(change.name, []).append(change.value)
    found = kata.set_options()
    for name, values in wanted.items():
        # somebody may have set it again meanwhile
        if found.get(name, [])[: len(values)] != values:
            yield f"the option {name} is another"


def _listing(kata: Kata, index: int) -> Listing:
    return Listing(kata.repo, kata.snapshot(index).files_tree)


def _contents(kata: Kata, index: int) -> dict[str, str]:
    return {decode(path): decode(kata.repo.blob(oid)) for path, oid in _listing(kata, index).blobs()}


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON; in Python ``1 == 1.0 == True``."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "visible_files"}


def _event(document: Mapping[str, Any]) -> dict[str, Any]:
    """An event file without what may differ: how content is cut into lines, and the type of the status."""
    plain = {**document, "files": _files(document.get("files", {}))}
    plain |= _files({name: document[name] for name in OUTPUT_NAMES if name in document})
    if plain.get("status") is None:
        plain.pop("status", None)
    elif type(plain["status"]) in (int, str):
        plain["status"] = str(plain["status"])
    return plain


def _files(files: Any) -> Any:
    if not isinstance(files, dict):
        return files
    return {name: _text(value) for name, value in files.items()}


def _text(value: Any) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("content"), list):
        return value
    try:
        return {**value, "content": joined(value["content"])}
    except TypeError:
        return value
