"""The only pack of a repository is taken as it is; any other way to store objects gives the same history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from katafs.errors import DamagedError
from tests.downloads.cases import assert_clean, contents, make, put_commit, unpacked
from tests.katas import git


@pytest.fixture
def packed(repo: Path) -> Path:
    """Three commits, and one that main does not reach, in one pack."""
    first = put_commit(repo, {b"a": b"line\n" * 100})
    put_commit(repo, {b"stray": b"s" * 200}, first, number=7)
    side = put_commit(repo, {b"a": b"line\n" * 100 + b"2"}, first, number=1)
    put_commit(repo, {b"a": b"line\n" * 99 + b"3", b"in": {b"b": b"4" * 300}}, first, side, number=2)
    git(repo, "repack", "-a", "-d", "-q")
    git(repo, "prune-packed")
    return repo


def _pack(path: Path) -> Path:
    (pack,) = (path / ".git" / "objects" / "pack").glob("*.pack")
    return pack


def test_the_only_pack_is_taken_as_it_is(packed: Path, tmp_path: Path) -> None:
    path = unpacked(packed, tmp_path / "out")
    assert _pack(path).read_bytes() == _pack(packed).read_bytes()
    assert _pack(path).with_suffix(".idx").read_bytes() == _pack(packed).with_suffix(".idx").read_bytes()
    assert git(path, "fsck", "--strict", "--full", "--no-dangling") == b""
    assert git(path, "tag") == b"0\n1\n2\n"
    assert git(path, "log", "--graph", "--format=%H") == git(packed, "log", "--graph", "--format=%H", "main")
    assert_clean(path)


def test_all_but_the_pack_is_the_same(packed: Path, tmp_path: Path) -> None:
    git(packed, "tag", "-d", "7")
    git(packed, "gc", "-q", "--prune=now")
    before = make(packed)
    found = contents(before)
    before.close()
    pack = tmp_path / "pack"
    _pack(packed).rename(pack)
    git(packed, "unpack-objects", "-q", stdin=pack.read_bytes())
    after = make(packed)
    # also the name of the pack, which is made of the ids
    assert list(contents(after)) == list(found)
    differ = {path.rpartition(b".")[2] for path, member in contents(after).items() if member != found[path]}
    assert differ <= {b"pack", b"idx"}
    after.close()


def _a_loose_object(path: Path) -> None:
    git(path, "hash-object", "-w", "--stdin", stdin=b"loose")


def _a_kept_pack(path: Path) -> None:
    git(path, "pack-objects", "-q", ".git/objects/pack/pack", stdin=git(path, "rev-parse", "main:"))
    oldest = min((path / ".git" / "objects" / "pack").glob("*.pack"), key=lambda pack: pack.stat().st_mtime_ns)
    oldest.with_suffix(".keep").touch()


def _a_marked_pack(path: Path) -> None:
    _pack(path).with_suffix(".promisor").touch()


def _an_alternate(path: Path) -> None:
    (path / ".git" / "objects" / "info" / "alternates").write_text("/nowhere\n")


@pytest.mark.parametrize("change", [_a_loose_object, _a_kept_pack, _a_marked_pack, _an_alternate])
def test_what_is_stored_in_another_way_is_packed_anew(
    change: Callable[[Path], None], packed: Path, tmp_path: Path
) -> None:
    stored = _pack(packed).read_bytes()
    (packed / ".git" / "objects" / "info").mkdir(exist_ok=True)
    change(packed)
    path = unpacked(packed, tmp_path / "out")
    assert _pack(path).read_bytes() != stored
    assert git(path, "fsck", "--strict", "--full") == b""
    assert b"stray" not in git(path, "cat-file", "--batch-all-objects", "--batch")


@pytest.mark.parametrize("at", [0, 5, 11, 40, -25, -1])
def test_a_damaged_pack_is_not_taken(at: int, packed: Path) -> None:
    """It is read object by object, so that one which is damaged is found."""
    pack = _pack(packed)
    data = bytearray(stored := pack.read_bytes())
    data[at] ^= 0x55
    pack.chmod(0o644)
    pack.write_bytes(data)
    try:
        image = make(packed)
    except DamagedError:
        return
    found = contents(image)
    (name,) = (name for name in found if name.endswith(b".pack"))
    assert found[name][1] not in (bytes(data), stored)
    image.close()


@pytest.mark.parametrize("size", [0, 11, 1000, 1100])
def test_a_cut_index_is_not_taken(size: int, packed: Path) -> None:
    idx = _pack(packed).with_suffix(".idx")
    idx.chmod(0o644)
    idx.write_bytes(idx.read_bytes()[:size])
    with pytest.raises(DamagedError):
        make(packed)
