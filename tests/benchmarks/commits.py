"""How long a commit takes: through the mount, by bare pygit2 with fsync, and by the git command (lines 4 and 5).

All sides store the very objects that katafs stored, and take turns. Times are medians, in µs.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, cast

import pygit2

from katafs.kata.compact import compact_kata
from katafs.kata.model.ids import kata_path
from tests.katas import git, git_files, make_long_kata, message
from tests.mounts import Mount
from tests.scratch import fast_directory

FILES = 5
MAIN = "refs/heads/main"


def files_of(number: int) -> dict[str, str]:
    """Five files of 1 to 2 KB, all of which change."""
    return {f"file{index}.py": f"# {number}\n" + f"line of file {index}\n" * 80 for index in range(FILES)}


def through_the_mount(kata: Path, number: int, *, with_edit: bool = False) -> float:
    """One message in one write: µs until it returns. With its index, so that edits are no event of their own, unless
    they are to be."""
    place: dict[str, Any] = {} if with_edit else {"index": number}
    data = json.dumps(message(files_of(number), stdout={"content": f"{number}\n" * 20}, **place)).encode()
    fd = os.open(kata / "ran_tests", os.O_WRONLY | os.O_TRUNC)
    start = time.perf_counter()
    os.write(fd, data)
    took = time.perf_counter() - start
    os.close(fd)
    return took * 1e6


class Commit(NamedTuple):
    """One commit: its event, its id, its new objects as (type, data), and the files that it changed (None: removed)."""

    event: int
    oid: str
    objects: list[tuple[int, bytes]]
    files: dict[str, bytes | None]


def commits_since(path: Path, before: str) -> list[Commit]:
    """What katafs has stored on top of a commit."""
    repo = pygit2.Repository(str(path))
    found = []
    for line in git(path, "log", "--reverse", "--format=%H %s", f"{before}..main").decode().splitlines():
        oid, subject = line.split(" ", 1)
        listed = git(path, "rev-list", "--objects", oid, f"^{oid}~1").decode().splitlines()
        objects = [repo.read(name.split(" ")[0]) for name in listed]
        old, new = git_files(path, f"{oid}~1"), git_files(path, oid)
        names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        changed = {
            os.fsdecode(name): cast(pygit2.Blob, repo[new[name]]).data if name in new else None for name in names
        }
        # a commit is stored after what it refers to
        ordered = [(int(kind), data) for kind, data in reversed(objects)]
        found.append(Commit(int(subject.split(" ")[0]), oid, ordered, changed))
    return found


def by_pygit2(path: Path, commits: list[Commit]) -> float:
    """The same objects as loose ones, the branch and the tag, for each commit: µs."""
    repo = pygit2.Repository(str(path))
    start = time.perf_counter()
    for commit in commits:
        for kind, data in commit.objects:
            repo.write(kind, data)
        repo.lookup_reference(MAIN).set_target(commit.oid)
        repo.references.create(f"refs/tags/{commit.event}", commit.oid)
    return (time.perf_counter() - start) * 1e6


def by_git(path: Path, commits: list[Commit]) -> float:
    """``git add``, ``commit`` and ``tag`` of the same files in a work tree, for each commit: µs."""
    took = 0.0
    for commit in commits:
        for name, data in commit.files.items():
            if data is None:
                (path / name).unlink()
                continue
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        start = time.perf_counter()
        for arguments in (["add", "."], ["commit", "-qm", f"{commit.event} bench"], ["tag", f"bench{commit.event}"]):
            subprocess.run(["git", *arguments], cwd=path, check=True)
        took += time.perf_counter() - start
    return took * 1e6


def _long_kata(store: Path, events: int, kata_id: str = "AbCdEf") -> Path:
    """A kata with so many events in a store on the disk; made in memory."""
    with tempfile.TemporaryDirectory(prefix="katafs-bench-", dir=fast_directory()) as directory:
        made = make_long_kata(Path(directory), kata_id, events)
        shutil.copytree(made, kata_path(store, kata_id), symlinks=True)
    return kata_path(store, kata_id)


def _worktree(work: Path, source: Path) -> Path:
    worktree = work / "worktree"
    git(work, "clone", "-q", source, worktree)
    for name, value in (("user.name", "bench"), ("user.email", "bench@example.com"), ("core.fsync", "all")):
        git(worktree, "config", name, value)
    return worktree


def line_4(work: Path, events: int = 100, writes: int = 30, *, compacted: bool = False) -> dict[str, dict[str, float]]:
    """A ``ran_tests`` of five files in a kata of so many events, and one with an edit that comes before it as a commit
    of its own: the median µs by side, by ``one commit`` and ``two commits``. ``work`` is an empty directory on a disk.
    """
    pygit2.settings.enable_fsync_gitdir(True)
    (work / "store").mkdir()
    kata = _long_kata(work / "store", events)
    if compacted:
        compact_kata(kata, "AbCdEf")
    twin = work / "twin"
    shutil.copytree(kata, twin, symlinks=True)
    worktree = _worktree(work, kata)
    mount = Mount(work / "store", work / "mnt", "fast", ("--no-compact",))
    mount.start()
    found: dict[str, dict[str, float]] = {}
    try:
        number = events
        for what, with_edit in (("one commit", False), ("two commits", True)):
            times: dict[str, list[float]] = {"katafs": [], "pygit2": [], "git": []}
            for _ in range(writes):
                before = git(kata, "rev-parse", "main").decode().strip()
                number += 1
                times["katafs"].append(through_the_mount(mount.kata("AbCdEf"), number, with_edit=with_edit))
                commits = commits_since(kata, before)
                assert len(commits) == 1 + with_edit
                number = commits[-1].event
                times["pygit2"].append(by_pygit2(twin, commits))
                times["git"].append(by_git(worktree, commits))
            found[what] = {side: statistics.median(values) for side, values in times.items()}
        assert git(kata, "rev-parse", "main") == git(twin, "rev-parse", "main"), "both have stored the same"
        assert git(kata, "rev-parse", "main:files") == git(worktree, "rev-parse", "HEAD:files")
    finally:
        mount.stop()
    return found


def line_5(work: Path, counts: tuple[int, ...] = (10, 100, 1000), writes: int = 50) -> dict[str, float]:
    """The median µs of a ``ran_tests`` in katas of so many events, which take turns: a curve."""
    store = work / "growth"
    store.mkdir()
    ids = {f"Gr{count:04}": count for count in counts}
    for kata_id, count in ids.items():
        _long_kata(store, count, kata_id)
    mount = Mount(store, work / "mnt-growth", "fast", ("--no-compact",))
    mount.start()
    times: dict[str, list[float]] = {kata_id: [] for kata_id in ids}
    try:
        for write in range(1, writes + 1):
            for kata_id, count in ids.items():
                times[kata_id].append(through_the_mount(mount.kata(kata_id), count + write))
    finally:
        mount.stop()
    return {f"event {ids[kata_id]}": statistics.median(values) for kata_id, values in times.items()}
