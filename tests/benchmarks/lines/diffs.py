"""Line 6: a diff that nobody has asked for yet, beside a ``git diff`` process and pygit2's own."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pygit2

from tests.benchmarks.bench import KATA, Bench
from tests.benchmarks.data import copies, make_history
from tests.benchmarks.figures import Bar, Figure
from tests.katas import git

_ALL = 1 << 20  # lines of context
_PAIRS = 15
_RELATIVE = f"{KATA[:2]}/{KATA[2:4]}/{KATA[4:]}"

#: the text of the diff from one event to the next
Read = Callable[[int], bytes]


def measure(bench: Bench) -> list[Figure]:
    """Diffs of neighbours; each round asks a fresh mount, for others."""
    events = _PAIRS * bench.rounds + 5
    stores = copies(make_history(bench.directory("made"), KATA, events), bench.work / "store")
    figures = []
    for state, store in stores.items():
        times: dict[str, list[float]] = {"katafs": [], "git": [], "pygit2": []}
        for number in range(bench.rounds):
            first = number * _PAIRS + 2
            repository = pygit2.Repository(str(store / _RELATIVE))
            with bench.katafs(store) as mount:
                directory = mount.path / _RELATIVE / "diff"
                (directory / "latest").readlink()
                sides: dict[str, Read] = {
                    "katafs": lambda was, directory=directory: _through_the_mount(directory, was),  # type: ignore[misc]
                    "git": lambda was, store=store: _by_git(store / _RELATIVE, was),  # type: ignore[misc]
                    "pygit2": lambda was, repository=repository: _by_pygit2(repository, was),  # type: ignore[misc]
                }
                digests = set()
                for side, read in sides.items():
                    took, digest = _read(read, first)
                    times[side] += took
                    if side != "pygit2":  # it has other headers: its names begin with files/ too, but not its ids
                        digests.add(digest)
                assert len(digests) == 1, "the sides have not read the same"
        found = {side: statistics.median(values) for side, values in times.items()}
        others = {side: found[side] for side in ("git", "pygit2")}
        figures.append(Figure(6, "cold diff/W..N", "ms", found["katafs"], others, [Bar(0.25, "git")], state))
    return figures


def _read(read: Read, first: int) -> tuple[list[float], str]:
    """The time, in ms, of each of some diffs, and a digest of their texts."""
    times, digest = [], hashlib.sha256()
    for was in range(first, first + _PAIRS):
        start = time.perf_counter()
        text = read(was)
        times.append((time.perf_counter() - start) * 1e3)
        digest.update(text)
    return times, digest.hexdigest()


def first_diffs(directory: Path, first: int) -> tuple[list[float], str]:
    """The time, in ms, of each of some diffs in a mounted ``diff/``, and a digest of their texts."""
    return _read(partial(_through_the_mount, directory), first)


def _through_the_mount(directory: Path, was: int) -> bytes:
    fd = os.open(f"{directory}/{was}..{was + 1}", os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        text = os.read(fd, size + 1)
    finally:
        os.close(fd)
    assert len(text) == size > 0
    return text


def _by_git(path: Path, was: int) -> bytes:
    tags = [f"refs/tags/{index}" for index in (was, was + 1)]
    return git(path, "diff", f"-U{_ALL}", "--find-renames", "--binary", "--abbrev=7", *tags, "--", "files/")


def _by_pygit2(repository: pygit2.Repository, was: int) -> bytes:
    old, new = (
        repository.lookup_reference(f"refs/tags/{index}").peel(pygit2.Tree)["files"] for index in (was, was + 1)
    )
    assert isinstance(old, pygit2.Tree)
    assert isinstance(new, pygit2.Tree)
    diff = old.diff_to_tree(new, context_lines=_ALL)
    diff.find_similar()
    return (diff.patch or "").encode()
