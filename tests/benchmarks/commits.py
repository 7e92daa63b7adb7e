"""How long a commit takes: through the mount, by bare pygit2 with fsync, and by the git command."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from tests.katas import git, make_long_kata, message
from tests.mounts import Mount

FILES = 5


def _files(number: int) -> dict[str, str]:
    return {f"file{index}.py": f"# {number}\n" + f"line of file {index}\n" * 80 for index in range(FILES)}


def through_the_mount(kata: Path, number: int) -> float:
    """One message in one write: µs until it returns. With its index, so that edits are no event of their own."""
    data = json.dumps(message(_files(number), index=number, stdout={"content": f"{number}\n" * 20})).encode()
    fd = os.open(kata / "ran_tests", os.O_WRONLY | os.O_TRUNC)
    start = time.perf_counter()
    os.write(fd, data)
    took = time.perf_counter() - start
    os.close(fd)
    return took * 1e6


def by_pygit2(path: Path, number: int) -> float:
    """The same objects as loose objects, a branch and a tag, synced: µs."""
    repo = pygit2.Repository(str(path))
    parent = repo.lookup_reference("refs/heads/main").peel(pygit2.Commit)
    rows = repo[parent.tree["events_summary.json"].id].read_raw() + b"x" * 200
    start = time.perf_counter()
    files = repo.TreeBuilder()
    for name, content in _files(number).items():
        files.insert(name, repo.create_blob(content.encode()), FileMode.BLOB)
    root = repo.TreeBuilder(parent.tree)
    root.insert("files", files.write(), FileMode.TREE)
    outputs = {"stdout": b"%d\n" % number * 20, "stderr": b"", "status": b"0", "event.json": b"%d" % number}
    for name, data in {**outputs, "events_summary.json": rows, "truncations.json": b"%d" % number}.items():
        root.insert(name, repo.create_blob(data), FileMode.BLOB)
    who = pygit2.Signature("bench", "bench@example.com", 1_770_000_000 + number, 0)
    commit = repo.create_commit(None, who, who, f"{number} bench", root.write(), [parent.id])
    repo.lookup_reference("refs/heads/main").set_target(commit)
    repo.references.create(f"refs/tags/{number}", commit)
    return (time.perf_counter() - start) * 1e6


def by_git(path: Path, number: int) -> float:
    """``git add``, ``commit`` and ``tag`` of the same files in a work tree: µs."""
    for name, content in _files(number).items():
        (path / "files" / name).write_text(content)
    start = time.perf_counter()
    for arguments in (["add", "."], ["commit", "-qm", f"{number} bench"], ["tag", f"bench{number}"]):
        subprocess.run(["git", *arguments], cwd=path, check=True)
    return (time.perf_counter() - start) * 1e6


def measure(work: Path, events: int, rounds: int) -> dict[str, dict[str, float]]:
    """The median µs of a commit to a kata of so many events, by side."""
    pygit2.settings.enable_fsync_gitdir(True)
    stores = {side: work / f"store-{side}" for side in ("katafs", "pygit2")}
    for store in stores.values():
        store.mkdir()
        make_long_kata(store, "AbCdEf", events)
    worktree = work / "worktree"
    git(work, "clone", "-q", stores["pygit2"] / "Ab" / "Cd" / "Ef", worktree)
    for name, value in (("user.name", "bench"), ("user.email", "bench@example.com"), ("core.fsync", "all")):
        git(worktree, "config", name, value)
    mount = Mount(stores["katafs"], work / "mnt-commits", "fast", ())
    mount.start()
    try:
        times: dict[str, list[float]] = {"katafs": [], "pygit2": [], "git": []}
        for number in range(events + 1, events + 1 + rounds * 10):
            times["katafs"].append(through_the_mount(mount.kata("AbCdEf"), number))
            times["pygit2"].append(by_pygit2(stores["pygit2"] / "Ab" / "Cd" / "Ef", number))
            times["git"].append(by_git(worktree, number))
        stored = git(stores["katafs"] / "Ab" / "Cd" / "Ef", "show", f"refs/tags/{number}:files/file0.py")
        assert stored == _files(number)["file0.py"].encode(), "the mount has not stored what was written"
    finally:
        mount.stop()
    return {f"commit at event {events}": {side: statistics.median(values) for side, values in times.items()}}
