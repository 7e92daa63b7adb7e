"""Checking, and mending, one kata.

First it is looked at without keeping anybody waiting; that is all for a kata in which nothing is found. Otherwise it is
looked at again under the lock that katafs' writers take. Saver and git take no such lock: what they look like in the
middle of their work must be there twice, a second apart. Then what can be mended is mended, and looked at again, until
nothing new is found: only what is gone then is called mended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

from katafs.errors import DamagedError, KataError
from katafs.git import read_config, repository_lock
from katafs.git.store.mending import Damage
from katafs.kata.fsck import branches, event_checks, file_checks, object_checks, plain_katas
from katafs.kata.fsck.exam import Examination, Finding, Outcome, Problem
from katafs.kata.fsck.scan import age
from katafs.kata.fsck.words import reason
from katafs.kata.store import is_git
from katafs.owner import acting_as_owner

Check = Callable[[Examination], Iterator[Problem]]

#: Everything that is looked for, in the order in which it is to be mended: what later ones build on comes first.
CHECKS: tuple[Check, ...] = (
    file_checks.owners_and_modes,
    file_checks.locks,
    branches.directories,
    branches.packed,
    branches.head,
    file_checks.config,
    object_checks.indexes,
    object_checks.beside,
    branches.main,
    branches.others,
    branches.logs,
    event_checks.readable,
    event_checks.shown,
    event_checks.rows,
    event_checks.commits,
    event_checks.wrong_tags,
    event_checks.tags_beyond,
    event_checks.missing_tags,
    event_checks.other_tags,
    event_checks.historic,
    file_checks.manifest,
    file_checks.borrowed_objects,
    file_checks.index_file,
    file_checks.worktrees,
    file_checks.temporary_files,
)

_PATIENCE = 15.0  # seconds; also how long a writer of katafs' waits for us
_LOCK_PATIENCE = 11.0
# when references were changed in the last 10 s, somebody may be at work
_APART, _RECENT = 1.0, 10.0
_ROUNDS = 6
# what a pack has is missing where its index is
_OF_INDEXES = ("pack-index-damaged", "pack-without-index")
_OF_MAIN = ("main-lost", "main-behind")


def check_kata(path: Path, kata_id: str, *, repair: bool = False, is_quick: bool = False) -> list[Finding]:
    """All findings in the kata at ``path``; its writers may be at work. Raises `KataError` or OSError when it could not
    be looked at, as when its lock is not to be had. A kata that is removed meanwhile has none."""
    try:
        check = _KataCheck(path, kata_id, repair, is_quick)
        found = check.run() if is_git(path) else check.run_plain()
        return found if path.is_dir() or any(finding.state is Outcome.MENDED for finding in found) else []
    except (KataError, OSError):
        if not path.is_dir():
            return []
        raise


class _KataCheck:
    def __init__(self, path: Path, kata_id: str, repair: bool, is_quick: bool) -> None:
        self._path, self._id, self._repair, self._is_quick = path, kata_id, repair, is_quick
        self._is_ours = True  # whether katafs may write to it
        #: as whose owner it is mended
        self._owned = path
        # what was found while nobody waited
        self._damage: list[Damage] = []
        self._unchecked: list[Problem] = []
        #: mends that were tried, by what they were for, and why one failed
        self._mended: list[tuple[str, str]] = []
        self._failed: dict[tuple[str, str], str] = {}

    def run_plain(self) -> list[Finding]:
        found = [*plain_katas.check(self._path, is_quick=self._is_quick)]
        # the whole directory may go
        self._owned = self._path.parent
        if self._repair:
            self._mend_all(found)
        return self._findings([problem for problem in found if problem.key not in self._mended])

    def run(self) -> list[Finding]:
        started = time.monotonic()
        exam = self._exam()
        try:
            exam.repo  # noqa: B018 - opened first, as nothing can be said without it
        except DamagedError as error:
            message = f"it is no repository: {reason(error)}"
            return [Finding(self._id, "not-a-repository", message, Outcome.LEFT, "take it from a backup")]
        if _is_being_made(exam):
            return []
        self._is_ours = read_config(exam.git_dir).may_be_written and file_checks.later_version(exam) is None
        self._repair = self._repair and self._is_ours
        if read_config(exam.git_dir).object_format != "sha1":
            return self._findings([*self._found_by((file_checks.config,), exam)])
        if not self._is_quick:
            self._look_at_objects(exam)
        first = self._look(exam)
        if all(problem.is_note for problem in first) and not self._damage and not file_checks.young_locks(exam):
            return self._findings(first)
        # whoever holds a reference will have let go soon, or is dead
        end = time.monotonic() + _LOCK_PATIENCE
        while file_checks.young_locks(exam) and time.monotonic() < end:
            time.sleep(0.05)
            exam = self._exam()
        if any(problem.is_passing for problem in first) and _was_written(exam):
            time.sleep(max(0.0, _APART - (time.monotonic() - started)))
        with ExitStack() as held:
            # its file, which may not be there yet, is the owner's; where nobody of ours writes none is made
            if self._is_ours:
                with acting_as_owner(self._path):
                    held.enter_context(repository_lock(self._path / ".git", _PATIENCE))
            return self._findings(self._again(first))

    def _look_at_objects(self, exam: Examination) -> None:
        self._unchecked = []
        try:
            self._damage = object_checks.look(exam)
            exam.has_damage = bool(self._damage)
        except Exception as error:  # noqa: BLE001 - as above
            message = f"its objects could not be checked: {reason(error)}"
            self._unchecked = [Problem("unchecked", message, advice="see the other findings")]

    def _exam(self) -> Examination:
        exam = Examination(self._path, self._id, is_quick=self._is_quick)
        exam.has_damage = bool(self._damage)
        return exam

    def _look(self, exam: Examination) -> list[Problem]:
        def objects(exam: Examination) -> Iterator[Problem]:
            return object_checks.problems(exam, self._damage)

        return [*self._found_by(CHECKS, exam), *self._unchecked, *self._found_by((objects,), exam)]

    def _found_by(self, checks: tuple[Check, ...], exam: Examination) -> Iterator[Problem]:
        for check in checks:
            try:
                yield from check(exam)
            except Exception as error:  # noqa: BLE001 - an object that cannot be read, or what nobody has thought of
                name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
                message = f"{name} could not be checked: {reason(error)}"
                yield Problem("unchecked", message, advice="see the other findings")

    def _again(self, first: list[Problem]) -> list[Problem]:
        """Look, and mend, until nothing is left that can be mended."""
        passing = {problem.code for problem in first if problem.is_passing}
        untagged = frozenset[int]().union(*(problem.indexes for problem in first))
        found: list[Problem] = []
        for _ in range(_ROUNDS):
            exam = self._exam()
            exam.untagged_before = untagged if not self._mended else None
            if not self._is_quick and self._mended and (self._damage or self._has_main_moved()):
                # what is needed is another now
                self._look_at_objects(exam)
            looked = self._look(exam)
            found = [each for each in looked if self._mended or not each.is_passing or each.code in passing]
            if not self._repair or not self._mend_all(found):
                break
        return found

    def _mend_all(self, found: list[Problem]) -> bool:
        """Whether something was tried. Where ``main`` moves, or an index is made, what was found before holds no
        longer."""
        was_tried = is_index_made = False
        for problem in found:
            if is_index_made and problem.code not in _OF_INDEXES:
                break
            if self._mend(problem):
                is_index_made = problem.code in _OF_INDEXES
                was_tried = True
                if problem.code in _OF_MAIN:
                    break
        return was_tried

    def _has_main_moved(self) -> bool:
        return any(code in _OF_MAIN for code, _ in self._mended)

    def _mend(self, problem: Problem) -> bool:
        """Try to mend something, once; whether it was tried."""
        if problem.mend is None or problem.is_note or problem.key in (*self._mended, *self._failed):
            return False
        try:
            as_root = problem.needs_root and os.geteuid() == 0
            with nullcontext() if as_root else acting_as_owner(self._owned):
                problem.mend()
        except Exception as error:  # noqa: BLE001 - the next one is tried
            self._failed[problem.key] = reason(error)
        else:
            self._mended.append(problem.key)
        return True

    def _findings(self, last: list[Problem]) -> list[Finding]:
        """What is told: what was mended, and what is there at the end."""
        left = {problem.key for problem in last}
        told = [Finding(self._id, *key, Outcome.MENDED) for key in self._mended if key not in left]
        for problem in last:
            state, advice = Outcome.LEFT, problem.advice
            if problem.is_note:
                state = Outcome.NOTE
            elif problem.key in self._failed:
                advice = f"it could not be mended: {self._failed[problem.key]}"
            elif problem.key in self._mended:
                advice = "it was mended, and is there again"
            elif problem.mend is not None and self._is_ours:
                state = Outcome.FOUND
            told.append(Finding(self._id, *problem.key, state, advice))
        return told


def _is_being_made(exam: Examination) -> bool:
    """Whether it is a repository that somebody has only begun to make."""
    if exam.references:
        return False
    return 0 <= min(age(exam.path), age(exam.git_dir)) < file_checks.BEING_MADE


def _was_written(exam: Examination) -> bool:
    names = ("refs/heads", "refs/heads/main", "refs/tags", "packed-refs")
    return any(age(exam.git_dir / name) < _RECENT for name in names if os.path.lexists(exam.git_dir / name))
