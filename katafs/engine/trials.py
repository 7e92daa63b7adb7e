"""What ``katafs probe`` tries between two hosts of one store, and what each result means for katas."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
_FAR = 2.0  # seconds between two clocks
_CLOCKS = "no age is told by two clocks; files have the engine's times"


@dataclass(frozen=True)
class Trial:
    """What was tried, what was found, and what that means."""

    name: str
    grade: str
    found: str
    meaning: str = ""


_Try = Callable[[Side, Side], Iterator[Trial]]


def probe(a: Side, b: Side) -> Iterator[Trial]:
    """Try all, one after the other. What an engine refuses to do at all is a trial that loses events.

    Raises `WrongSidesError` when the two do not see the same files, `SideError` when one does not answer.
    """
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


def _of(name: str, found: str, meaning: str, *, is_right: bool, otherwise: str = LOSES) -> Trial:
    return Trial(name, RIGHT if is_right else otherwise, found, "" if is_right else meaning)


def _locks(a: Side, b: Side) -> Iterator[Trial]:
    for how, grade, meaning in (
        ("flock", LOSES, "two katafs write to one kata at once, and remove one another's lock files"),
        ("lockf", SLOW, "katafs takes no such locks; other programs may"),
    ):
        is_right = a.ask("lock", how) and not b.ask("lock", how)
        words = "excludes the other host" if is_right else "excludes nobody on the other host"
        name = f"{'fcntl' if how == 'lockf' else how}(2) of a file"
        yield _of(name, words, meaning, is_right=is_right, otherwise=grade)


def _first(a: Side, b: Side) -> Iterator[Trial]:
    for how, name, meaning in (
        ("file", "a file made with O_EXCL", "a lock file excludes nobody: both move one branch"),
        ("link", "link(2)", "both take one name"),
        ("directory", "mkdir(2)", "two katas get one id"),
    ):
        both, none = _race(a, b, how)
        found = "exactly one wins" if not both and not none else f"{both} of {_NAMES} won by both, {none} by nobody"
        if how == "file" and not both:
            both = sum(_made_again(a, b, f"again{number}") for number in range(_TURNS))
            found = f"made again where it was missing before: {both} of {_TURNS}" if both else found
        yield _of(name, found, meaning, is_right=not both and not none)


def _race(a: Side, b: Side, how: str) -> tuple[int, int]:
    """How many names both were first to make, and neither."""
    for side in (a, b):
        side.tell("win", how, _NAMES)
    won = [set(side.answer()) for side in (a, b)]
    return len(won[0] & won[1]), _NAMES - len(won[0] | won[1])


def _made_again(a: Side, b: Side, name: str) -> bool:
    b.ask("exists", name)
    a.ask("make", "file", name)
    # or CephFS makes the other host wait for some seconds
    a.ask("sync")
    return bool(b.ask("make", "file", name))


def _counted(a: Side, b: Side) -> Iterator[Trial]:
    """git's compare-and-swap: what is read under a lock that is made with O_EXCL."""
    meaning = "a commit is recorded on an old one, and the events between are gone: turn off the engine's caches"
    a.ask("put", "turns", "0")
    done = sum(side.ask("count", "turns", 1, _LONGEST) for _ in range(_TURNS) for side in (a, b))
    yield _total(a, b, "turns", done, "in turn", meaning)
    a.ask("put", "race", "0")
    for side in (a, b):
        side.tell("count", "race", 10 * _TURNS, 2.0)
    yield _total(a, b, "race", a.answer() + b.answer(), "at once", meaning)
    old = 0
    for number in range(_REMOVED):
        a.ask("put", f"gone{number}", "x")
        b.ask("watch", f"gone{number}", "x", _LONGEST)
        a.ask("remove_locked", f"gone{number}")
        old += b.ask("read_locked", f"gone{number}") is not None
    found = f"{old} of {_REMOVED} removed files are read on" if old else "gone at once"
    yield _of("a file removed under its lock", found, meaning, is_right=not old)


def _total(a: Side, b: Side, name: str, done: int, how: str, meaning: str) -> Trial:
    text = f"{done:040}\n"
    seen = [side.ask("watch", name, text, _LONGEST)[0] < _LONGEST for side in (a, b)]
    is_right = all(seen) and done > 0
    found = f"{done} changes, none lost" if is_right else f"{done} changes, but not all are there"
    return _of(f"a file changed under lock, {how}", found, meaning, is_right=is_right)


