"""What the checks of one kata look at; each thing is read once, when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from katafs.errors import KataError, why
from katafs.git import GitRepo, Oid
from katafs.git.refs.reading import Reference, references
from katafs.git.refs.writing import RefWriter
from katafs.git.store.mending import is_there
from katafs.kata.fsck.findings import printable
from katafs.kata.fsck.keeping import keep
from katafs.kata.fsck.scan import Scan, scan
from katafs.kata.read.state import State, read_state

#: where what is put aside is kept, in ``.git``; and the references that keep commits
ASIDE = "katafs-lost-found"
LOST = "refs/katafs/lost"
# whoever makes many tags is not to keep us for long
_MOST_TRIED = 20


@dataclass(frozen=True)
class MainCommit:
    """One commit of ``main``: ``number`` is that of its subject, None for an option and the like."""

    oid: Oid
    tree: Oid
    number: int | None
    subject: bytes
    parents: int
    ends_with_newline: bool


@dataclass(frozen=True)
class Chain:
    """The commits of ``main`` by first parents, the newest first."""

    steps: list[MainCommit]
    #: why the walk ended early, if it did
    problem: str = ""

    @cached_property
    def commits(self) -> frozenset[Oid]:
        return frozenset(step.oid for step in self.steps)


class Examination:
    """One look at a kata. Belongs to one thread, and holds nothing that is read later than it says."""

    def __init__(self, path: Path, kata_id: str, *, is_quick: bool) -> None:
        self.path = path
        self.kata_id = kata_id
        self.is_quick = is_quick
        self.git_dir = path / ".git"
        #: indexes that had no tag in an earlier look; None: there was none
        self.untagged_before: frozenset[int] | None = None
        #: whether objects were missing or damaged where all were read
        self.has_damage = False

    @cached_property
    def repo(self) -> GitRepo:
        """Raises `DamagedError` when there is no directory of objects."""
        return GitRepo(self.path)

    @cached_property
    def references(self) -> dict[str, Reference]:
        """Read before ``main`` and its commits are, whose writer moves ``main`` first: no tag is ahead of it."""
        return references(self.git_dir)

    @cached_property
    def main(self) -> Oid | None:
        """The tip, None when it cannot be read or its commit is not there."""
        _ = self.references
        try:
            oid = self.repo.main()
            return oid if oid is not None and self.repo.commit(oid).oid == oid else None
        except KataError:
            return None

    @cached_property
    def lacks_objects(self) -> bool:
        """Whether a reference names an object that no index and no file has, or one that it needs is damaged."""
        return self.has_damage or any(
            found.oid is not None and not is_there(self.repo, found.oid) for found in self.references.values()
        )

    @cached_property
    def scan(self) -> Scan:
        return scan(self.path, with_objects=not self.is_quick)

    @cached_property
    def chain(self) -> Chain:
        """The history of ``main``, as far as it can be read."""
        return walk(self.repo, self.main) if self.main is not None else Chain([])

    @cached_property
    def tip_or_why(self) -> State | str:
        """What the tip says, or why it says nothing that can be understood."""
        if self.main is None:
            return "there is no branch main"
        try:
            return read_state(self.repo, self.main, with_text=True)
        except KataError as error:
            return reason(error)

    @property
    def tip(self) -> State | None:
        return self.tip_or_why if isinstance(self.tip_or_why, State) else None

    @cached_property
    def expected(self) -> dict[int, Oid]:
        """The commit of each event by subjects: a skipped index has that of the next event that was not."""
        found: dict[int, Oid] = {}
        for step in self.chain.steps:
            if step.number is not None:
                found.setdefault(step.number, step.oid)
        later: Oid | None = None
        for index in reversed(range(self.tip.last + 1)) if self.tip is not None else ():
            row = self.tip.rows.stored[index] if self.tip is not None else {}
            # only skipped, if the row is at its place
            if self.tip is not None and row.get("index") == index and self.tip.rows.is_outage(index):
                found.pop(index, None)
                if later is not None:
                    found[index] = later
            else:
                # none where the history is broken: whose outages came before it is not known then
                later = found.get(index)
        return found

    @cached_property
    def tags(self) -> dict[int, Reference]:
        """The tags of events by index."""
        start = len("refs/tags/")
        return {
            int(name[start:]): reference
            for name, reference in self.references.items()
            if name.startswith("refs/tags/") and is_index(name[start:])
        }

    @cached_property
    def numbers(self) -> dict[Oid, int]:
        """The number of each commit of ``main`` that has one."""
        return {step.oid: step.number for step in self.chain.steps if step.number is not None}

    @cached_property
    def ahead(self) -> tuple[int, Oid] | None:
        """The newest tag that is ahead of ``main`` on the same line: its index and commit."""
        if self.tip is None:
            return None
        for index, tag in sorted(self.tags.items(), reverse=True)[:_MOST_TRIED]:
            if index > self.tip.last and tag.oid is not None and tag.oid not in self.chain.commits:
                chain = whole(self.repo, tag.oid)
                if chain is not None and self.main in chain.commits:
                    return index, tag.oid
        return None

    # -- for those who mend

    @property
    def mender(self) -> RefWriter:
        return RefWriter(self.repo)

    def keep_commit(self, oid: Oid, name: str) -> None:
        """Keep a commit that ``main`` does not contain, by a reference that git does not clone."""
        if oid in self.chain.commits or not is_there(self.repo, oid):
            return
        safe = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
        kept = f"{LOST}/{safe.strip('.')[:60] or 'unnamed'}-{oid.hex()[:12]}"
        if kept not in self.references:
            self.mender.replace(kept, oid, None)

    def keep(self, name: str, *, move: bool = False) -> None:
        """Keep a file or link of the kata where what is put aside is; a directory can only be moved. Raises OSError."""
        keep(self.path, self.git_dir / ASIDE, name, move=move)


def walk(repo: GitRepo, tip: Oid) -> Chain:
    """The history of a commit."""
    steps: list[MainCommit] = []
    try:
        for commit in repo.history(tip):
            word = commit.subject.split(b" ", 1)[0].decode("ascii", "replace")
            number = int(word) if is_index(word) else None
            ends = commit.message.endswith(b"\n")
            steps.append(MainCommit(commit.oid, commit.tree, number, commit.subject[:80], len(commit.parents), ends))
    except KataError as error:
        return Chain(steps, reason(error))
    return Chain(steps)


def whole(repo: GitRepo, oid: Oid) -> Chain | None:
    """The history of a commit that has all its commits, and events that can be read; else None."""
    chain = walk(repo, oid)
    try:
        read_state(repo, oid)
    except KataError:
        return None
    return None if chain.problem else chain


def is_index(text: str) -> bool:
    """Whether ``text`` is the number of an event as git and saver write it."""
    return text.isascii() and text.isdigit() and len(text) < 10 and (text == "0" or text[0] != "0")


def reason(error: Exception) -> str:
    """Why something failed, without the path of the repository in front of it."""
    text = why(error)
    return printable(text.partition("/.git: ")[2] or text, 300)


def each(steps: list[Callable[[], object]]) -> Callable[[], object]:
    """One mend that is several."""

    def mend() -> None:
        for step in steps:
            step()

    return mend
