"""Inode numbers: they say what they name, to every daemon; and a kata that goes, comes or is another."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections import Counter
from pathlib import Path

import pyfuse3
import pytest
import trio

from katafs.errors import StaleError
from katafs.fuse.fastopen import FastOpen
from katafs.fuse.operations import Operations
from katafs.kata.model.ids import ID_COUNT, kata_path, to_number
from katafs.tree.catalogue import FIRST_ARCHIVE
from katafs.tree.nodes import Node
from katafs.tree.numbers import (
    DIFF,
    DOWNLOAD,
    EVENT,
    FIXED,
    GROUP,
    MAX_INDEX,
    MAX_SLOT,
    META,
    PLAIN,
    PREFIX,
    ROOT,
    TIP_DIRECTORY,
    VERSIONS,
    Key,
    Numbers,
    path_hash,
)
from tests.katas import (
    GitCommit,
    GitFile,
    add_event,
    import_commits,
    make_kata,
    make_odd_kata,
    pretty_json,
    row_time,
    unpack,
)
from tests.mounts import MakeMount, Mount, wait_until
from tests.tree.test_tree import content, fresh, made, nodes_below

TABLE = (ID_COUNT + 1) << 27
LAST_HASH = (1 << 23) - 1
IDS = ("000000", "zzzzzz", "rG63fy", "999999")
EVENTS = [(index, slot) for index in (0, 1, 4095) for slot in (0, 1, 31, 32, 8191)]
DIFFS = [(was, now * 4 + view) for was in (0, 7, 4095) for now in (0, 8, 4095) for view in range(3)]


def small_keys() -> list[Key]:
    """Keys of every kind that have a number of their own, at the edges of what fits."""
    keys = [Key(META, "", which) for which in (ROOT, 2, 3, 4, 63)]
    keys += [Key(PREFIX, "".join(part)) for part in ("00", "zz", "rG", "0000", "zzzz", "rG63")]
    for kata_id in IDS:
        keys += [Key(FIXED, kata_id, which) for which in (0, 1, 16, 37)]
        keys += [Key(GROUP, kata_id, which) for which in (0, 3, 64, 127)]
        keys += [Key(kind, kata_id, 42, version) for kind in (FIXED, GROUP) for version in (1, VERSIONS - 1)]
        keys += [Key(FIXED, kata_id, number) for number in (FIRST_ARCHIVE, LAST_HASH)]
        keys += [Key(EVENT, kata_id, index, slot) for index, slot in EVENTS]
        keys += [Key(kind, kata_id, number) for kind in (TIP_DIRECTORY, DOWNLOAD) for number in (0, 5, LAST_HASH)]
        keys += [Key(DIFF, kata_id, was, now) for was, now in DIFFS]
    return keys


def large_keys() -> list[Key]:
    """Keys that fit nowhere but into the table."""
    keys = []
    for kata_id in IDS:
        keys += [Key(EVENT, kata_id, MAX_INDEX, 0), Key(EVENT, kata_id, 0, MAX_SLOT), Key(EVENT, kata_id, 10**6, 10**5)]
        keys += [
            Key(DIFF, kata_id, MAX_INDEX, 3),
            Key(DIFF, kata_id, 3, MAX_INDEX * 4),
            Key(DIFF, kata_id, 5000, 20001),
        ]
        keys += [Key(FIXED, kata_id, 42, VERSIONS), Key(DIFF, kata_id, 3, 19, b"5"), Key(DIFF, kata_id, 3, 19, b"6")]
        keys += [Key(PLAIN, kata_id, path=path) for path in (b".git/HEAD", b"0/event.json", b"\xff", b"a'b", b'a"b')]
        keys += [Key(kind, kata_id, 5, 1, path) for kind in (TIP_DIRECTORY, DOWNLOAD) for path in (b"a", b"a/b")]
    return keys


def test_every_small_key_can_be_read_from_its_number() -> None:
    keys = small_keys()
    numbers_of = {Numbers.number(key): key for key in keys}
    assert len(numbers_of) == len(keys)
    assert Numbers.number(Key(META, "", ROOT)) == 1
    for number, key in numbers_of.items():
        assert 0 < number < TABLE
        assert Numbers().key(number) == key


def test_the_others_are_kept_while_the_kernel_holds_them() -> None:
    table, keys = Numbers(), large_keys()
    numbers_of = {Numbers.number(key): key for key in keys}
    assert len(numbers_of) == len(keys)
    assert all(TABLE <= number < 1 << 63 for number in numbers_of)
    for number, key in numbers_of.items():
        with pytest.raises(StaleError):
            table.key(number)
        table.keep(number, key)
        table.keep(number, key)
        assert table.key(number) == key
    assert len(table) == len(keys)
    for number, key in numbers_of.items():
        table.forget(number, 1)
        assert table.key(number) == key
        table.forget(number, 1)
        with pytest.raises(StaleError):
            table.key(number)
        table.forget(number, 5)
    assert len(table) == 0


def test_small_numbers_need_not_be_kept() -> None:
    table = Numbers()
    for key in small_keys():
        table.keep(Numbers.number(key), key)
        table.forget(Numbers.number(key), 1)
        assert len(table) == 0


def test_numbers_never_change() -> None:
    """The kernel has been told them by an earlier daemon, an NFS client has kept them for weeks."""
    kata = to_number("rG63fy") + 1 << 27
    assert Numbers.number(Key(META, "", ROOT)) == 1
    assert Numbers.number(Key(PREFIX, "rG")) == (1 << 16) + to_number("rG")
    assert Numbers.number(Key(PREFIX, "rG63")) == (1 << 24) + to_number("rG63")
    assert Numbers.number(Key(FIXED, "rG63fy", 2)) == kata + (1 << 25) + 2
    assert Numbers.number(Key(EVENT, "rG63fy", 3, 5)) == kata + (3 << 13) + 5
    assert Numbers.number(Key(DIFF, "rG63fy", 3, 4 * 4 + 1)) == kata + (1 << 26) + (1 << 24) + (3 << 12) + 4
    assert Numbers.number(Key(PLAIN, "rG63fy", path=b".git/HEAD")) == 6324147925696567346
    assert path_hash(b"a/b/c") == 1990283


def test_a_number_of_nothing_is_stale(store: Path) -> None:
    make_kata(store, "rG63fy")
    kata = to_number("rG63fy") + 1 << 27
    nothing = [0, 63, 64, 65535, (1 << 16) + 58**2, (1 << 24) + 58**4, TABLE, TABLE + 1, (1 << 63) - 1]
    nothing += [
        kata + code for code in (7 << 23, 1 << 13, 12, 31, 8191, (1 << 25) + 63, (1 << 26) + 1, 3 << 24 | 1 << 26 | 1)
    ]
    # a version of what has none, and one that is yet to come
    nothing += [Numbers.number(Key(FIXED, "rG63fy", which, 2)) for which in (0, 2, 42)]
    nothing += [Numbers.number(Key(PREFIX, "zz")), (to_number("zzzzzz") + 1 << 27) + (1 << 25)]
    with fresh(store) as tree:
        assert tree.node(kata).names() != []
        for number in nothing:
            with pytest.raises(StaleError):
                tree.node(number)


# -- trees


@pytest.fixture(scope="module")
def katas(tmp_path_factory: pytest.TempPathFactory, shared_katas: Path) -> Path:
    store = tmp_path_factory.mktemp("numbers") / "store"
    store.mkdir()
    for archive in ("saver-v2-rG63fy", "v0-5rTJv5"):
        unpack(shared_katas / f"{archive}.tgz", store)
    make_odd_kata(store, "Nt1veK")
    return store


def attributes(node: Node) -> tuple[object, ...]:
    return node.mode, node.owner, node.mtime_ns, node.size(), node.number, content(node)


def test_a_new_daemon_knows_what_an_old_one_gave_out(katas: Path) -> None:
    with fresh(katas) as old, fresh(katas) as new:
        given = {node.number: attributes(made(node)) for _, node, _ in nodes_below(old, old.node(1))}
        for name in (b"events/2.json", b"diff/3..1", b"diff/0..4.json", b"diff/1..1.summary.json"):
            directory, _, last = name.partition(b"/")
            kata = old.node(Numbers.number(Key(FIXED, "Nt1veK", 0)))
            node = kata.child(directory).node.child(last).node
            given[node.number] = attributes(made(node))
        # what .katafs/ says is of the daemon that is asked
        given = {number: seen for number, seen in given.items() if not 2 < number < 64}
        small = {number: seen for number, seen in given.items() if number < TABLE}
        assert len(small) > 200
        for number, seen in small.items():
            assert attributes(made(new.node(number))) == seen
        assert len(new.numbers) == 0
        for number in given.keys() - small.keys():
            assert old.node(number).number == number
            with pytest.raises(StaleError):
                new.node(number)


def colliding(prefix: bytes) -> tuple[bytes, bytes]:
    """Two names whose paths after a prefix have the same hash."""
    seen: dict[int, bytes] = {}
    for count in itertools.count():
        name = b"d%d" % count
        other = seen.setdefault(path_hash(prefix + name), name)
        if other != name:
            return other, name
    raise AssertionError


def test_paths_of_the_same_hash_are_not_confused(store: Path, mount: MakeMount) -> None:
    """In ``files/`` at the tip, and in the download."""
    tip, download = colliding(b""), colliding(b"files/")
    files = {f"{name.decode()}/file": f"in {name.decode()}\n" for name in (*tip, *download)}
    path = make_kata(store, "Nt1veK", files)
    mounted = mount(store)
    kata = mounted.kata("Nt1veK")
    name = (kata / "download.tgz").readlink().name.removesuffix(".tgz")
    for top in (kata / "files", kata / "download" / name / "files"):
        assert {str(file.relative_to(top)): file.read_text() for file in top.rglob("file")} == files
        assert len({directory.stat().st_ino for directory in top.iterdir()}) == len({*tip, *download})
    inside = (kata / "files" / os.fsdecode(tip[0])).stat().st_ino
    assert inside >= TABLE
    add_event(path, 1, files={f"{tip[0].decode()}/file": "alone\n"})
    wait_until(lambda: os.listdir(kata / "files") == [os.fsdecode(tip[0])], "the commit", 2)
    assert (kata / "files" / os.fsdecode(tip[0]) / "file").read_text() == "alone\n"
    assert (kata / "files" / os.fsdecode(tip[0])).stat().st_ino < TABLE
    assert sorted(os.listdir(kata / "events/0/files")) == sorted({os.fsdecode(name) for name in (*tip, *download)})


def test_more_paths_than_fit(store: Path) -> None:
    files = [GitFile(f"files/{number:05}", b"%d" % (number % 9)) for number in range(8200)]
    rows = pretty_json([{"index": 0, "event": "created", "time": row_time(0)}])
    kata = [GitFile("options.json", b"{}"), GitFile("events.json", rows), GitFile("manifest.json", b"{}"), *files]
    import_commits(kata_path(store, "MANYfs"), [GitCommit("0 kata creation", kata, [0])])
    with fresh(store) as old, fresh(store) as new:
        event = old.node(Numbers.number(Key(EVENT, "MANYfs", 0, 0)))
        files_dir = event.child(b"files").node
        nodes = [files_dir.child(name).node for name in files_dir.names()]
        assert len({node.number for node in nodes}) == len(nodes) == 8200
        for number, node in enumerate(nodes):
            old.numbers.keep(node.number, node.key)
            assert old.node(node.number).read(0, 9) == b"%d" % (number % 9)
        large = [node for node in nodes if node.number >= TABLE]
        assert 0 < len(large) == len(old.numbers) < 100
        assert new.node(nodes[8000].number).read(0, 9) == b"%d" % (8000 % 9)
        with pytest.raises(StaleError):
            new.node(large[0].number)


def test_lookups_that_are_forgotten_leave_nothing(katas: Path) -> None:
    """The handlers of LOOKUP and FORGET, without a kernel."""
    with fresh(katas) as tree:
        operations = Operations(tree, FastOpen(None))

        async def look_up_and_forget() -> None:
            root = pyfuse3.RequestContext()
            counts: Counter[int] = Counter()
            for path in ("rG/63/fy/.git/refs/heads/main", "5r/TJ/v5/1/event.json", "rG/63/fy/events/1/stdout") * 2:
                inode = 1
                for name in path.split("/"):
                    inode = (await operations.lookup(inode, name.encode(), root)).st_ino
                    counts[inode] += 1
            assert len(tree.numbers) == 3
            await operations.forget(list(counts.items()))

        trio.run(look_up_and_forget)
        assert len(tree.numbers) == 0


# -- mounts


def numbers_of(mount: Mount) -> dict[bytes, bytes]:
    """The number of every path, as find(1) prints it."""
    command = ["find", ".", "-printf", r"%p\0%i\0"]
    output = subprocess.run(command, cwd=mount.path, capture_output=True, check=True).stdout.split(b"\0")
    return dict(zip(output[:-1:2], output[1::2], strict=True))


def test_numbers_are_the_same_after_a_restart(katas: Path, mount: MakeMount, mode: str) -> None:
    first = mount(katas, mode)
    before = numbers_of(first)
    assert sum(path.startswith(b"./Nt/1v/eK/.git/objects") for path in before) > 10
    assert sum(path.startswith(b"./5r/TJ/v5/") for path in before) > 5
    assert not first.stop()
    assert numbers_of(mount(katas, mode)) == before
