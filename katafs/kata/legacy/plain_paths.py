"""What services that were written for plain files read, made from a kata of version 0 or 1 that is stored as git.

The same JSON values as in the files that such a service writes (INTERFACE §3: plain paths): rows have the keys that it
writes, and no others, and what was skipped has no row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from katafs.git import GitRepo
from katafs.kata.legacy.converting import absent_parts
from katafs.kata.legacy.plain_kata import OUTPUT_NAMES
from katafs.kata.model.listing import Listing
from katafs.kata.model.root_tree import read_object
from katafs.kata.model.rows import Row, Rows, without_contents
from katafs.kata.read.snapshot import BlobId, Snapshot
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

    def stored(name: str) -> bytes:
        content = snapshot.output(name.encode())
        return repo.blob(content.oid) if isinstance(content, BlobId) else content

    for name in OUTPUT_NAMES:
        if name not in absent:
            said = {} if f"{name}.truncated" in absent else {"truncated": flags.get(name) is True}
            outputs[name] = _content(stored(name), version) | said
    if "status" not in absent:
        text = decode(stored("status"))
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
