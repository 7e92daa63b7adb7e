"""The tree: its rules in process, and on a mount what must hold when somebody looks around, also in damaged katas."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from katafs.errors import KataError, NotFoundError, StaleError
from katafs.fuse.answering import attributes
from katafs.git.budget import Budget
from katafs.kata.model.ids import kata_path
from katafs.kata.store import Store
from katafs.tree.catalogue import kata_key, row_at
from katafs.tree.context import Context
from katafs.tree.nodes import Later, Node
from katafs.tree.numbers import DIFF, FIXED, Key, Numbers
from katafs.tree.timeouts import IMMUTABLE, MUTABLE
from katafs.tree.tree import Tree
from tests.katas import add_event, git, loose, loosen, make_kata, make_long_kata, make_odd_kata, unpack
from tests.mount.test_bounds import big_event, letters, lines
from tests.mounts import MakeMount, wait_until

SAVER, NATIVE = "rG63fy", "Nt1veK"


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
    maker = node.prepare()
    if maker is not None:
        result = maker()
        node.prepared(result.make() if isinstance(result, Later) else result)
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
        with pytest.raises(OSError, match=r"Stale file handle|No such file"):
            os.stat("0.json", dir_fd=inside)
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


def test_another_history_in_the_same_repository(store: Path) -> None:
    """``main`` and the tags are moved away from what was read before."""
    path = make_kata(store, NATIVE, {"hiker.py": "old\n"})
    add_event(path, 1, files={"hiker.py": "1st\n"}, status="1")
    with fresh(store) as tree:
        numbers = numbers_of_files(tree)
        assert tree.node(numbers["tip"]).read(0, 9) == b"1st\n"
        assert tree.node(numbers["first"]).read(0, 9) == b"old\n"
        other = make_kata(store, SAVER, {"hiker.py": "new\n"})
        git(path, "fetch", "-q", "--tags", "--force", other, "+main:main", "--update-head-ok")
        assert content(tree.node(numbers["kata"]).child(b"stdout").node) == b""
        assert tree.node(numbers["first"]).read(0, 9) == b"new\n"
        with pytest.raises(StaleError):
            tree.node(numbers["tip"])


def numbers_of_files(tree: Tree) -> dict[str, int]:
    kata = tree.node(Numbers.number(Key(FIXED, NATIVE, 0)))
    first = kata.child(b"events").node.child(b"0").node.child(b"files").node.child(b"hiker.py").node
    tip = kata.child(b"files").node.child(b"hiker.py").node
    return {"kata": kata.number, "first": first.number, "tip": tip.number}


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

    def is_old() -> list[str]:
        return [name for name, old in zip(names, before, strict=True) if (kata / name).read_bytes() == old]

    wait_until(lambda: (kata / "files/hiker.py").read_bytes() == b"new\n", "the new kata", 1)
    # the kernel is told of each name in its turn
    wait_until(lambda: not is_old(), "all of the new kata", 1)
    assert os.listdir(kata / "events/0/files") == ["hiker.py"]
    assert not (kata / "events/1").exists()
    assert not (kata / "diff/latest").is_symlink()


def test_names_of_a_directory_that_was_damaged_when_the_kernel_was_told(tmp_path: Path) -> None:
    """Once it is mended they are seen, and so the kernel must be told when they go."""
    path = make_kata(tmp_path, "AbCdEf", {"a": "1", "sub/x": "1"})
    tree = Tree(Context(Store(tmp_path)))
    kata = tree.ctx.store.kata("AbCdEf")
    zero = tree.tip("AbCdEf")
    add_event(path, 1, files=dict.fromkeys(("a", "sub/x", "sub/y"), "1"))
    loosen(path)
    damaged = loose(path, "main:files/sub")
    kept = damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    one = tree.tip("AbCdEf")
    assert b"y" not in {name for _, name in tree.stale_after("AbCdEf", zero, one).entries}
    damaged.write_bytes(kept)
    wait_until(lambda: b"sub/y" in kata.files(1).paths, "the directory")
    add_event(path, 2, files=dict.fromkeys(("a", "sub/x"), "2"))
    assert b"y" in {name for _, name in tree.stale_after("AbCdEf", one, tree.tip("AbCdEf")).entries}


def test_what_changed_since_a_commit_that_is_not_there(store: Path) -> None:
    """It may have been made of plain files when not all of them were written."""
    make_kata(store, "AbCdEf")
    stale = Tree(Context(Store(store))).stale_since("AbCdEf", bytes(20))
    assert stale is not None
    assert Numbers.number(Key(FIXED, "AbCdEf", 0)) in stale.inodes


def test_what_is_small_is_made_at_once(store: Path) -> None:
    """In the event loop; what is large, or takes long to be compared or printed, by somebody else."""
    path = make_kata(store, "AbCdEf")
    for text in (lines(100), lines(101), letters(300_000, 1), letters(300_000, 2)):
        big_event(path, text=text)
    tree = Tree(Context(Store(store, budget=Budget(10_000))))
    top = tree.node_of(kata_key("AbCdEf"))
    for directory, name in (("events", "{1}.json"), ("diff", "{0}..{1}"), ("diff", "{0}..{1}.json")):
        for was, is_small in ((1, True), (3, False)):
            tree.ctx.store.new_epoch()
            node = top.child(directory.encode()).node.child(name.format(was, was + 1).encode()).node
            assert (node.prepare() is None) == is_small, (name, was)
            # what was tried takes nothing from what the request may still cost
            assert tree.ctx.store.budget.left > 0


CHANGING = ("history", "html/index.html", "html/W..N.html")


@pytest.mark.parametrize("path", CHANGING)
def test_a_page_that_changes_is_another_thing_each_time(store: Path, path: str) -> None:
    """What was looked up stays as it is, and the kernel may keep it; also when nothing of it is in memory any more."""
    kata = make_long_kata(store, "AbCdEf", 120)
    directory, _, name = path.replace("W..N", "119..120").rpartition("/")
    with fresh(store) as tree:

        def look_up() -> Node:
            tree.ctx.store.new_epoch()
            above = tree.node_of(row_at(directory).key("AbCdEf"))
            found, timeout = above.child(name.encode())
            tree.numbers.keep(found.number, found.key)
            assert timeout <= MUTABLE
            return found

        before = made(look_up())
        data, time = content(before), before.mtime_ns
        add_event(kata, 121)
        now = made(look_up())
        assert now.number != before.number
        assert content(now) != data
        tree.clear_caches()
        again = tree.node(before.number)
        assert attributes(made(again), 0).attr_timeout == IMMUTABLE
        assert (content(again), again.mtime_ns) == (data, time)


@pytest.mark.parametrize("path", CHANGING)
def test_the_number_that_all_its_versions_had(store: Path, path: str) -> None:
    """Kernels and NFS clients that have it from an earlier release see what there is when they ask."""
    kata = make_long_kata(store, "AbCdEf", 120)
    number = Numbers.number(row_at(path).key("AbCdEf") if path != "html/W..N.html" else Key(DIFF, "AbCdEf", 119, 483))
    seen = set()
    with fresh(store) as tree:
        for index in range(121, 124):
            node = made(tree.node(number))
            assert attributes(node, 0).attr_timeout == 0
            seen.add(content(node))
            add_event(kata, index)
    assert len(seen) == 3
