"""Everything at one event, in native shape whatever is stored. A snapshot never changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from katafs.git import Commit, GitRepo, Oid
from katafs.git.budget import PRINTED, Budget
from katafs.kata.model.layouts import Layout, plain_version
from katafs.kata.model.rows import Rows, time_ns, without_contents
from katafs.kata.model.trees import Listing, Root, read_truncations
from katafs.kata.read.state import State
from katafs.text import decode, is_portable_json, parse_stored, pretty_bytes


@dataclass(frozen=True, slots=True)
class BlobId:
    """A blob of the kata's repository."""

    oid: Oid


class Summary:
    """``events_summary.json`` of an event: as bytes are, but joined from the texts of its rows when it is asked for."""

    def __init__(self, rows: Rows, index: int) -> None:
        self._rows, self._index = rows, index

    def __len__(self) -> int:
        return self._rows.summary_size(self._index)

    def __getitem__(self, part: slice) -> bytes:
        return self._rows.summary_part(self._index, part.start, part.stop - part.start)


# The content of a file: bytes made here, or a blob
Content = bytes | Summary | BlobId

_SECOND = 1_000_000_000

OUTPUTS = {b"stdout": b"", b"stderr": b"", b"status": b"0"}


def shown_json(oid: Oid, data: bytes, budget: Budget) -> Content:
    """What is shown of a stored JSON object: its blob, or, where that is none or not every parser would take it, one
    that they take."""
    try:
        value: Any = parse_stored(decode(data))
        if not isinstance(value, dict):
            return pretty_bytes({})
        if is_portable_json(data, budget.spend_for_looking):
            return BlobId(oid)
        budget.spend_for_json(value)
        return pretty_bytes(value)
    except (ValueError, RecursionError):
        return pretty_bytes({})


@dataclass(frozen=True)
class Snapshot:
    """What is stored at event ``index``."""

    index: int
    commit: Commit
    layout: Layout
    root: Root
    time_ns: int
    is_outage: bool

    @property
    def files_tree(self) -> Oid | None:
        """The ``files`` tree; None when there are no files."""
        return self.root.subtree(b"files")

    def stored(self, name: bytes) -> BlobId | None:
        """What is in the tree of the commit under that name, whatever wrote it."""
        oid = self.root.blob(name)
        return BlobId(oid) if oid is not None else None

    def output(self, name: bytes) -> bytes | BlobId:
        """``stdout``, ``stderr`` or ``status``: that of the commit is this event's but at 0, and at an outage, which
        shares the commit of a later event."""
        is_own = self.index > 0 and not self.is_outage
        return (self.stored(name) if is_own else None) or OUTPUTS[name]

    def output_bytes(self, repo: GitRepo, name: bytes) -> bytes:
        content = self.output(name)
        return repo.blob(content.oid) if isinstance(content, BlobId) else content

    def truncations(self, repo: GitRepo) -> Content:
        """``truncations.json`` in native shape."""
        if (stored := self.shown_as_stored(b"truncations.json")) is not None:
            return stored
        flags = self.truncation_flags(repo)
        repo.budget.spend_for_json(flags)
        return pretty_bytes(flags)

    def truncation_flags(self, repo: GitRepo) -> Mapping[str, Any]:
        """The flags of `truncations`; of an outage all are false."""
        if self.is_outage:
            return {"files": {}, "stdout": False, "stderr": False, "status": False}
        return read_truncations(repo, self.root)

    def shown_as_stored(self, name: bytes) -> BlobId | None:
        """What is stored under a name, where that is what is shown: an outage shares the commit of a later event."""
        return self.stored(name) if name in self.layout.shown_as_stored and not self.is_outage else None


def read_snapshot(repo: GitRepo, state: State, index: int, commit: Commit) -> Snapshot:
    """The snapshot of an event of a kata, which has that commit. Raises `DamagedError`."""
    is_outage = state.rows.is_outage(index)
    own = None if is_outage else time_ns(state.rows.stored[index])
    when = own if own is not None else commit.time * _SECOND
    return Snapshot(index, commit, state.layout, Root.read(repo, commit.tree), when, is_outage)


def event_document(repo: GitRepo, snapshot: Snapshot, rows: Rows) -> bytes:
    """``events/N.json``: files in git order, the row's keys, then the outputs."""
    flags = snapshot.truncation_flags(repo)

    def text(content: bytes | BlobId) -> str:
        data = repo.blob(content.oid) if isinstance(content, BlobId) else content
        repo.budget.spend(len(data) * PRINTED)
        return decode(data)

    files = {}
    for path, oid in Listing(repo, snapshot.files_tree).blobs():
        # which may be longer than what is in the file
        repo.budget.spend(len(path) * PRINTED)
        name = decode(path)
        files[name] = {"content": text(BlobId(oid)), "truncated": flags["files"].get(name, False)}
    # not from the budget of the rows, which is the event loop's
    repo.budget.spend_for_json(rows.stored[snapshot.index])
    row = rows.shown(snapshot.index)
    if snapshot.index == 0:
        row.setdefault("colour", "create")
        row["type"] = row.pop("type")
    document: dict[str, Any] = {"files": files, **without_contents(row)}
    for name in ("stdout", "stderr"):
        document[name] = {"content": text(snapshot.output(name.encode())), "truncated": flags[name]}
    document["status"] = text(snapshot.output(b"status"))
    return pretty_bytes(document)


def manifest_document(repo: GitRepo, first: Snapshot, manifest: Mapping[str, Any]) -> bytes:
    """``manifest.json`` of the kata: the stored one with the files of event 0 as its last key, ``visible_files``;
    but for version 0, which never had them."""
    repo.budget.spend_for_json(manifest)
    if plain_version(manifest) == 0:
        return pretty_bytes(dict(manifest))
    blobs = Listing(repo, first.files_tree).blobs()
    files = {decode(path): {"content": decode(repo.blob(oid))} for path, oid in blobs}
    kept = {key: value for key, value in manifest.items() if key != "visible_files"}
    return pretty_bytes({**kept, "visible_files": files})
