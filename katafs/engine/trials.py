"""What ``katafs probe`` tries between two hosts of one store, and what each result means for katas."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from katafs.engine.side import Side, WrongSidesError
from katafs.engine.work import OTHER

#: grades
RIGHT, SLOW, LOSES = "right", "slow", "loses events"
_NAMES = 100  # that both want at the same time
_TURNS = 30  # of two who count in one file
_ROUNDS, _REPLACED = 4, 10  # of looking for changes
_REMOVED = 5  # of which each takes some seconds on CephFS
_MEETING = 3.0  # seconds until both see one file
_LONGEST = 5.0  # seconds that a change is looked for
_AT_ONCE = 0.1


@dataclass(frozen=True)
class Trial:
    """What was tried, what was found, and what that means."""

    name: str
    grade: str
    found: str
    meaning: str = ""


def probe(a: Side, b: Side) -> Iterator[Trial]:
    """Try all, one after the other. What an engine refuses to do at all is a trial that loses events. Raises
    `WrongSidesError` when the two do not see the same files, `SideError` when one does not answer."""
    token = secrets.token_hex(20)
    a.ask("put", "token", token)
    took, _, errors = b.ask("watch", "token", token, _MEETING)
    if took >= _MEETING:
        why = " or ".join(sorted(errors.keys() - {"ENOENT"})) or "they are not one store"
        raise WrongSidesError(f"what is written to {a.place} is not seen at {b.place}: {why}")
    for name, attempt in _TRIES.items():
        try:
            yield from attempt(a, b)
        except OSError as error:
            yield Trial(name, LOSES, error.strerror or str(error), "katafs cannot record events without it")


def _of(name: str, is_right: bool, found: str, meaning: str, otherwise: str = LOSES) -> Trial:
    return Trial(name, RIGHT if is_right else otherwise, found, "" if is_right else meaning)


def _locks(a: Side, b: Side) -> Iterator[Trial]:
    for how, name, grade, meaning in (
        ("flock", "flock", LOSES, "two katafs write to one kata at once, and remove one another's lock files"),
        ("lockf", "fcntl", SLOW, "katafs takes no such locks; other programs may"),
    ):
        is_right = a.ask("lock", how) and not b.ask("lock", how)
        whom = "the other host" if is_right else "nobody on the other host"
        yield _of(f"{name}(2) of a file", is_right, f"excludes {whom}", meaning, grade)


def _first(a: Side, b: Side) -> Iterator[Trial]:
    for how, name, meaning in (
        ("file", "a file made with O_EXCL", "a lock file excludes nobody: both move one branch"),
        ("link", "link(2)", "both take one name"),
        ("directory", "mkdir(2)", "two katas get one id"),
    ):
        for side in (a, b):
            side.tell("win", how, _NAMES)
        won = [set(side.answer()) for side in (a, b)]
        both, none = len(won[0] & won[1]), _NAMES - len(won[0] | won[1])
        found = f"{both} of {_NAMES} won by both, {none} by nobody" if both or none else "exactly one wins"
        if how == "file" and not both:
            both = sum(_is_made_again(a, b, f"again{number}") for number in range(_TURNS))
            found = f"made again where it was missing before: {both} of {_TURNS}" if both else found
        yield _of(name, not both and not none, found, meaning)


def _is_made_again(a: Side, b: Side, name: str) -> bool:
    b.ask("exists", name)
    a.ask("make", "file", name)
    # or CephFS makes the other host wait for some seconds
    a.ask("sync")
    return bool(b.ask("make", "file", name))


def _counted(a: Side, b: Side) -> Iterator[Trial]:
    """git's compare-and-swap: what is read under a lock that is made with O_EXCL."""
    meaning = "a commit is recorded on an old one, and the events between are gone: turn off the engine's caches"
    for name, how in (("turns", "in turn"), ("race", "at once")):
        a.ask("put", name, "0")
        if name == "turns":
            done = sum(side.ask("count", name, 1, _LONGEST) for _ in range(_TURNS) for side in (a, b))
        else:
            for side in (a, b):
                side.tell("count", name, 10 * _TURNS, 2.0)
            done = a.answer() + b.answer()
        seen = [side.ask("watch", name, f"{done:040}\n", _LONGEST)[0] < _LONGEST for side in (a, b)]
        is_right = all(seen) and done > 0
        found = f"{done} changes, {'none lost' if is_right else 'but not all are there'}"
        yield _of(f"a file changed under lock, {how}", is_right, found, meaning)
    old = 0
    for number in range(_REMOVED):
        a.ask("put", f"gone{number}", "x")
        b.ask("watch", f"gone{number}", "x", _LONGEST)
        a.ask("remove_locked", f"gone{number}")
        old += b.ask("is_read_locked", f"gone{number}")
    found = f"{old} of {_REMOVED} removed files are read on" if old else "gone at once"
    yield _of("a file removed under its lock", not old, found, meaning)


