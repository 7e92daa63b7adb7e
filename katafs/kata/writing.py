"""What an event, or an option, is in the tree of a commit: every file of both layouts that are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from katafs.errors import InvalidError, ReadOnlyError, TooLargeError
from katafs.git import GitRepo, GitWriter, Oid
from katafs.kata.diff import line_counts
from katafs.kata.events import MOST_ROWS, Row, StoredRows, time_of
from katafs.kata.kinds import Kind
from katafs.kata.layouts import (
    Layout,
    Root,
    check_format,
    check_version,
    detect,
    read_object,
    read_options,
    read_truncations,
    rows_blob,
)
from katafs.kata.listing import Listing
from katafs.kata.message import Act
from katafs.kata.recent import rows_in
from katafs.text import decode, pretty, pretty_bytes


@dataclass(frozen=True)
class Head:
    """A commit that something is put on, with what must be known of it."""

    commit: Oid
    root: Root
    layout: Layout
    rows_text: bytes
    rows: StoredRows

    @classmethod
    def read(cls, repo: GitRepo, oid: Oid) -> Head:
        """The head at a commit. Raises `ReadOnlyError` for a layout that is not written, `DamagedError`."""
        root = Root.read(repo, repo.commit(oid).tree)
        layout = detect(root)
        rows_oid = rows_blob(root, layout)
        if not layout.is_writable or rows_oid is None:
            raise ReadOnlyError(f"{repo.path} is stored in a layout that is read-only")
        check_format(repo)
        check_version(read_object(repo, root.blob(b"manifest.json")), "".join(repo.path.parts[-3:]))
        text = repo.blob(rows_oid)
        return cls(oid, root, layout, text, rows_in(repo, rows_oid, text))

    @property
    def last(self) -> int:
        return len(self.rows) - 1

    @property
    def files(self) -> Oid | None:
        """The ``files/`` tree."""
        return self.root.subtree(b"files")


class KataWriter:
    """Makes the objects of one kata's commits, which nothing refers to yet. For one thread."""

    def __init__(self, git: GitWriter, kata_id: str, moment: datetime) -> None:
        self.repo = git.repo
        self.git = git
        self._kata_id = kata_id
        self._moment = moment

    # -- an event

    def incoming(self, head: Head, act: Act) -> Oid | None:
        """The ``files/`` tree that a message came with; what is there if it has no files."""
        if act.files is None:
            return self._source(head, act)[0].subtree(b"files")
        return self.git.file_tree({path: text.content for path, text in act.files.items()})

    def event(self, head: Head, act: Act, files: Oid | None, index: int) -> Head:
        """Put an event on a head; the indexes between are outages. ``files`` is the tree that the act came with.

        Returns the new head. Raises `InvalidError` for a file event that does not go with the files.
        """
        flags = self._flags(head, act) if head.layout is Layout.NATIVE else {}
        files, flags = self._changed(act, files, flags)
        row = self._row(act, index, line_counts(self.repo, head.files, files))
        outages: list[Row] = [{"index": skipped, "event": "outage"} for skipped in range(head.last + 1, index)]
        rows = [*outages, row]
        if head.layout is Layout.NATIVE:
            for new in outages:
                new["type"] = "outage"
            row["type"] = act.kind.type
        blobs = _event_blobs(head, act, rows, flags)
        return self._commit(head, blobs, {b"files": files}, act.subject(index), rows)

    def _changed(self, act: Act, files: Oid | None, flags: dict[str, bool]) -> tuple[Oid | None, dict[str, bool]]:
        """The ``files/`` tree after the act, and which files were cut short."""
        if act.kind is Kind.FILE_CREATE:
            path = act.name("filename")
            self._check_new(files, path)
            return self.git.with_files(files, {path: self.git.blob(b"")}), {**flags, path.decode(): False}
        if act.kind is Kind.FILE_DELETE:
            path = act.name("filename")
            self._existing(files, path)
            flags.pop(path.decode(), None)
            return self.git.with_files(files, {path: None}), flags
        if act.kind is Kind.FILE_RENAME:
            old, new = act.name("old_filename"), act.name("new_filename")
            blob = self._existing(files, old)
            self._check_new(files, new)
            flags[new.decode()] = flags.pop(old.decode(), False)
            return self.git.with_files(files, {old: None, new: blob}), flags
        return files, flags

    def _check_new(self, files: Oid | None, path: bytes) -> None:
        if self._blob(files, path) is not None:
            raise InvalidError(f"{path.decode()!r} is there already")

    def _existing(self, files: Oid | None, path: bytes) -> Oid:
        blob = self._blob(files, path)
        if blob is None:
            raise InvalidError(f"there is no file {path.decode()!r}")
        return blob

    def _blob(self, files: Oid | None, path: bytes) -> Oid | None:
        entry = self.repo.entry(files, path) if files is not None else None
        return entry.oid if entry is not None and not entry.is_tree and not entry.is_submodule else None

    def _flags(self, head: Head, act: Act) -> dict[str, bool]:
        """Whether each file was cut short; files that stay as they are stay as short as they are."""
        if act.files is not None:
            return {path.decode(): text.truncated for path, text in act.files.items()}
        root, is_outage = self._source(head, act)
        listing = Listing(self.repo, root.subtree(b"files"))
        known = read_truncations(self.repo, root)["files"] if not is_outage else {}
        names = (decode(listing.paths[position]) for position in listing.files())
        return {name: known.get(name, False) for name in names}

    def _source(self, head: Head, act: Act) -> tuple[Root, bool]:
        """Where the files of an act come from that has none, and whether that is an outage, of which nothing was cut
        short: the head; if it is a revert, the event that it names. Raises `InvalidError` if that is not there."""
        if act.kind is not Kind.REVERTED:
            return head.root, False
        kata_id, index = act.summary["revert"][0], int(act.summary["revert"][1])
        if kata_id != self._kata_id or index > head.last:
            raise InvalidError(f"there is no event {index} of kata {kata_id} here, whose files could be taken")
        commit = self.repo.commit_of_event(head.commit, index)
        return Root.read(self.repo, commit.tree), head.rows[index].get("event") == "outage"

    def _row(self, act: Act, index: int, counts: tuple[int, int]) -> Row:
        """The row, its keys in the order in which saver writes them."""
        row: Row = {**act.summary, "index": index, "time": time_of(self._moment)}
        row["diff_added_count"], row["diff_deleted_count"] = counts
        if act.laptop_id is not None:
            row["laptop_id"] = act.laptop_id
        row.update(act.tab_seq)
        return row

    # -- an option

    def option(self, head: Head, name: str, value: str, *, in_any_case: bool = False) -> Head | None:
        """Put the change of an option on a head; None when it has that value already, but for ``in_any_case``."""
        if not in_any_case and read_options(self.repo, head.root, head.layout)[name] == value:
            return None
        blobs: dict[bytes, bytes] = {}
        subtrees: dict[bytes, Oid | None] = {}
        if head.layout is Layout.SAVER:
            stored = read_object(self.repo, head.root.blob(b"options.json"))
            blobs[b"options.json"] = pretty({**stored, name: value}, ruby=True).encode()
        else:
            blob = self.git.blob(value.encode() + b"\n")
            subtrees[b"config"] = self.git.tree(head.root.subtree(b"config"), {name.encode(): blob})
        return self._commit(head, blobs, subtrees, f"set option {name} to {value}")

    # -- both

    def _commit(
        self,
        head: Head,
        blobs: Mapping[bytes, bytes],
        subtrees: Mapping[bytes, Oid | None],
        subject: str,
        added: Sequence[Row] = (),
    ) -> Head:
        stored = {name: self.git.blob(data) for name, data in blobs.items()}
        tree = self.git.tree(head.root.tree, stored, subtrees)
        # git has no time before 1970
        seconds = max(int(self._moment.timestamp()), 0)
        email = f"{self._kata_id}@cyber-dojo.org"
        commit = self.git.commit(tree, [head.commit], subject, self._kata_id, email, seconds)
        text = blobs.get(head.layout.rows_name)
        if text is None:
            return Head(commit, Root.read(self.repo, tree), head.layout, head.rows_text, head.rows)
        rows = StoredRows([*head.rows, *added], is_portable=True)
        return Head(commit, Root.read(self.repo, tree), head.layout, text, rows)


