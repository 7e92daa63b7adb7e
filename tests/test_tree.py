"""The tree: its rules in process, and on a mount what must hold when somebody looks around, also in damaged katas."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from katafs.errors import KataError, NotFoundError
from katafs.kata.ids import kata_path
from katafs.kata.store import Store
from katafs.tree.context import Context
from katafs.tree.nodes import Node
from katafs.tree.numbers import FIXED, Key, Numbers
from katafs.tree.tree import Tree
from tests.katas import add_event, git, make_kata, make_odd_kata, unpack
from tests.mounts import MakeMount, Mount, wait_until

SAVER, NATIVE = "rG63fy", "Nt1veK"
DAMAGE = "ERROR .* (is damaged|is missing|cannot be compared)"


@contextlib.contextmanager
def fresh(store: Path) -> Iterator[Tree]:
    """A tree as a daemon has it that has just started."""
    tree = Tree(Context(Store(store)))
    try:
        yield tree
    finally:
        while tree.ctx.downloads:
            tree.ctx.downloads.popitem()


def made(node: Node) -> Node:
    """The node with its content made, as the adapter does it."""
    maker = node.to_make()
    if maker is not None:
        node.made(maker())
    return node


def nodes_below(tree: Tree, top: Node, path: bytes = b"") -> Iterator[tuple[bytes, Node, Node]]:
    """Every path below a directory, its node and its directory's; each is asked for as the kernel does, by number."""
    for name in made(top).names():
        node = top.child(name).node
        tree.numbers.keep(node.number, node.key)
        here = path + b"/" + name
        yield here, node, top
        if stat.S_ISDIR(node.mode):
            yield from nodes_below(tree, made(tree.node(node.number)), here)


def content(node: Node) -> bytes | None:
    if stat.S_ISDIR(node.mode):
        return None
    if stat.S_ISLNK(node.mode):
        return node.target()
    size = made(node).size()
    assert size is not None
    data = node.read(0, size + 1)
    assert len(data) == size
    return data


@pytest.fixture(scope="module")
def katas(tmp_path_factory: pytest.TempPathFactory, shared_katas: Path) -> Path:
    store = tmp_path_factory.mktemp("tree")
    for archive in ("saver-v2-rG63fy", "v0-5rTJv5", "v1-5U2J18"):
        unpack(shared_katas / f"{archive}.tgz", store)
    make_odd_kata(store, NATIVE)
    return store


def test_every_directory_agrees_with_itself(katas: Path) -> None:
    """Names and children, sizes and bytes, parents; a key is one directory or one content."""
    places: dict[Key, bytes] = {}
    contents: dict[Key, bytes | None] = {}
    with fresh(katas) as tree:
        for path, node, directory in nodes_below(tree, tree.node(1)):
            assert contents.setdefault(node.key, content(node)) == content(node), path
            if stat.S_ISDIR(node.mode):
                assert places.setdefault(node.key, path) == path
                assert node.parent() == directory.key, path
                check_names(made(node), path)
    assert len(contents) > 400
    assert len({Numbers.number(key) for key in contents}) == len(contents)


def check_names(directory: Node, path: bytes) -> None:
    listed = directory.names()
    assert len(set(listed)) == len(listed), path
    for unknown in (b"", b"no such name", b"..", b".", b"\xff", b"0/1", b"x" * 255, b"latest.json", b"HEAD.lock"):
        with pytest.raises(NotFoundError):
            directory.child(unknown)


def test_what_cannot_be_asked(katas: Path) -> None:
    with fresh(katas) as tree:
        kata = tree.node(1).child(b"rG").node.child(b"63").node.child(b"fy").node
        file, link = kata.child(b"stdout").node, kata.child(b"download.tgz").node
        questions: list[Callable[[], object]] = [lambda: kata.read(0, 1), kata.target, file.names, file.target]
        questions += [lambda: file.child(b"x"), link.names, link.parent, lambda: link.read(0, 1)]
        for question in questions:
            with pytest.raises(KataError):
                question()


# -- nothing costly is made by looking around


