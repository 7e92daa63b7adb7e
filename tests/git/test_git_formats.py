"""git's formats as functions of bytes, held against what git itself writes and says."""

from __future__ import annotations

import hashlib
import random
import time
import tracemalloc
from pathlib import Path

import pytest

from katafs.git.format import index, pack, packed_refs
from katafs.git.format.delta import apply_delta, quick_delta
from katafs.git.format.index import Record
from katafs.git.format.packed_refs import PackedRef
from katafs.git.format.stored import EMPTY_BLOB, every_entry, parse_commit
from tests.katas import add_event, git, make_kata


def reader(data: bytes) -> packed_refs.Read:
    return lambda at, size: data[at : at + size]


@pytest.fixture(scope="module")
def kata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_kata(tmp_path_factory.mktemp("store"), "AbCdEf")
    for number in range(1, 4):
        add_event(path, number, files={f"{name}.txt": f"{name * number}\n" for name in range(300)})
    return path


@pytest.mark.parametrize("version", [1, 2])
def test_an_index_of_git(kata: Path, version: int) -> None:
    git(kata, "-c", f"pack.indexVersion={version}", "repack", "-adfq")
    (idx,) = (kata / ".git/objects/pack").glob("*.idx")
    data = idx.read_bytes()
    shown = [line.split() for line in git(kata, "show-index", stdin=data).decode().splitlines()]
    expected = {bytes.fromhex(words[1]): int(words[0]) for words in shown}
    assert len(expected) > 300, "so that the table of first bytes is used"
    assert {record.oid: record.offset for record in index.records(data)} == expected
    shape = index.parse_head(data[: index.HEAD], len(data))
    assert (shape.version, shape.objects) == (version, len(expected))
    assert all(index.find(data, shape, oid) == offset for oid, offset in expected.items())
    # the end of one id and the start of the next are none
    joined = b"".join(sorted(expected))
    for oid in (bytes(20), b"\xff" * 20, *(joined[at : at + 20] for at in range(1, 400, 7) if at % 20)):
        assert index.find(data, shape, oid) is None