def _event_blobs(head: Head, act: Act, rows: list[Row], flags: Mapping[str, bool]) -> Mapping[bytes, bytes]:
    """What an event writes beside ``files/``, by name."""
    blobs = {
        b"stdout": act.stdout.content,
        b"stderr": act.stderr.content,
        b"status": act.status.encode(),
    }
    cut: dict[str, Any] = {"stdout": act.stdout.truncated, "stderr": act.stderr.truncated}
    if head.layout is Layout.SAVER:
        blobs[b"truncations.json"] = pretty(cut, ruby=True).encode()
        blobs[b"events.json"] = _with_rows(head, rows, ruby=True)
        return blobs
    # of a file of which a plain event said nothing nothing is known (`katafs.kata.legacy.pending`)
    ordered = {name: flags[name] for name in sorted(flags, key=str.encode) if flags[name] is not None}
    blobs[b"truncations.json"] = pretty_bytes({"files": ordered, **cut, "status": False})
    blobs[b"events_summary.json"] = _with_rows(head, rows, ruby=False) + b"\n"
    blobs[b"event.json"] = pretty_bytes(rows[-1])
    return blobs


def _with_rows(head: Head, rows: list[Row], *, ruby: bool) -> bytes:
    """The rows with these at the end. Those that are there keep their very bytes, whoever wrote them, unless some
    parser would not take them. Raises `TooLargeError` for more than are read."""
    text = head.rows_text.rstrip()
    if head.rows.is_portable and text.startswith(b"[\n") and text.endswith(b"\n]"):
        added = [b",\n  " + pretty(row, ruby=ruby, indent="  ").encode() for row in rows]
        text = text[:-2] + b"".join(added) + b"\n]"
    else:
        text = pretty([*head.rows, *rows], ruby=ruby).encode()
    if len(text) > MOST_ROWS:
        raise TooLargeError(f"the rows of all events would be larger than {MOST_ROWS >> 20} MiB, and could not be read")
    return text