def test_looking_around_makes_nothing(mount: MakeMount, saver_kata: Path, mode: str) -> None:
    """Every file of the kata is damaged: whatever makes a diff or an archive fails, and says so in the log."""
    for index in range(8):
        for oid in git(saver_kata, "ls-tree", "-r", "--format=%(objectname)", f"refs/tags/{index}", "files/").split():
            damage(saver_kata, oid.decode())
    mounted = mount(saver_kata.parents[2], mode)
    kata = mounted.kata(SAVER)
    looks = ["ls", "ls diff", "ls download", "find diff -type f", "find download -maxdepth 1", "ls -l download.tgz"]
    for look in (*looks, "find diff events -name '*.json'", "find . -maxdepth 2 -name 'x*'"):
        result = subprocess.run(["sh", "-c", look], cwd=kata, capture_output=True, check=True)
        assert bool(result.stdout) == (look != "find . -maxdepth 2 -name 'x*'"), look
    assert "ERROR" not in mounted.log_text()
    mounted.expected_log = DAMAGE
    for name in ("diff/0..1", "diff/2..3.json", "download.tgz"):
        with pytest.raises(OSError, match="Input/output error"):
            (kata / name).stat()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(kata / "download" / (kata / "download.tgz").readlink().stem)


# -- damaged repositories


def damage(path: Path, oid: str) -> None:
    """Overwrite a loose object; it may have been overwritten before."""
    file = path / ".git/objects" / oid[:2] / oid[2:]
    file.chmod(0o644)
    file.write_bytes(b"not an object")


def remove(path: Path, oid: str) -> None:
    (path / ".git/objects" / oid[:2] / oid[2:]).unlink()


BY_NAME = [b"/events/%d.json" % index for index in range(4)] + [b"/diff/0..3.json", b"/diff/3..2.summary.json"]
DOWNLOAD = {b"/download.tgz", b"/download"}
EVENT_2 = {b"/events/2", b"/events/2.json", b"/diff/1..2", b"/diff/2..3", b"/diff/3..2.summary.json"}
NEEDS = {
    "2:files/hiker.py": {b"/events/2/files/hiker.py", *EVENT_2} - {b"/events/2"},
    "2:files": {b"/events/2/files", *EVENT_2} - {b"/events/2"},
    "2:stdout": {b"/events/2/stdout", b"/events/2.json"},
    "2:truncations.json": {b"/events/2/truncations.json", b"/events/2.json"},
    "2:events_summary.json": {b"/events/2/events_summary.json"},
    "2:config": {b"/config", *(b"/events/%d/config" % index for index in range(4))},
    "2:manifest.json": {b"/manifest.json", *(b"/events/%d/manifest.json" % index for index in range(4)), *DOWNLOAD},
    "2^{tree}": EVENT_2,
    "2": {*EVENT_2, b"/config"},
}


TIPS = ("main", "main^{tree}", "main:events_summary.json")
BREAKS = [(break_object, what) for break_object in (damage, remove) for what in (*NEEDS, *TIPS)]
IDS = {(break_object.__name__, what): f"DMG0{number:02}" for number, (break_object, what) in enumerate(BREAKS)}


