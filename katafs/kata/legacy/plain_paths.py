"""What services that were written for plain files read, made from a kata of version 0 or 1 that is stored as git.

The same JSON values as in the files that such a service writes (INTERFACE §3: plain paths): rows have the keys that it
writes, and no others, and what was skipped has no row.

Before plain files go it is asked whether everything in them is also in the repository: both are read anew, the plain
files from the disk, the repository through what is shown here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from katafs.errors import KataError
from katafs.git import GitRepo
from katafs.kata.legacy.converting import absent_parts
from katafs.kata.legacy.plain_kata import OUTPUT_NAMES, PlainKata, joined
from katafs.kata.model.rows import Row, Rows, without_contents
from katafs.kata.model.trees import Listing, read_object
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import Snapshot
from katafs.text import compact, decode

# keys that came with later services
_LATER_KEYS = ("type", "diff_added_count", "diff_deleted_count", "laptop_id", "tab_seq")


def has_plain_paths(rows: Rows, index: int) -> bool:
    """Whether there is an event file of that index: nobody ever wrote one for an outage."""
    return 0 <= index <= rows.last and not rows.is_outage(index)


def plain_row(row: Row, version: int) -> Row:
    """The row that a service of that version would have written. In version 0 the position is the index."""
    left_out = _LATER_KEYS if version else (*_LATER_KEYS, "index")
    return {key: value for key, value in row.items() if key not in left_out}


def plain_events(rows: Rows, version: int, last: int | None = None) -> bytes:
    """``events.json`` when ``last`` was the last event, or now: all rows but outages, in the order of their indexes."""
    stored = rows.stored if last is None else rows.stored[: last + 1]
    lines = [compact(plain_row(row, version)) for index, row in enumerate(stored) if has_plain_paths(rows, index)]
    text = ",\n".join(lines) if version else "".join(line + "\n" for line in lines)
    # what is no character cannot be written
    return text.encode("utf-8", "replace")


def plain_event(repo: GitRepo, snapshot: Snapshot, row: Row, listing: Listing, version: int) -> dict[str, Any]:
    """``N.event.json`` or ``N/event.json``: files, outputs and status, and in version 1 a copy of the row."""
    stored = read_object(repo, snapshot.root.blob(b"truncations.json"))
    flags = stored.get("files")
    cut = flags if isinstance(flags, dict) else {}
    files = {}
    for path, oid in listing.blobs():
        name = decode(path)
        said = {"truncated": cut[name] is True} if name in cut else {}
        files[name] = _content(repo.blob(oid), version) | said
    document: dict[str, Any] = {"files": files}
    if snapshot.index > 0:
        document |= _outputs(repo, snapshot, stored, version)
    return document | (without_contents(plain_row(row, version)) if version else {})


def _outputs(repo: GitRepo, snapshot: Snapshot, flags: Mapping[str, Any], version: int) -> dict[str, Any]:
    absent = absent_parts(snapshot.commit.message)
    outputs: dict[str, Any] = {}
    for name in OUTPUT_NAMES:
        if name not in absent:
            said = {} if f"{name}.truncated" in absent else {"truncated": flags.get(name) is True}
            outputs[name] = _content(snapshot.output_bytes(repo, name.encode()), version) | said
    if "status" not in absent:
        text = decode(snapshot.output_bytes(repo, b"status"))
        outputs["status"] = text if version else _number(text)
    return outputs


def _number(text: str) -> int | str:
    try:
        return int(text) if len(text) < 20 else text
    except ValueError:
        return text


def _content(data: bytes, version: int) -> dict[str, Any]:
    """In version 0 an array of lines, each with its newline; an empty text is one empty line."""
    text = decode(data)
    # not splitlines, which knows other ends of lines too
    return {"content": text if version else re.findall("[^\n]*\n|[^\n]+", text) or [""]}


def plain_option(values: Sequence[str]) -> bytes:
    """An option file, from the values that the option was set to: the first is written twice (FORMAT §1.2)."""
    return "".join(f"\n{value}" for value in [*values[:1], *values]).encode()


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
    shown = plain_event(kata.repo, kata.snapshot(index), rows.stored[index], kata.files(index), version)
    one, other = ({key: each.get(key) for key in _OWN_KEYS} for each in (_event(document), _event(shown)))
    return _is_same(one, other)


def _differences(plain: PlainKata, kata: Kata) -> Iterator[str]:
    rows = kata.tip().rows
    if not _is_same(_manifest(plain.manifest), _manifest(kata.manifest())):
        yield "the manifest is another"
    if plain.version and "visible_files" in plain.manifest:
        files = kata.files(0).blobs()
        first = {decode(path): {"content": decode(kata.repo.blob(oid))} for path, oid in files}
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
        if not _is_same(list(plain.stored[index].items()), list(shown.items())):
            yield f"event {index} has another row"
        document = plain_event(kata.repo, snapshot, rows.stored[index], kata.files(index), plain.version)
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
