"""``.git`` in the mount: what git makes of it, and that nothing in a kata can make git run a program."""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pygit2
import pytest

from katafs.kata.model.ids import kata_path
from tests.conftest import MODES
from tests.katas import Served, add_event, git, make_kata, make_odd_kata, message, serve_kata, unpack
from tests.mounts import MakeMount, Mount, wait_until

SAVER, NATIVE, HOSTILE = "rG63fy", "Nt1veK", "H0STLE"
SHOWN = {
    "COMMIT_EDITMSG",
    "HEAD",
    "ORIG_HEAD",
    "config",
    "description",
    "index",
    "logs",
    "objects",
    "packed-refs",
    "refs",
}
CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = false\n\tbare = false\n"


@pytest.fixture(scope="module")
def katas(tmp_path_factory: pytest.TempPathFactory, shared_katas: Path) -> Path:
    store = tmp_path_factory.mktemp("git") / "store"
    store.mkdir()
    unpack(shared_katas / "saver-v2-rG63fy.tgz", store)
    make_odd_kata(store, NATIVE)
    make_hostile(store)
    return store


def make_hostile(store: Path) -> None:
    """A kata whose repository would run programs, and refers to files outside, wherever it could."""
    path = make_kata(store, HOSTILE)
    add_event(path, 1, files={"hiker.py": "1\n", ".gitattributes": "* filter=evil diff=evil\n", "HEAD": "x"})
    script = store.parent / "evil.sh"
    script.write_text(f"#!/bin/sh\ntouch {store.parent}/was-run\ncat\n")
    script.chmod(0o755)
    hidden = path / ".git"
    for hook in ("post-checkout", "pre-commit", "reference-transaction", "post-index-change"):
        (hidden / "hooks").mkdir(exist_ok=True)
        (hidden / "hooks" / hook).symlink_to(script)
    for key in (
        "core.fsmonitor",
        "core.pager",
        "core.editor",
        "diff.external",
        "filter.evil.clean",
        "uploadpack.packObjectsHook",
    ):
        git(path, "config", key, script)
    for key in ("filter.evil.smudge", "diff.evil.textconv", "diff.evil.command", "core.sshCommand", "alias.log"):
        git(path, "config", key, script)
    git(path, "config", "core.hooksPath", hidden / "hooks")
    git(path, "status")
    (store.parent / "was-run").unlink()  # the trap works
    (hidden / "info").mkdir(exist_ok=True)
    (hidden / "info/attributes").write_text("* filter=evil\n")
    (hidden / "objects/info").mkdir(exist_ok=True)
    (hidden / "objects/info/alternates").write_text("/etc\n")
    (hidden / "objects/info/link").symlink_to("/etc")
    (hidden / "refs/heads/link").symlink_to("/etc/passwd")
    (hidden / "refs/heads/away").symlink_to("/etc")
    (hidden / "logs/link").symlink_to("/etc/hostname")
    (hidden / "packed-refs").symlink_to("/etc/passwd")
    (hidden / "commondir").write_text("/etc\n")
    (hidden / "config.worktree").write_text("[core]\n\tpager = evil\n")
    (hidden / "index.lock").write_text("")
    (hidden / "refs/heads/main.lock").write_text("")
    (hidden / "modules/x").mkdir(parents=True)
    os.mkfifo(hidden / "objects/fifo")


@pytest.fixture(scope="module", params=MODES)
def mounted(request: pytest.FixtureRequest, fuse: None, katas: Path) -> Iterator[Mount]:
    # git clones from nobody else's repository, whatever safe.directory says
    with Mount(katas, katas.parent / f"mnt-{request.param}", request.param, ("--uid", str(os.getuid()))) as mount:
        yield mount


def test_git_reads_the_repository(mounted: Mount, tmp_path: Path) -> None:
    kata_id = SAVER if mounted.mode == "fast" else NATIVE
    shown, stored = mounted.kata(kata_id), kata_path(mounted.store, kata_id)
    for command in (
        ["log", "--format=%H %an %ae %ct %s%d", "--stat"],
        ["diff", "0", "1"],
        ["diff", "refs/tags/3", "refs/tags/2", "--", "files"],
        ["show-ref", "--head"],
        ["fsck", "--strict", "--full", "--no-dangling"],
        ["reflog", "show", "main"],
    ):
        assert git(shown, *command) == git(stored, *command)
    tip, tags = git(stored, "rev-parse", "main"), git(stored, "show-ref", "--tags")
    for number, source in enumerate([[str(shown)], ["--no-local", str(shown)], [f"file://{shown}"]]):
        git(tmp_path, "clone", "-q", *source, f"clone{number}")
        clone = tmp_path / f"clone{number}"
        assert (git(clone, "rev-parse", "main"), git(clone, "show-ref", "--tags")) == (tip, tags)
        assert git(clone, "status", "--porcelain") == b""
    assert git(tmp_path / "clone0", "fsck", "--strict", "--full") == b""
    repository = pygit2.Repository(str(shown))
    assert str(repository.lookup_reference("refs/tags/1").target).encode() + b" refs/tags/1\n" in tags
    assert repository.head.shorthand == "main"