@pytest.fixture(scope="module")
def damaged_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kata of four events, and many copies of it, in each one object is damaged."""
    store = tmp_path_factory.mktemp("damage")
    path = make_kata(store, NATIVE)
    for index in (1, 2, 3):
        output = {"content": f"run {index}", "truncated": index == 2}
        add_event(path, index, files={"hiker.py": f"{index}\n", "same/same": "same\n"}, stdout=output, status="1")
    for break_object, what in BREAKS:
        copy = kata_path(store, IDS[break_object.__name__, what])
        shutil.copytree(path, copy)
        name = what if what in TIPS else f"refs/tags/{what}"
        break_object(copy, git(copy, "rev-parse", name).decode().strip())
    return store


@pytest.fixture(scope="module")
def intact(damaged_store: Path) -> dict[bytes, object]:
    return image(damaged_store)


@pytest.fixture(scope="module")
def broken(fuse: None, damaged_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    mount = Mount(damaged_store, tmp_path_factory.mktemp("broken") / "mnt", "fast", ())
    mount.expected_log = DAMAGE
    try:
        mount.start()
        yield mount
    finally:
        error = mount.stop()
    assert not error, error
    assert "Traceback" not in mount.log_text()


@pytest.mark.parametrize("how", ["damage", "remove"])
@pytest.mark.parametrize("what", NEEDS)
def test_damage_is_an_error_for_what_needs_it(broken: Mount, intact: dict[bytes, object], what: str, how: str) -> None:
    """One object of event 2 is damaged. Everything that does not need it is as before, and can be listed."""
    assert len(intact) > 100
    kata = broken.kata(IDS[how, what])
    failed: dict[bytes, int | None] = {}
    for name, data in intact.items():
        try:
            seen = read(os.fsencode(kata) + name)
            assert name in DOWNLOAD or seen == data, name
        except OSError as error:
            failed[name] = error.errno
    assert set(failed.values()) == {errno.EIO}
    # what is in a directory that cannot be read needs not be named
    outermost = {name for name in failed if not any(name.startswith(other + b"/") for other in failed)}
    assert {re.sub(b"/config/.*", b"/config", name) for name in outermost} == NEEDS[what]
    with pytest.raises(OSError, match="Input/output error"):
        (kata / "download.tgz").read_bytes()


@pytest.mark.parametrize("how", ["damage", "remove"])
@pytest.mark.parametrize("what", TIPS)
def test_a_kata_whose_tip_is_damaged_shows_its_repository(broken: Mount, what: str, how: str) -> None:
    kata = broken.kata(IDS[how, what])
    assert os.listdir(kata) == [".git"]
    assert (kata / ".git/HEAD").read_bytes() == b"ref: refs/heads/main\n"
    assert not (kata / "events").exists()


def image(store: Path) -> dict[bytes, object]:
    """What is in the kata, but for the download and ``.git``: the bytes of files, the names in directories."""
    with fresh(store) as tree:
        top = tree.node(Numbers.number(Key(FIXED, NATIVE, 0)))
        below = nodes_below(tree, top)
        nodes = {name: node for name, node, _ in below if not name.startswith((b"/.git", b"/download/"))}
        for name in BY_NAME:
            directory, _, last = name[1:].partition(b"/")
            nodes[name] = top.child(directory).node.child(last).node
        return {name: node.names() if stat.S_ISDIR(node.mode) else content(node) for name, node in nodes.items()}


def read(path: bytes) -> object:
    if os.path.islink(path):
        return os.readlink(path)
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        return os.listdir(path)
    with open(path, "rb") as file:
        data = file.read()
    assert len(data) == status.st_size
    return data


# -- katas that come and go


def test_katas_come_and_go(mount: MakeMount, store: Path, mode: str) -> None:
    mounted = mount(store, mode)
    kata = mounted.kata(NATIVE)
    assert not kata.exists()
    make_kata(store, NATIVE, {"hiker.py": "old\n"})
    assert (kata / "files/hiker.py").read_text() == "old\n", "at once"
    wait_until(lambda: NATIVE[:2] in os.listdir(mounted.path), "the listing", 1)
    everything = [path for path in kata.rglob("*") if path.is_file()]
    assert all(path.read_bytes() is not None for path in everything)
    inside = os.open(kata / "events", os.O_RDONLY)
    try:
        shutil.rmtree(kata_path(store, NATIVE))
        wait_until(lambda: not kata.exists(), "the removal", 1)
        assert not any(path.exists() for path in everything)
        with pytest.raises(OSError, match=r"Stale file handle|No such file"):
            os.stat("0/files", dir_fd=inside)
    finally:
        os.close(inside)
    shutil.rmtree(store / NATIVE[:2])
    wait_until(lambda: os.listdir(mounted.path) == [".katafs"], "the listing", 1)
    make_kata(store, "Nt1veZ")
    assert (mounted.kata("Nt1veZ") / "files/hiker.py").exists()


@pytest.mark.xfail(reason="needs `answer.generation = node.generation` in fuse/operations.py", strict=False)
def test_another_kata_of_the_same_id(mount: MakeMount, store: Path, tmp_path: Path, mode: str) -> None:
    """Whatever was read before, the kernel kept for a month, or the daemon remembers."""
    path = make_kata(store, NATIVE, {"hiker.py": "old\n", "gone": "gone\n"})
    add_event(path, 1, files={"hiker.py": "1st\n"}, status="1")
    mounted = mount(store, mode)
    kata = mounted.kata(NATIVE)
    names = ["files/hiker.py", "events/0/files/hiker.py", "events/0.json", "diff/0..0.json", "manifest.json"]
    names += ["events/0/manifest.json", "events_summary.json", ".git/refs/heads/main", "download.tgz"]
    before = [(kata / name).read_bytes() for name in names]
    assert os.listdir(kata / "events/0/files") == ["gone", "hiker.py"]
    (tmp_path / "other").mkdir()
    other = make_kata(tmp_path / "other", NATIVE, {"hiker.py": "new\n"}, exercise="Another")
    path.rename(tmp_path / "old")
    other.rename(path)
    wait_until(lambda: (kata / "files/hiker.py").read_bytes() == b"new\n", "the new kata", 1)
    after = [(kata / name).read_bytes() for name in names]
    assert not [name for name, old, new in zip(names, before, after, strict=True) if old == new]
    assert os.listdir(kata / "events/0/files") == ["hiker.py"]
    assert not (kata / "events/1").exists()
    assert not (kata / "diff/latest").is_symlink()
