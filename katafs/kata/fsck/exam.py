"""What the checks of one kata look at (`Examination`), each thing read once, when it is first asked for; what they find
(`Problem`), and what is told of it (`Finding`).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from katafs.errors import KataError
from katafs.git import GitRepo, Oid
from katafs.git.refs.reading import MAIN, Reference, references
from katafs.git.refs.writing import RefWriter
from katafs.git.store.mending import is_there, verify
from katafs.git.store.storing import replace_file
from katafs.kata.fsck.chains import Chain, walk, whole
from katafs.kata.fsck.scan import Scan, scan
from katafs.kata.fsck.words import events, reason
from katafs.kata.read.state import State, read_state


class Outcome(Enum):
    NOTE = "note"  # nothing is wrong, but an operator may want to know
    FOUND = "found"  # can be mended, and was not to be
    MENDED = "mended"
    LEFT = "left"  # katafs cannot mend it; there is advice


@dataclass(frozen=True)
class Problem:
    """Something that a check found: one sentence without its full stop."""

    code: str
    message: str
    #: mends it; raises KataError or OSError. None: katafs cannot, or it is a note
    mend: Callable[[], object] | None = None
    #: what to do about it by hand
    advice: str = ""
    is_note: bool = False
    #: its mend needs root's powers, and must be safe with them in a directory of somebody else
    needs_root: bool = False
    #: a writer that is at work looks the same: believed when it is there twice, with the same indexes
    is_passing: bool = False
    #: the indexes of events that it is about, where two looks are compared
    indexes: frozenset[int] = frozenset()

    @property
    def key(self) -> tuple[str, str]:
        """By what it is known in another look."""
        return self.code, self.message


@dataclass(frozen=True)
class Finding:
    kata_id: str  # of something that is not a kata: its name in the store
    code: str
    message: str
    state: Outcome
    advice: str = ""


#: where what is put aside is kept, in ``.git``; and the references that keep commits
ASIDE = "katafs-lost-found"
LOST = "refs/katafs/lost"
# bytes of an object: what a message can have, and much of what others have stored; all of it is in memory
_LARGEST = 256 << 20
# whoever makes many tags is not to keep us for long
_MOST_TRIED = 20


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
        return GitRepo(self.path, largest=_LARGEST)

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
            return read_state(self.repo, self.main)
        except KataError as error:
            return reason(error)

    @property
    def tip(self) -> State | None:
        return self.tip_or_why if isinstance(self.tip_or_why, State) else None

    @cached_property
    def expected(self) -> dict[int, Oid]:
        """The commit of each event by subjects: a skipped index has that of the next event that was not."""
        # of two commits with one number the newer
        found = {number: oid for oid, number in reversed(self.numbers.items())}
        if self.tip is None:
            return found
        rows = self.tip.rows
        later: Oid | None = None
        for index in reversed(range(rows.last + 1)):
            # only skipped, if the row is at its place
            if rows.stored[index].get("index") == index and rows.is_outage(index):
                found.pop(index, None)
                if later is not None:
                    found[index] = later
            else:
                # none where the history is broken: whose outages came before it is not known then
                later = found.get(index)
        return found

    @cached_property
    def tags(self) -> dict[int, Reference]:
        found = {name.removeprefix("refs/tags/"): reference for name, reference in self.references.items()}
        return {int(name): reference for name, reference in found.items() if is_index(name)}

    @cached_property
    def numbers(self) -> dict[Oid, int]:
        return {step.oid: step.event for step in self.chain.steps if step.event is not None}

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
        """Keep a commit that ``main`` does not contain, by a reference that git does not clone; of one that lacks
        something, for which git would pack nothing any more, the name beside what is put aside."""
        if oid in self.chain.commits or not is_there(self.repo, oid):
            return
        safe = "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
        kept = f"{safe.strip('.')[:60] or 'unnamed'}-{oid.hex()[:12]}"
        if any(verify(self.repo, [oid], set(self.chain.commits))):
            replace_file(self._aside() / kept, oid.hex().encode() + b"\n")
        elif f"{LOST}/{kept}" not in self.references:
            self.mender.replace(f"{LOST}/{kept}", oid, None)

    def keep(self, name: str, *, move: bool = False) -> None:
        """Keep a file or link of the kata where what is put aside is; a directory can only be moved. Raises OSError."""
        aside = self._aside()
        flat = name.removeprefix(".git/").replace("/", "-")
        for number in range(1, 10_000):
            target = aside / (flat if number == 1 else f"{flat}.{number}")
            if not os.path.lexists(target):
                # it is not read, so that nothing is kept that its owner could not have
                if move:
                    os.rename(self.path / name, target)
                else:
                    os.link(self.path / name, target, follow_symlinks=False)
                return
        raise FileExistsError(errno.EEXIST, "too much was put aside", aside)

    def _aside(self) -> Path:
        aside = self.git_dir / ASIDE
        aside.mkdir(exist_ok=True)
        return aside


def giving_up(exam: Examination, lost: Iterable[Oid | None], tip: Oid) -> str:
    """Advice how to go back to ``tip``, without the commits that are ``lost`` after it."""
    # one that cannot be read is mended by itself, and git removes none
    tags = sorted(index for index, tag in exam.tags.items() if tag.oid is not None and tag.oid in set(lost))
    command = setting_main(exam, tip.hex()) + (f"; git tag -d {' '.join(map(str, tags))}" if tags else "")
    return f"or, as the owner, give up {events(tags) if tags else 'what came after'}: {command}"


def setting_main(exam: Examination, commit: str) -> str:
    """The command of who sets ``main`` by hand: git sets none that it does not understand."""
    found = exam.references.get(MAIN)
    is_odd = found is not None and found.oid is None
    return (f"rm .git/{MAIN}; " if is_odd else "") + f"git update-ref {MAIN} {commit}"


def is_index(text: str) -> bool:
    """Whether ``text`` is the number of an event as git and saver write it."""
    return text.isascii() and text.isdigit() and len(text) < 10 and (text == "0" or text[0] != "0")


def each(*steps: Callable[[], object]) -> Callable[[], object]:
    """One mend that is several."""
    return lambda: [step() for step in steps]