def _replaced(a: Side, b: Side) -> Iterator[Trial]:
    took, last = 0.0, 3 * _TURNS
    texts = [f"{number:040}" for number in range(last + 1)]
    a.ask("put", "reference", texts[0])
    for old, new in pairwise(texts[: _REPLACED + 1]):
        b.ask("watch", "reference", old, _LONGEST)
        a.ask("put", "reference", new)
        took = max(took, b.ask("watch", "reference", new, _LONGEST)[0])
    b.tell("watch", "reference", texts[last], 2 * _LONGEST)
    for text in texts[_REPLACED + 1 :]:
        a.ask("put", "reference", text)
    _, torn, errors = b.answer()
    yield _seen("a file that was replaced", took, "a host reads an old reference, and then the new one")
    yield _of("half of it", not torn, f"{torn} times" if torn else "never", "half a reference is read")
    words = ", ".join(f"{count} {word}" for word, count in errors.items())
    yield _of("errors meanwhile", not words, words or "none", "katafs reads again", SLOW)


def _stale(a: Side, b: Side) -> Iterator[Trial]:
    took: Counter[str] = Counter()
    a.ask("change", 0)
    for number in range(1, _ROUNDS + 1):
        b.ask("look", number)
        a.ask("change", number)
        took |= Counter(b.ask("follow", number, _LONGEST))
    for what, name in (
        ("name", "a new name that was missing"),
        ("listing", "a name in a listing"),
        ("directory", "the times of a directory"),
        ("size", "the size of a file"),
    ):
        yield _seen(name, took[what], "events of other hosts are seen so much later")


def _seen(name: str, took: float, meaning: str) -> Trial:
    found = f"seen after {took * 1000:.0f} ms at most" if took < _LONGEST else f"not seen within {_LONGEST:g} s"
    return _of(name, took < _AT_ONCE, found, meaning, SLOW)


def _times(a: Side, _b: Side) -> Iterator[Trial]:
    is_coarse = a.ask("whole_seconds", 10)
    found = "whole seconds" if is_coarse else "finer than a second"
    yield _of("times of directories", not is_coarse, found, "a change in the same second is never seen")


def _synced(a: Side, b: Side) -> Iterator[Trial]:
    for side in (a, b):
        side.ask("sync")
    yield Trial("fsync(2) of a directory", RIGHT, "succeeds")


def _closed(a: Side, b: Side) -> Iterator[Trial]:
    """Last, as it is counted all the time."""
    failed = sum(side.ask("unclosed") for side in (a, b))
    found = f"failed {failed} times though all was well" if failed else "never fails"
    yield _of("close(2)", not failed, found, "katafs goes on after what was synced", SLOW)


def _owned(a: Side, b: Side) -> Iterator[Trial]:
    meaning = "services find files that are not theirs; see root_squash and mapping of users"
    is_right, found = True, "not tried, which needs root"
    if os.geteuid() == 0:
        try:
            a.ask("own")
            is_right = (owners := b.ask("owners")) == [OTHER] * 4
            found = "seen on the other host" if is_right else f"{owners}, not {OTHER}"
        except OSError as error:
            is_right, found = False, error.strerror or ""
    yield _of("owners", is_right, found, meaning, SLOW)


_TRIES: dict[str, Callable[[Side, Side], Iterator[Trial]]] = {
    "locks": _locks,
    "who is first": _first,
    "a file changed under its lock": _counted,
    "a file that was replaced": _replaced,
    "what is seen of another's changes": _stale,
    "times": _times,
    "fsync(2) of a directory": _synced,
    "owners": _owned,
    "close(2)": _closed,
}