def test_what_is_shown_of_it(mounted: Mount) -> None:
    for kata_id in (SAVER, NATIVE, HOSTILE):
        hidden = mounted.kata(kata_id) / ".git"
        assert {"HEAD", "config", "objects", "refs"} <= set(os.listdir(hidden)) <= SHOWN
        assert (hidden / "config").read_bytes() == CONFIG
        assert (hidden / "config").stat().st_size == len(CONFIG)
        for name in ("config", "HEAD", "refs/heads/main", "new", "refs/heads/new"):
            with pytest.raises(OSError, match="Read-only file system"):
                (hidden / name).write_text("x")
        with pytest.raises(OSError, match="Read-only file system"):
            (hidden / "HEAD").unlink()


def test_a_hostile_repository_runs_nothing_and_leads_nowhere(mounted: Mount, tmp_path: Path) -> None:
    kata = mounted.kata(HOSTILE)
    everything = list((kata / ".git").rglob("*"))
    assert len(everything) > 15
    assert not [path for path in everything if path.is_symlink() or not (path.is_file() or path.is_dir())]
    names = {path.name for path in everything}
    assert not names & {
        "hooks",
        "attributes",
        "alternates",
        "link",
        "away",
        "packed-refs",
        "commondir",
        "fifo",
        "modules",
    }
    assert not [name for name in names if name.endswith((".lock", ".worktree"))]
    for name in (
        "hooks/pre-commit",
        "info/attributes",
        "objects/info/alternates",
        "refs/heads/link",
        "refs/heads/away/passwd",
    ):
        assert not os.path.lexists(kata / ".git" / name), name
    for name in ("logs/link", "objects/info/link/passwd", "packed-refs", "commondir", "index.lock", "objects/fifo"):
        assert not os.path.lexists(kata / ".git" / name), name
    for command in (
        ["status"],
        ["log", "-p"],
        ["diff", "0", "1"],
        ["diff"],
        ["fsck"],
        ["clone", "-q", ".", tmp_path / "x"],
    ):
        subprocess.run(["git", *map(str, command)], cwd=kata, capture_output=True, check=True)
    assert git(tmp_path / "x", "status", "--porcelain") == b""
    assert not (mounted.store.parent / "was-run").exists()


def test_nothing_called_git_is_shown_in_files(mount: MakeMount, store: Path) -> None:
    """No git writes such a tree; its configuration would be obeyed by whoever calls git in there."""
    path = make_kata(store, NATIVE)
    blob = git(path, "hash-object", "-w", "--stdin", stdin=b"[core]\n").decode().strip()
    inner = git(path, "mktree", stdin=f"100644 blob {blob}\tconfig\n".encode()).decode().strip()
    files = git(path, "mktree", stdin=f"040000 tree {inner}\t.git\n100644 blob {blob}\tx\n".encode()).decode().strip()
    root = git(path, "ls-tree", "main").decode().splitlines()
    lines = [line if not line.endswith("\tfiles") else f"040000 tree {files}\tfiles" for line in root]
    tree = git(path, "mktree", stdin="\n".join(lines).encode()).decode().strip()
    commit = git(path, "commit-tree", tree, "-m", "0 kata creation").decode().strip()
    git(path, "update-ref", "refs/heads/main", commit)
    git(path, "update-ref", "refs/tags/0", commit)
    kata = mount(store).kata(NATIVE)
    assert os.listdir(kata / "files") == os.listdir(kata / "events/0/files") == ["x"]
    assert not (kata / "files/.git").exists()


def test_repacking_the_store_changes_nothing(mount: MakeMount, saver_kata: Path) -> None:
    """``git gc`` while the repository is open: loose objects and references become packed ones."""
    kata = mount(saver_kata.parents[2]).kata(SAVER)
    names = [path.relative_to(kata) for path in (kata / "events").rglob("*") if path.is_file()]
    half = len(names) // 2
    stored = {name: (kata / name).read_bytes() for name in names[:half]}
    git(saver_kata, "gc", "-q", "--prune=now")
    assert not list((saver_kata / ".git/refs/tags").iterdir())
    assert all((kata / name).read_bytes() == data for name, data in stored.items())
    for name in names[half:]:
        index, _, rest = str(name).removeprefix("events/").partition("/")
        if rest.startswith("files/"):
            assert (kata / name).read_bytes() == git(saver_kata, "cat-file", "blob", f"refs/tags/{index}:{rest}")
    assert (kata / ".git/packed-refs").read_bytes() == (saver_kata / ".git/packed-refs").read_bytes()
    assert git(kata, "log", "--format=%H") == git(saver_kata, "log", "--format=%H")
    add = git(saver_kata, "commit-tree", "main^{tree}", "-p", "main", "-m", "set option x").decode().strip()
    git(saver_kata, "update-ref", "refs/heads/main", add)
    assert git(kata, "rev-parse", "main").decode().strip() == add


# -- beside writers

