"""Recording an event: the one place where a kata is written to.

Order of durability: objects, then ``main`` by compare-and-swap, then the tag, each synced before the next; the caller
hears of success after all three. A crash between any two leaves a repository that reads right: objects that nothing
refers to, or a row whose tag is missing (`GitRepo.commit_of_event` finds its commit; the next event makes the tag).
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from katafs.errors import DamagedError, InvalidError, KataError, LateError, RaceLostError, ReadOnlyError, StorageError
from katafs.git import Commit, GitRepo, GitWriter, Oid
from katafs.kata.diff import line_counts
from katafs.kata.events import Row, parse_rows, time_of
from katafs.kata.layouts import Layout, Root, detect, read_truncations, rows_blob
from katafs.kata.listing import Listing
from katafs.kata.message import RanTests, Text
from katafs.owner import acting_as_owner
from katafs.text import decode, pretty, pretty_bytes

log = logging.getLogger(__name__)

# how long others may hold, or again and again move, the branch before a writer hears of it
_PATIENCE_SECONDS = 15.0


@dataclass(frozen=True)
class Committed:
    """Where an event is: its index and its commit."""

    index: int
    commit: Oid


@dataclass(frozen=True)
class _Base:
    """What an event is put on: the tip, read once."""

    commit: Commit
    root: Root
    layout: Layout
    rows_text: bytes
    rows: list[Row]

    @property
    def last(self) -> int:
        return len(self.rows) - 1


def append(path: Path, kata_id: str, message: RanTests, now: datetime | None = None) -> Committed:
    """Record a test run in the kata at ``path``; durable when this returns.

    Raises `LateError` (EEXIST) when ``message.index`` is taken, `InvalidError`, `ReadOnlyError` for a layout that is
    not written, `StorageError` (EBUSY when ``main`` stays locked), `DamagedError`. After an error nothing has changed.
    Called in a worker thread.
    """
    try:
        with acting_as_owner(path):
            return _append(GitRepo(path), kata_id, message, now)
    except OSError as error:
        # pygit2 raises bare OSError(message)
        reason = error.strerror or str(error)
        raise StorageError(f"kata {kata_id} cannot be written: {reason}", error.errno or errno.EIO) from error


def _append(repo: GitRepo, kata_id: str, message: RanTests, now: datetime | None) -> Committed:
    """Try until nobody is faster."""
    end = time.monotonic() + _PATIENCE_SECONDS
    attempt = 0
    while True:
        try:
            return _append_once(repo, kata_id, message, now or datetime.now(UTC))
        except RaceLostError as error:
            # Somebody was first: their event stands, ours goes after it, or is late. Not all at once again.
            if time.monotonic() > end:
                raise StorageError(f"kata {kata_id}: {error}", errno.EBUSY) from error
        GitWriter(repo).unlock_main()
        time.sleep(0.001 * min(attempt, 50))
        attempt += 1


def _append_once(repo: GitRepo, kata_id: str, message: RanTests, moment: datetime) -> Committed:
    """Put the event on the present tip. Raises `RaceLostError` when the tip moves meanwhile."""
    writer = GitWriter(repo)
    base = _read_base(repo)
    index = _next_index(base, message)
    if repo.tag(base.last) is None:
        _set_tag(writer, base.last, repo.commit_of_event(base.commit.oid, base.last).oid)
    commit = _write_event(repo, writer, base, message, index, moment, kata_id)
    writer.sync_objects()
    writer.move_main(commit, base.commit.oid)
    # The event is recorded: from here on its writer must hear of success.
    _set_tag(writer, index, commit)
    return Committed(index, commit)


def _set_tag(writer: GitWriter, index: int, commit: Oid) -> None:
    """Make the tag of an event. Without it the event can be read as well, and the next one must not fail for it."""
    try:
        writer.set_tag(index, commit)
    except (KataError, OSError) as error:
        log.warning("%s: event %d has no tag: %s", writer.repo.path, index, error)


def _read_base(repo: GitRepo) -> _Base:
    tip = repo.main()
    if tip is None:
        raise DamagedError(f"{repo.path} has no branch main")
    commit = repo.commit(tip)
    root = Root.read(repo, commit.tree)
    layout = detect(root)
    rows_oid = rows_blob(root, layout)
    if not layout.is_writable or rows_oid is None:
        raise ReadOnlyError(f"{repo.path} is stored in a layout that is read-only")
    text = repo.blob(rows_oid)
    return _Base(commit, root, layout, text, parse_rows(text))


def _next_index(base: _Base, message: RanTests) -> int:
    """The index of the new event: one after the last, if the client says nothing else."""
    index = base.last + 1 if message.index is None else message.index
    if index <= base.last:
        raise LateError(f"event {index} is there already; the last is {base.last}")
    if index > base.last + 1:
        # Back-filling the gap with outages comes with the other kinds of events.
        raise InvalidError(f"index {index} leaves a gap after the last event, {base.last}")
    return index


def _write_event(
    repo: GitRepo, writer: GitWriter, base: _Base, message: RanTests, index: int, moment: datetime, kata_id: str
) -> Oid:
    """Store the objects of one event: blobs, trees and the commit, which nothing refers to yet."""
    old_files = base.root.subtree(b"files")
    files = message.files
    new_files = old_files if files is None else writer.file_tree({path: text.content for path, text in files.items()})
    row = _row(message, index, moment, line_counts(repo, old_files, new_files), base.layout)
    blobs = _event_blobs(repo, base, message, row)
    tree = writer.tree(base.root.tree, {name: writer.blob(data) for name, data in blobs.items()}, {b"files": new_files})
    seconds = int(moment.timestamp())
    email = f"{kata_id}@cyber-dojo.org"
    return writer.commit(tree, [base.commit.oid], message.subject(index), kata_id, email, seconds)


def _row(message: RanTests, index: int, moment: datetime, counts: tuple[int, int], layout: Layout) -> Row:
    """The row, its keys in the order in which saver writes them; natively with ``type`` at the end."""
    row: Row = {**message.summary, "index": index, "time": time_of(moment)}
    row["diff_added_count"], row["diff_deleted_count"] = counts
    if message.laptop_id is not None:
        row["laptop_id"] = message.laptop_id
    row.update(message.tab_seq)
    if layout is Layout.NATIVE:
        row["type"] = "test"
    return row


def _event_blobs(repo: GitRepo, base: _Base, message: RanTests, row: Row) -> Mapping[bytes, bytes]:
    """What an event writes beside ``files/``, by name."""
    blobs = {
        b"stdout": message.stdout.content,
        b"stderr": message.stderr.content,
        b"status": message.status.encode(),
    }
    flags: dict[str, Any] = {"stdout": message.stdout.truncated, "stderr": message.stderr.truncated}
    if base.layout is Layout.SAVER:
        blobs[b"truncations.json"] = pretty(flags, ruby=True).encode()
        blobs[b"events.json"] = _with_row(base, row, ruby=True)
        return blobs
    file_flags = _file_flags(repo, base, message.files)
    blobs[b"truncations.json"] = pretty_bytes({"files": file_flags, **flags, "status": False})
    blobs[b"events_summary.json"] = _with_row(base, row, ruby=False) + b"\n"
    blobs[b"event.json"] = pretty_bytes(row)
    return blobs


def _file_flags(repo: GitRepo, base: _Base, files: Mapping[bytes, Text] | None) -> Mapping[str, bool]:
    """Whether each file was cut short; files that stay as they are stay as short as they are."""
    if files is not None:
        return {path.decode(): text.truncated for path, text in sorted(files.items())}
    listing = Listing(repo, base.root.subtree(b"files"))
    known = read_truncations(repo, base.root)["files"]
    names = (decode(path) for path in sorted(listing.paths[position] for position in listing.files()))
    return {name: known.get(name, False) for name in names}


def _with_row(base: _Base, row: Row, *, ruby: bool) -> bytes:
    """The rows with one more at the end. Those that are there keep their very bytes, whoever wrote them."""
    text = base.rows_text.rstrip()
    if text.startswith(b"[\n") and text.endswith(b"\n]"):
        return text[:-2] + b",\n  " + pretty(row, ruby=ruby, indent="  ").encode() + b"\n]"
    return pretty([*base.rows, row], ruby=ruby).encode()
