"""``katafs fsck``: damaged objects, and the events and files that need them."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from katafs.git.format import index
from katafs.kata.fsck import Outcome
from tests.fsck.cases import (
    LAST,
    assert_git_is_content,
    assert_mended,
    check,
    codes,
    left,
    make_old,
    references,
    take_advice,
)
from tests.katas import git, loose, stored_rows
from tests.power.client import git_event


def cut(file: Path) -> None:
    """Cut a file to half its length, as a disk that was full does."""
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)


def fill(file: Path, data: bytes) -> None:
    """Write other bytes into a file that nobody may write to."""
    file.chmod(0o644)
    file.write_bytes(data)


HARM: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("object-missing", lambda file: file.unlink()),
    "empty": ("object-damaged", lambda file: fill(file, b"")),
    "cut": ("object-damaged", cut),
    "rubbish": ("object-damaged", lambda file: fill(file, b"rubbish")),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_object_is_told_with_what_it_touches(kata: Path, harm: str) -> None:
    code, damage = HARM[harm]
    listed = git(kata, "ls-tree", "-r", "--name-only", "main").decode().split()
    (name,) = (name for name in listed if name.startswith("files/hiker."))
    file = loose(kata, f"refs/tags/4:{name}")
    damage(file)
    make_old(kata)
    finding = left(kata, code)
    skipped = name.endswith(".sh")
    assert f": {name} of {'events 2-4' if skipped else 'event 4'} cannot be read" in finding.message
    assert file.parent.name + file.name in finding.message
    assert len(check(kata)) == 1
    assert check(kata, is_quick=True) == []


def test_a_damaged_tree(kata: Path) -> None:
    cut(loose(kata, f"refs/tags/{LAST}:files"))
    make_old(kata)
    assert f": files/ of event {LAST} cannot be read" in left(kata, "object-damaged").message


@pytest.mark.parametrize("lost", ["", "^{tree}", ":files", ":files/by-git.txt"])
@pytest.mark.parametrize("harm", ["missing", "empty"])
@pytest.mark.parametrize("is_main_lost", [False, True], ids=["", "main lost"])
def test_newest_events_that_git_lost(kata: Path, tmp_path: Path, lost: str, harm: str, is_main_lost: bool) -> None:
    """git syncs nothing: a power cut may leave the names of its commits, and not all that these need. What fsck says
    gives them up, and all before them is sound."""
    before = references(kata)
    for number in (LAST + 1, LAST + 2):
        git_event(kata, number, tmp_path / "index")
    HARM[harm][1](loose(kata, f"refs/tags/{LAST + 1}{lost}"))
    if is_main_lost:
        (kata / ".git/refs/heads/main").write_text("")
    make_old(kata)
    assert take_advice(kata, check(kata, repair=True))
    check(kata, repair=True)
    assert check(kata) == []
    assert references(kata) == before
    assert_git_is_content(kata)


def test_an_event_that_was_packed_is_not_given_up(kata: Path, tmp_path: Path) -> None:
    """It was on the disk: what is missing may be found elsewhere."""
    git_event(kata, LAST + 1, tmp_path / "index")
    git(kata, "pack-objects", "-q", ".git/objects/pack/pack", stdin=git(kata, "rev-parse", "main"))
    git(kata, "prune-packed")
    loose(kata, "main:files/by-git.txt").unlink()
    make_old(kata)
    assert "git hash-object" in left(kata, "object-missing").advice
    assert not take_advice(kata, check(kata))


def test_a_damaged_root_tree(kata: Path) -> None:
    cut(loose(kata, "refs/tags/1^{tree}"))
    make_old(kata)
    assert ": everything of event 1 cannot be read" in left(kata, "object-damaged").message


def test_a_damaged_commit_breaks_the_history(kata: Path) -> None:
    """The events before it have their tags: they can be read, and nothing is taken away from them."""
    loose(kata, "refs/tags/4").unlink()
    make_old(kata)
    gone = "events 2-4" if "outage" in json.dumps(stored_rows(kata)) else "event 4"
    assert "events 0-4 cannot be found by it" in left(kata, "history-broken").message
    assert f": everything of {gone} cannot be read" in left(kata, "object-missing").message
    assert {code for code, _ in codes(check(kata))} == {"history-broken", "object-missing"}


def test_the_rows_of_the_tip(kata: Path) -> None:
    rows = "events_summary.json" if "events_summary" in git(kata, "ls-tree", "main").decode() else "events.json"
    cut(loose(kata, f"main:{rows}"))
    make_old(kata)
    assert "its events cannot be read" in left(kata, "events-unreadable").message
    assert f"{rows} of event" in left(kata, "object-damaged").message


def test_an_object_that_a_pack_has(kata: Path) -> None:
    before = references(kata)
    git(kata, "repack", "-a", "-q")
    file = loose(kata, "refs/tags/1^{tree}")
    cut(file)
    make_old(kata)
    assert_mended(kata, before, "object-damaged")
    assert not file.exists()
    assert len(os.listdir(kata / ".git" / "katafs-lost-found")) == 1


@pytest.mark.parametrize("harm", HARM)
def test_an_object_that_the_work_tree_has(kata: Path, harm: str) -> None:
    """What is advised does it."""
    code, damage = HARM[harm]
    file = loose(kata, "main:manifest.json")
    damage(file)
    make_old(kata)
    (finding,) = check(kata, repair=True)
    assert (finding.code, finding.state) == (code, Outcome.LEFT)
    assert "git hash-object -w a file" in finding.advice
    file.unlink(missing_ok=True)
    git(kata, "hash-object", "-w", "manifest.json")
    assert check(kata) == []


def test_a_damaged_pack(kata: Path) -> None:
    git(kata, "gc", "-q")
    (pack,) = (kata / ".git" / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    pack.write_bytes(data)
    make_old(kata)
    found = check(kata, repair=True)
    assert {finding.code for finding in found} <= {"object-damaged", "object-missing", "history-broken"}
    assert {finding.state for finding in found} == {Outcome.LEFT}
    assert "object-damaged" in {finding.code for finding in found}


def test_a_pack_without_an_index(kata: Path) -> None:
    git(kata, "gc", "-q")
    (index,) = (kata / ".git" / "objects" / "pack").glob("*.idx")
    whole = index.read_bytes()
    index.unlink()
    make_old(kata)
    assert ("pack-without-index", Outcome.MENDED) in [(found.code, found.state) for found in check(kata, repair=True)]
    assert index.read_bytes() == whole
    assert check(kata, repair=True) == []


def _without(number: int) -> Callable[[Path, Path], None]:
    """An index that lacks an object of its pack, or has its place wrong."""

    def harm(pack: Path, idx: Path) -> None:
        records = index.records(idx.read_bytes())
        record = records.pop(number)
        if number:
            records.append(record._replace(offset=records[0].offset))
        idx.write_bytes(index.build(records, pack.read_bytes()[-20:]))

    return harm


INDEXES: dict[str, Callable[[Path, Path], object]] = {
    "gone this moment": lambda _pack, idx: idx.unlink(),
    "cut off": lambda _pack, idx: idx.write_bytes(idx.read_bytes()[:-30]),
    "lacks an object": _without(0),
    "a wrong place": _without(-1),
}


@pytest.mark.parametrize("harm", INDEXES)
def test_what_only_a_damaged_index_has(kata: Path, harm: str) -> None:
    """It is not taken for gone: neither a branch nor a tip is given up, and all can be read again."""
    git(kata, "repack", "-adq")
    side = git(kata, "commit-tree", "main^{tree}", "-p", "main", "-m", "side").decode().strip()
    git(kata, "update-ref", "refs/heads/side", side)
    name = git(kata, "pack-objects", "-q", ".git/objects/pack/pack", stdin=f"{side}\n".encode()).decode().strip()
    git(kata, "prune-packed")
    git(kata, "reflog", "expire", "--expire=now", "--all")
    idx = kata / f".git/objects/pack/pack-{name}.idx"
    idx.chmod(0o644)
    if harm == "a wrong place":
        (idx,) = set(idx.parent.glob("*.idx")) - {idx}
        idx.chmod(0o644)
    INDEXES[harm](idx.with_suffix(".pack"), idx)
    found = check(kata, repair=True)
    assert {finding.state for finding in found} == {Outcome.MENDED}, found
    assert {finding.code for finding in found} <= {"pack-index-damaged", "pack-without-index"}
    assert git(kata, "rev-parse", "side").decode().strip() == side
    assert check(kata) == []
    assert_git_is_content(kata)


@pytest.mark.parametrize("offset", [1 << 40, 1 << 63, (1 << 64) - 1])
def test_an_index_with_an_offset_that_is_none(kata: Path, offset: int) -> None:
    """Beside a commit that is lost, of which fsck looks for the newest one before it."""
    make_old(kata)
    pack = kata / ".git/objects/pack/pack-none.pack"
    file = loose(kata, "main:files")
    oid = bytes.fromhex(file.parent.name + file.name)
    file.unlink()
    loose(kata, f"refs/tags/{LAST - 1}").unlink()
    data = b"PACK" + struct.pack(">II", 2, 0)
    pack.write_bytes(data + hashlib.sha1(data).digest())
    pack.with_suffix(".idx").write_bytes(index.build([index.Record(oid, offset, 0)], pack.read_bytes()[-20:]))
    found = check(kata)
    assert {"pack-index-damaged", "object-missing"} <= {finding.code for finding in found}


def test_a_damaged_pack_without_an_index(kata: Path) -> None:
    git(kata, "gc", "-q")
    (index,) = (kata / ".git" / "objects" / "pack").glob("*.idx")
    index.unlink()
    pack = index.with_suffix(".pack")
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes()[:-50])
    make_old(kata)
    assert "git index-pack" in left(kata, "pack-without-index").advice


def test_a_tip_that_a_pack_has(kata: Path) -> None:
    """Nothing of the events can be told before it is mended; all is well afterwards."""
    git(kata, "repack", "-a", "-q")
    for name in ("main", "main^{tree}"):
        cut(loose(kata, name))
    make_old(kata)
    assert {finding.state for finding in check(kata, repair=True)} == {Outcome.MENDED}
    assert check(kata) == []