PACKS = ".git/objects/pack"


@pytest.fixture
def kata(served: Mount) -> Served:
    return serve_kata(served, {"a.txt": "0\n"})


def shown_git(kata: Served, *arguments: str) -> str:
    """What git says of the repository in the mount."""
    command = ["git", f"--git-dir={kata.shown / '.git'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_what_a_write_commits_is_in_every_listing(kata: Served) -> None:
    """Though somebody has listed the directories just before."""
    for index in range(1, 9):
        for name in (PACKS, ".git/refs/tags", ".git/objects"):
            os.listdir(kata.shown / name)
        kata.ran_tests.write_text(json.dumps(message({"a.txt": f"{index}\n"}, index=index)))
        assert shown_git(kata, "log", "-1", "--format=%s", "main").startswith(f"{index} ")
        assert shown_git(kata, "cat-file", "-p", f"{index}:files/a.txt") == f"{index}\n"
        repository = pygit2.Repository(os.fspath(kata.shown / ".git"))
        commit = repository.revparse_single("main").peel(pygit2.Commit)
        assert commit.message.startswith(f"{index} ")
        repository.free()


@pytest.fixture
def replaced(kata: Served) -> Iterator[dict[str, tuple[bytes, int, mmap.mmap]]]:
    """Files of ``.git`` by name, as they were: opened and mapped, unread, and removed or replaced afterwards."""
    kata.ran_tests.write_text(json.dumps(message({"a.txt": "1\n"})))
    names = [f"{PACKS}/{name}" for name in os.listdir(kata.stored / PACKS)] + [".git/refs/heads/main"]
    was = {}
    for name in names:
        fd = os.open(kata.shown / name, os.O_RDONLY)
        was[name] = ((kata.stored / name).read_bytes(), fd, mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    listed = os.listdir(kata.shown / PACKS)
    kata.ran_tests.write_text(json.dumps(message({"a.txt": "2\n"})))
    git(kata.stored, "repack", "-a", "-d", "-q", "--threads=1")
    assert not set(listed) & set(os.listdir(kata.stored / PACKS))
    yield was
    for _, fd, mapped in was.values():
        mapped.close()
        os.close(fd)


def test_what_is_open_stays_readable(kata: Served, replaced: dict[str, tuple[bytes, int, mmap.mmap]]) -> None:
    for name, (data, fd, mapped) in replaced.items():
        assert os.fstat(fd).st_size == len(data), name
        assert bytes(mapped) == data, name
        assert os.pread(fd, 1 << 20, 0) == data, name
    assert (kata.shown / ".git/refs/heads/main").read_bytes() == git(kata.stored, "rev-parse", "main")
    assert sorted(os.listdir(kata.shown / PACKS)) == sorted(os.listdir(kata.stored / PACKS))


def test_what_was_listed_a_moment_ago_can_be_opened(
    kata: Served, replaced: dict[str, tuple[bytes, int, mmap.mmap]]
) -> None:
    """Not for ever."""
    for name, (data, _, _) in replaced.items():
        if name.startswith(PACKS):
            assert (kata.shown / name).read_bytes() == data
            assert os.path.basename(name) not in os.listdir(kata.shown / PACKS)


def descriptors(daemon: int, below: Path) -> int:
    """How many files below a directory a process has open."""
    links = []
    for entry in os.scandir(f"/proc/{daemon}/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(entry.path))
    return sum(link.startswith(f"{below}/") for link in links)


def test_what_nobody_has_open_is_let_go_of(served: Mount, kata: Served) -> None:
    """Though it was read, and is gone."""
    for index in range(1, 6):
        kata.ran_tests.write_text(json.dumps(message({"a.txt": f"{index}\n"}, index=index)))
        for name in os.listdir(kata.shown / PACKS):
            (kata.shown / PACKS / name).read_bytes()
        shown_git(kata, "log", "main")
    git(kata.stored, "repack", "-a", "-d", "-q", "--threads=1")
    kept = len(os.listdir(kata.stored / PACKS)) + 2
    wait_until(lambda: descriptors(served.daemon, kata.stored / ".git") <= kept, "the end of what is gone", 30)


def test_a_pack_or_its_replacement_is_listed(mount: MakeMount, store: Path, mode: str) -> None:
    """Who misses an object lists the packs: in between one pack may have become another, which has the object, too."""
    directory = make_kata(store, "AbCdEf") / ".git/objects/pack"
    directory.joinpath("other").write_bytes(b"")
    shown = mount(store, mode).kata("AbCdEf") / ".git/objects/pack"
    is_over = threading.Event()

    def replace() -> None:
        old = directory / "other"
        for number in itertools.count():
            new = directory / f"other-{number}"
            os.link(old, new)
            old.unlink()
            old = new
            if is_over.wait(0.003):
                return

    replacing = threading.Thread(target=replace)
    replacing.start()
    try:
        listed = [os.listdir(shown) for _ in range(1_000)]
    finally:
        is_over.set()
        replacing.join()
    assert [] not in [[name for name in names if name.startswith("other")] for names in listed]
