"""A kata at one commit: the same `State` for those who read it, write on top of it, show its past, and check it.

The rows of katas that were read last are kept: those of the next tip are the same, and some more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from katafs.caching import Shared
from katafs.errors import DamagedError, NoEventsError
from katafs.git import Commit, GitRepo, Oid
from katafs.git.budget import Budget
from katafs.kata.model.layouts import Layout, detect
from katafs.kata.model.rows import Rows, StoredRows, parse_rows, time_ns
from katafs.kata.model.trees import Root, read_object

# bytes of all together, and of one kata's; in memory rows take so many times as many as stored
_IN_MEMORY = 3.4
_MOST = round(_IN_MEMORY * (1 << 20))
_END = b"\n]"


class _Known(NamedTuple):
    """The rows in a blob; those of later blobs begin with ``size`` bytes that have this digest."""

    oid: Oid
    size: int
    digest: bytes
    rows: StoredRows


# by repository; writers are threads
_known: Shared[Path, _Known] = Shared(_MOST, lambda known: round(_IN_MEMORY * known.size), 1, "recent rows")


def rows_in(repo: GitRepo, oid: Oid, text: bytes | None = None) -> StoredRows:
    """The rows in a blob, whose ``text`` may be at hand; not to be changed. Where some follow those that are known it
    takes a millisecond, however many there are. Raises `DamagedError`."""
    known = _known.get(repo.path)
    if known is not None and known.oid == oid:
        return known.rows
    text = repo.blob(oid) if text is None else text
    rows = _with_added(known, text, repo.budget) if known is not None else None
    rows = rows or parse_rows(text, repo.budget)
    stripped = text.rstrip()
    if stripped.startswith(b"[") and stripped.endswith(_END):
        begin = stripped[: -len(_END)]
        _known.keep(repo.path, _Known(oid, len(begin), _digest(begin), rows))
    return rows


def _with_added(known: _Known, text: bytes, budget: Budget) -> StoredRows | None:
    """The rows where some follow those that are known; None where something else is there. To compare a digest takes a
    tenth of parsing."""
    if text[known.size : known.size + 1] != b"," or _digest(text[: known.size]) != known.digest:
        return None
    try:
        return known.rows.grown(parse_rows(b"[" + text[known.size + 1 :], budget))
    except DamagedError:
        return None


def _digest(text: bytes) -> bytes:
    return sha1(text, usedforsecurity=False).digest()


_SECOND = 1_000_000_000


@dataclass(frozen=True)
class State:
    """A kata whose newest commit is ``commit``. It never changes, and holds what is needed of it again and again; what
    is needed once, it reads when it is asked."""

    commit: Commit
    root: Root
    layout: Layout
    rows: Rows
    #: the rows as they are stored, where `read_state` was to keep them
    text: bytes = field(default=b"", repr=False)

    @property
    def last(self) -> int:
        return self.rows.last

    @property
    def files_tree(self) -> Oid | None:
        """The ``files`` tree; None when there are no files."""
        return self.root.subtree(b"files")

    @cached_property
    def time_ns(self) -> int:
        """The time of the commit in ns, different for every one, so that the kernel sees that a directory changed. A
        commit has whole seconds. The row of an event commit has microseconds; the rest of a time is made from the id,
        as two events of one microsecond would leave the kernel with the listing that it has."""
        own = time_ns(self.rows.stored[self.last]) if self.commit.event == self.last else None
        if own is not None:
            return own + int.from_bytes(self.commit.oid[:4]) % 1000
        return self.commit.time * _SECOND + int.from_bytes(self.commit.oid[:4]) % _SECOND

    def manifest(self, repo: GitRepo) -> dict[str, Any]:
        """The stored manifest; empty when there is none that is an object. Raises `DamagedError`."""
        return read_object(repo, self.root.blob(b"manifest.json"))

    def options(self, repo: GitRepo) -> dict[str, str]:
        return self.layout.options(repo, self.root)


def read_state(repo: GitRepo, oid: Oid, earlier: State | None = None, *, with_text: bool = False) -> State:
    """The state at a commit. What was made of the rows of an ``earlier`` one is used again, if they are the same.
    Raises `DamagedError`, `NoEventsError` when it has no rows that can be read."""
    commit = repo.commit(oid)
    root = Root.read(repo, commit.tree)
    layout = detect(root)
    blob = layout.rows_blob(root)
    if blob is None:
        raise NoEventsError(f"{repo.git_dir}: it has no events.json or events_summary.json")
    if earlier is not None and blob == earlier.layout.rows_blob(earlier.root) and not with_text:
        return State(commit, root, layout, earlier.rows)
    text = repo.blob(blob) if with_text else None
    rows = Rows(rows_in(repo, blob, text), earlier.rows if earlier is not None else None, repo.budget)
    return State(commit, root, layout, rows, text or b"")
