"""What an event, or an option, is in a commit: the files of `katafs.kata.model.layouts`, and those of the act."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from katafs.errors import InvalidError, ReadOnlyError
from katafs.git import GitRepo, GitWriter, Oid
from katafs.kata.model.ids import identity
from katafs.kata.model.kinds import Act, Kind
from katafs.kata.model.layouts import Entries, check_format, check_version
from katafs.kata.model.rows import Row, Rows, StoredRows, time_of
from katafs.kata.model.trees import Listing, Root, read_truncations
from katafs.kata.read.state import State
from katafs.kata.views.diff import line_counts
from katafs.text import decode


def check_writable(repo: GitRepo, state: State) -> None:
    """Raises `ReadOnlyError` for a layout that is not written, a repository that git would not write to, or a kata of a
    later version; `DamagedError`."""
    if not state.layout.is_writable:
        raise ReadOnlyError(f"{repo.path} is stored in a layout that is read-only")
    check_format(repo)
    check_version(state.manifest(repo), "".join(repo.path.parts[-3:]))


@dataclass(frozen=True)
class KataWriter:
    """Makes the objects of one kata's commits, which nothing refers to yet. For one thread."""

    git: GitWriter
    kata_id: str
    moment: datetime

    @property
    def repo(self) -> GitRepo:
        return self.git.repo

    def incoming(self, head: State, act: Act) -> Oid | None:
        """The ``files/`` tree that a message came with; what is there if it has no files."""
        if act.files is None:
            return self._source(head, act)[0].subtree(b"files")
        return self.git.file_tree({path: text.content for path, text in act.files.items()})

    def event(self, head: State, act: Act, files: Oid | None, index: int) -> State:
        """The new head, with an event that goes with its files (`placing.check_files`), which are the tree ``files``;
        the indexes between are outages."""
        flags = self._flags(head, act) if head.layout.has_file_flags else {}
        files, flags = self._changed(act, files, flags)
        row = self._row(act, index, line_counts(self.repo, head.files_tree, files))
        skipped = range(head.last + 1, index)
        added = [head.layout.row({"index": outage, "event": "outage"}, "outage") for outage in skipped]
        added.append(head.layout.row(row, act.kind.type))
        contents = head.layout.event_blobs(act, head.rows, head.text, added, flags)
        blobs = {name: self.git.blob(data) for name, data in contents.items()}
        new = self._commit(head, (blobs, {b"files": files}), act.subject(index))
        rows = Rows(StoredRows([*head.rows.stored, *added], is_portable=True), budget=self.repo.budget)
        return replace(new, rows=rows, text=contents[head.layout.rows_name])

    def _changed(
        self, act: Act, files: Oid | None, flags: dict[str, bool | None]
    ) -> tuple[Oid | None, dict[str, bool | None]]:
        """The ``files/`` tree after the act, and which files were cut short."""
        if act.kind is Kind.FILE_CREATE:
            path = act.name("filename")
            return self.git.with_files(files, {path: self.git.blob(b"")}), {**flags, path.decode(): False}
        if act.kind is Kind.FILE_DELETE:
            path = act.name("filename")
            flags.pop(path.decode(), None)
            return self.git.with_files(files, {path: None}), flags
        if act.kind is Kind.FILE_RENAME:
            old, new = act.name("old_filename"), act.name("new_filename")
            entry = self.repo.entry(files, old) if files is not None else None
            flags[new.decode()] = flags.pop(old.decode(), False)
            return self.git.with_files(files, {old: None, new: entry.oid if entry is not None else None}), flags
        return files, flags

    def _flags(self, head: State, act: Act) -> dict[str, bool | None]:
        """Whether each file was cut short; files that stay as they are stay as short as they are."""
        if act.files is not None:
            return {path.decode(): text.truncated for path, text in act.files.items()}
        root, is_outage = self._source(head, act)
        known = read_truncations(self.repo, root)["files"] if not is_outage else {}
        paths = Listing(self.repo, root.subtree(b"files")).blobs()
        return {decode(path): known.get(decode(path), False) for path, _ in paths}

    def _source(self, head: State, act: Act) -> tuple[Root, bool]:
        """Where the files of an act come from that has none, and whether that is an outage, of which nothing was cut
        short: the head; if it is a revert, the event that it names. Raises `InvalidError` if that is not there."""
        if act.kind is not Kind.REVERTED:
            return head.root, False
        kata_id, index = act.summary["revert"][0], int(act.summary["revert"][1])
        if kata_id != self.kata_id or index > head.last:
            raise InvalidError(f"there is no event {index} of kata {kata_id} here, whose files could be taken")
        commit = self.repo.commit_of_event(head.commit.oid, index)
        return Root.read(self.repo, commit.tree), head.rows.stored[index].get("event") == "outage"

    def _row(self, act: Act, index: int, counts: tuple[int, int]) -> Row:
        """The row, its keys in the order in which saver writes them."""
        row: Row = {**act.summary, "index": index, "time": time_of(self.moment)}
        row["diff_added_count"], row["diff_deleted_count"] = counts
        if act.laptop_id is not None:
            row["laptop_id"] = act.laptop_id
        row.update(act.tab_seq)
        return row

    def option(self, head: State, name: str, value: str) -> State:
        entries = head.layout.option_entries(self.git, self.repo, head.root, name, value)
        return self._commit(head, entries, f"set option {name} to {value}")

    def _commit(self, head: State, entries: Entries, subject: str) -> State:
        tree = self.git.tree(head.root.tree, *entries)
        # git has no time before 1970
        seconds = max(int(self.moment.timestamp()), 0)
        commit = self.git.commit(tree, [head.commit.oid], subject, *identity(self.kata_id), seconds)
        return replace(head, commit=self.repo.commit(commit), root=Root.read(self.repo, tree))
