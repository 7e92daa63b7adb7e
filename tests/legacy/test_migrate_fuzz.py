"""Plain katas that were damaged at random: nothing is lost silently, and no error but katafs' own comes out."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.errors import KataError, NotFoundError
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.plain_kata import PlainKata
from katafs.kata.legacy.plain_paths import differences
from katafs.kata.store import Store
from katafs.tree.context import Context
from katafs.tree.nodes import Entry, Later, Node
from katafs.tree.tree import Tree
from tests.katas import git
from tests.legacy.test_migrate import open_kata, state
from tests.plain_katas import make_plain_kata
from tests.scratch import fast_directory

PIECES = [b"{", b"}", b"]", b'"', b",", b"\n", b"\0", b"\xff", b"null", b"NaN", b"-1", b"1e999", b"9" * 400]
PIECES += [b'"\\ud800"', b"../", b".git/", b"[" * 5000, b'"index":99,', b'"truncated":3,', b'{"a":{"content":[]}}']


@pytest.fixture
def store() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as directory:
        yield Path(directory)


def damage(path: Path, chance: random.Random) -> None:
    """Change one or two of the kata's files a little."""
    for _ in range(chance.randrange(1, 3)):
        file = chance.choice(sorted(item for item in path.rglob("*") if item.is_file()))
        data = file.read_bytes()
        at = chance.randrange(len(data) + 1)
        until = min(at + chance.choice((0, 0, 1, 2, 10, 1000)), len(data))
        what = chance.randrange(8)
        if what == 0:
            file.unlink()
        elif what == 1:
            file.rename(file.with_name(chance.choice(("7.event.json", "events.json", "theme", "manifest.json", "x"))))
        else:
            file.write_bytes(data[:at] + chance.choice([b"", *PIECES]) + data[until:])


def check(store: Path, seed: int) -> bool:
    """Damage a kata, look at it in the tree, migrate it; whether that could be done."""
    chance = random.Random(seed)
    written = make_plain_kata(store, "AbCdEf", seed % 2, seed % 50)
    damage(written.path, chance)
    walk(store)
    before = state(written.path)
    kept = store / "kept"
    shutil.copytree(written.path, kept)
    try:
        try:
            assert migrate_kata(written.path, "AbCdEf") is not None
        except KataError:
            assert state(written.path) == before
            return False
        assert differences(PlainKata("AbCdEf", kept), open_kata(written.path)) == []
        assert git(written.path, "fsck", "--strict", "--full") == b""
        walk(store)
        return True
    finally:
        shutil.rmtree(kept)
        shutil.rmtree(written.path)


def walk(store: Path) -> None:
    """Ask every node of the tree everything, as the kernel would."""
    katas = Store(store)
    tree = Tree(Context(katas))
    try:
        waiting: list[Node] = [tree.node(1)]
        while waiting:
            node = waiting.pop()
            try:
                while (make := node.prepare()) is not None:
                    result = make()
                    node.prepared(result.make() if isinstance(result, Later) else result)
                if node.mode & 0o170000 == 0o040000:
                    waiting += [entry.node for entry in entries(node) if entry.node.key.a not in (6, 7)]
                elif node.mode & 0o170000 == 0o100000:
                    size = node.size()
                    assert size is not None
                    assert len(node.read(0, size + 1)) == size
            except KataError:
                pass
    finally:
        katas.close()


def entries(directory: Node) -> Iterator[Entry]:
    for name in directory.names():
        try:
            yield directory.child(name)
        except NotFoundError:
            pass


def test_damaged_at_random(store: Path) -> None:
    done = [check(store, seed) for seed in range(60)]
    assert {True, False} == set(done)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1_000, 4_000, 500))
def test_damaged_at_random_for_long(store: Path, start: int) -> None:
    for seed in range(start, start + 500):
        check(store, seed)