def test_an_index_that_is_not_as_it_was_written() -> None:
    ids = [hashlib.sha1(b"%d" % number).digest() for number in range(300)]
    data = index.build([Record(oid, 12 + number, 0) for number, oid in enumerate(ids)], bytes(20))
    index.check(data)
    for at in range(0, len(data), 37):
        with pytest.raises(ValueError, match="an index"):
            index.check(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    for size in (0, 7, 1031, 1032, len(data) - 1):
        with pytest.raises(ValueError, match="an index"):
            index.check(data[:size])


def test_the_chunks_of_git(kata: Path) -> None:
    git(kata, "repack", "-adq")
    git(kata, "multi-pack-index", "write")
    git(kata, "commit-graph", "write", "--reachable")
    packs = [path.name for path in (kata / ".git/objects/pack").glob("*.idx")]
    midx = (kata / ".git/objects/pack/multi-pack-index").read_bytes()
    assert sorted(pack.midx_packs(midx)) == sorted(packs)
    graph = (kata / ".git/objects/info/commit-graph").read_bytes()
    commits = git(kata, "rev-list", "--all").decode().split()
    assert sorted(oid.hex() for oid in pack.graph_commits(graph)) == sorted(commits)
    for data, parse in ((midx, pack.midx_packs), (graph, pack.graph_commits)):
        for wrong in (b"", data[:-1], data[:40], data[:30] + b"\xff" + data[31:]):
            with pytest.raises(ValueError, match=r"it does not|without"):
                parse(wrong)


@pytest.mark.parametrize("count", [0, 1, 40, 4000])
def test_packed_references(count: int) -> None:
    dice = random.Random(count)
    names = {b"refs/tags/%d" % dice.randrange(10**6) + b"x" * dice.choice([0, 0, 300]) for _ in range(count)}
    peeled = b"^" + b"a" * 40
    refs = {name: PackedRef(dice.randbytes(20), dice.choice([b"", peeled])) for name in names}
    text = packed_refs.build(refs)
    assert packed_refs.parse(text) == refs
    assert b" sorted" in packed_refs.header_of(text)
    assert packed_refs.wrong_lines(text) == 0
    for name in [*names, b"refs/heads/main", b"a", b"zz", b"refs/tags/"]:
        expected = refs[name].oid if name in refs else None
        assert packed_refs.find_sorted(reader(text), len(text), name) == expected


def test_one_of_the_packed_references() -> None:
    """As `parse` finds it, without parsing all: half a second of the GIL for a file of 16 MiB, and 100 MB."""
    dice, id_of, peeled = random.Random(3), b"%040x", b"\n^" + b"7" * 40
    lines = [
        id_of % dice.randrange(1 << 160) + b" refs/tags/%d" % dice.randrange(30) + dice.choice([b"", peeled])
        for _ in range(60)
    ]
    odd = [b"refs/tags/7", b" refs/tags/8", b"x" + id_of % 5 + b" refs/tags/9", b"#", b"", id_of % 1 + b"  refs/tags/3"]
    for _ in range(100):
        dice.shuffle(lines)
        chosen = [*lines[:20], *odd, *lines[20:40]][dice.randrange(20) : 40]
        text = b"\n".join(chosen) + dice.choice([b"", b"\n"])
        known = packed_refs.parse(text)
        for name in (b"refs/tags/%d" % number for number in range(30)):
            assert packed_refs.find(text, name) == (known[name].oid if name in known else None), (text, name)
    large = b"".join(id_of % number + b" refs/tags/%d\n" % number for number in reversed(range(30_000)))
    tracemalloc.start()
    try:
        assert packed_refs.find(large, b"refs/tags/29000") == (29_000).to_bytes(20, "big")
        assert tracemalloc.get_traced_memory()[1] < len(large) // 10, "nothing is copied"
    finally:
        tracemalloc.stop()


def test_packed_references_that_are_all_wrong() -> None:
    """Each would be looked at: two seconds for 16 MiB."""
    with pytest.raises(ValueError, match="too many wrong lines"):
        packed_refs.find(b" refs/tags/7\n" * 2000, b"refs/tags/7")


def test_the_header_of_packed_references_stays_true() -> None:
    known = {b"refs/tags/b": PackedRef(bytes(20))}
    assert packed_refs.build(known, b"").startswith(b"# pack-refs with: peeled fully-peeled sorted \n")
    assert packed_refs.build(known, b"0" * 40 + b" refs/tags/b\n").startswith(b"# pack-refs with: sorted \n")
    assert packed_refs.build(known, b"# pack-refs with: peeled \n").startswith(b"# pack-refs with: peeled sorted \n")


def test_a_sorted_file_with_a_line_without_end() -> None:
    text = packed_refs.build({b"refs/tags/" + b"x" * 100_000: PackedRef(bytes(20)), b"z": PackedRef(bytes(20))})
    with pytest.raises(ValueError, match="too long"):
        packed_refs.find_sorted(reader(text), len(text), b"z")


def test_a_delta_of_ends() -> None:
    dice = random.Random(5)
    for _ in range(300):
        base = dice.randbytes(dice.randrange(3000))
        at = dice.randrange(len(base) + 1)
        data = base[:at] + dice.randbytes(dice.randrange(400)) + base[at + dice.randrange(50) :]
        delta = quick_delta(base, data)
        assert not delta or apply_delta(base, delta) == data


@pytest.mark.parametrize("text", [b"0 ", b"100644 ", b"0"])
def test_a_tree_that_is_none_takes_no_time(text: bytes) -> None:
    begin = time.process_time()
    with pytest.raises(ValueError, match="a tree is damaged"):
        every_entry(text * 6000)
    assert time.process_time() - begin < 0.3


def test_odd_trees() -> None:
    oid = bytes(range(20))
    whole = [(b"100644", b"a", oid), (b"00040000", b"a/b", oid), (b"7777777777", b"", oid)]
    data = b"".join(b"%b %b\0%b" % entry for entry in whole)
    assert every_entry(data) == every_entry(data + b"100644 cut off\0" + oid[:19]) == whole
    for wrong in (b"1", b"1 ", b"8 a\0" + oid, b"-1 a\0" + oid, b"77777777777 a\0" + oid, b" a\0" + oid):
        with pytest.raises(ValueError, match="a tree is damaged"):
            every_entry(data + wrong)


def test_commits() -> None:
    text = b"tree " + b"1" * 40 + b"\nparent " + b"2" * 40 + b"\nauthor a <a> 5 +0000\ncommitter a <a> 7 -0130\n"
    commit = parse_commit(bytes(20), text + b"encoding latin1\n\n12 ran tests\nmore")
    assert (commit.time, commit.subject, commit.event, len(commit.parents)) == (7, b"12 ran tests", 12, 1)
    assert parse_commit(bytes(20), text + b"\nset option").event is None
    for wrong in (b"", text.replace(b"tree", b"tee"), text.replace(b"committer", b"author")):
        with pytest.raises(ValueError, match="a commit"):
            parse_commit(bytes(20), wrong)


def test_the_empty_blob(kata: Path) -> None:
    assert git(kata, "hash-object", "--stdin", stdin=b"").decode().strip() == EMPTY_BLOB.hex()