def _replaced(a: Side, b: Side) -> Iterator[Trial]:
    def text(number: int) -> str:
        return f"{number:040}"

    took = 0.0
    a.ask("put", "reference", text(0))
    for number in range(_REPLACED):
        b.ask("watch", "reference", text(number), _LONGEST)
        a.ask("put", "reference", text(number + 1))
        took = max(took, b.ask("watch", "reference", text(number + 1), _LONGEST)[0])
    b.tell("watch", "reference", text(3 * _TURNS), 2 * _LONGEST)
    for number in range(_REPLACED, 3 * _TURNS):
        a.ask("put", "reference", text(number + 1))
    _, torn, errors = b.answer()
    yield _seen("a file that was replaced", took, "a host reads an old reference, and then the new one")
    yield _of("half of it", f"{torn} times" if torn else "never", "half a reference is read", is_right=not torn)
    words = ", ".join(f"{count} {word}" for word, count in errors.items())
    yield _of("errors meanwhile", words or "none", "katafs reads again", is_right=not words, otherwise=SLOW)


def _stale(a: Side, b: Side) -> Iterator[Trial]:
    took = dict[str, float]()
    for number in range(_ROUNDS):
        b.ask("look", number)
        a.ask("change", number)
        for what, seconds in b.ask("follow", number, _LONGEST).items():
            took[what] = max(took.get(what, 0.0), seconds)
    for what, name in (
        ("name", "a new name that was missing"),
        ("listing", "a name in a listing"),
        ("directory", "the times of a directory"),
        ("size", "the size of a file"),
    ):
        yield _seen(name, took[what], "events of other hosts are seen so much later")


def _seen(name: str, took: float, meaning: str) -> Trial:
    found = f"seen after {took * 1000:.0f} ms at most" if took < _LONGEST else f"not seen within {_LONGEST:g} s"
    return _of(name, found, meaning, is_right=took < _AT_ONCE, otherwise=SLOW)


def _times(a: Side, b: Side) -> Iterator[Trial]:
    is_coarse = a.ask("whole_seconds", 10)
    found = "whole seconds" if is_coarse else "finer than a second"
    yield _of("times of directories", found, "a change in the same second is never seen", is_right=not is_coarse)
    apart = [abs(time.time() - one) for one in (a.ask("clock")[0], b.ask("clock")[1])]
    found = f"the engine's {apart[0]:.1f} s, the other host's {apart[1]:.1f} s from ours"
    yield _of("clocks", found, _CLOCKS, is_right=max(apart) < _FAR, otherwise=SLOW)


def _synced(a: Side, b: Side) -> Iterator[Trial]:
    for side in (a, b):
        side.ask("sync")
    yield Trial("fsync(2) of a directory", RIGHT, "succeeds")


def _closed(a: Side, b: Side) -> Iterator[Trial]:
    """Last, as it is counted all the time."""
    failed = sum(side.ask("unclosed") for side in (a, b))
    found = f"failed {failed} times though all was well" if failed else "never fails"
    yield _of("close(2)", found, "katafs goes on after what was synced", is_right=not failed, otherwise=SLOW)


def _owned(a: Side, b: Side) -> Iterator[Trial]:
    name, meaning = "owners", "services find files that are not theirs; see root_squash and mapping of users"
    if os.geteuid() != 0:
        yield Trial(name, RIGHT, "not tried, which needs root")
        return
    try:
        a.ask("own")
        found = b.ask("owners")
    except OSError as error:
        yield Trial(name, SLOW, error.strerror or "", meaning)
        return
    words = "seen on the other host" if found == [OTHER] * 4 else f"{found}, not {OTHER}"
    yield _of(name, words, meaning, is_right=found == [OTHER] * 4, otherwise=SLOW)


def _rate(a: Side, b: Side) -> Iterator[Trial]:
    took = max(side.ask("rate", _TURNS) for side in (a, b))
    yield Trial("a file made, synced and renamed", RIGHT, f"takes {took * 1000:.1f} ms")


_TRIES: dict[str, _Try] = {
    "locks": _locks,
    "who is first": _first,
    "a file changed under its lock": _counted,
    "a file that was replaced": _replaced,
    "what is seen of another's changes": _stale,
    "times": _times,
    "fsync(2) of a directory": _synced,
    "owners": _owned,
    "rate": _rate,
    "close(2)": _closed,
}
