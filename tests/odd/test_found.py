"""What odd and damaged repositories have shown, each by itself."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import struct
import subprocess
import time
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from katafs.errors import DamagedError, HeavyError, KataError, TooLargeError
from katafs.git import GitRepo
from katafs.git.budget import Budget
from katafs.git.format.stored import BLOB
from katafs.git.odb.loose_files import LARGEST
from katafs.tree import made
from tests.katas import add_event, git, loose, loosen, make_kata
from tests.mounts import MakeMount, patience
from tests.odd import forging
from tests.odd.forging import Forged
from tests.odd.looking import look, peak_memory
from tests.odd.truth import truth_of


@pytest.fixture
def kata(store: Path) -> Path:
    path = make_kata(store, "AbCdEf")
    add_event(path, 1, files={"hiker.py": "first\n", "empty": ""})
    return path


def tip_of(path: Path) -> bytes:
    return bytes.fromhex(git(path, "rev-parse", "main").decode())


def test_a_tag_of_a_tag_of_a_commit(kata: Path) -> None:
    for _ in range(3):
        git(kata, "tag", "-f", "-a", "-m", "why", "1", "refs/tags/1")
    tag = GitRepo(kata).tag(1)
    assert tag is not None
    assert GitRepo(kata).commit(tag).oid == tip_of(kata)


@pytest.mark.parametrize("glued", [b"1", b"1f" * 12 + b"\n", b"x\n", b"\0"])
def test_an_id_ends_where_it_ends(kata: Path, glued: bytes) -> None:
    """git says that such a reference is broken."""
    for name in ("heads/main", "tags/1"):
        (kata / ".git/refs" / name).write_bytes(b"1f" * 20 + glued)
    assert GitRepo(kata).tag(1) is None
    with pytest.raises(DamagedError):
        GitRepo(kata).main()


def test_zeros_are_no_id(kata: Path) -> None:
    """git says that such a reference is broken, and shows nothing of ``packed-refs`` in its place."""
    git(kata, "pack-refs", "--all", "--no-prune")
    for name in ("heads/main", "tags/1"):
        (kata / ".git/refs" / name).write_bytes(b"0" * 40 + b"\n")
    assert GitRepo(kata).tag(1) is None
    with pytest.raises(DamagedError):
        GitRepo(kata).main()


@pytest.mark.parametrize("is_packed", [False, True])
def test_an_id_in_capitals(kata: Path, is_packed: bool) -> None:
    if is_packed:
        git(kata, "pack-refs", "--all")
    for file in (
        [kata / ".git/packed-refs"] if is_packed else [kata / ".git/refs" / n for n in ("heads/main", "tags/1")]
    ):
        lines = file.read_bytes().splitlines(keepends=True)
        file.write_bytes(b"".join(line[:40].upper() + line[40:] if line[:1] != b"#" else line for line in lines))
    assert git(kata, "rev-parse", "main", "1").split() == [tip_of(kata).hex().encode()] * 2
    assert GitRepo(kata).main() == tip_of(kata) == GitRepo(kata).tag(1)


def test_main_by_another_name(kata: Path) -> None:
    """A symbolic reference, as git follows it."""
    tip = tip_of(kata)
    git(kata, "branch", "trunk")
    git(kata, "symbolic-ref", "refs/heads/main", "refs/heads/trunk")
    assert GitRepo(kata).main() == tip
    git(kata, "pack-refs", "--all")
    assert GitRepo(kata).main() == tip


def test_a_loose_object_that_was_deflated_badly(kata: Path) -> None:
    """With small buffers it is larger than its data by a twenty-fifth, and whole."""
    data = random.Random(1).randbytes(70_000)
    oid = git(kata, "hash-object", "-w", "--stdin", stdin=data).decode().strip()
    deflate = zlib.compressobj(9, memLevel=1)
    stored = deflate.compress(b"blob %d\0" % len(data) + data) + deflate.flush()
    file = loose(kata, oid)
    file.unlink()
    file.write_bytes(stored)
    assert git(kata, "cat-file", "blob", oid) == data
    assert GitRepo(kata).blob(bytes.fromhex(oid)) == data


@pytest.mark.parametrize("offset", [1 << 62, 1 << 63, (1 << 64) - 1])
def test_an_offset_that_no_file_has(kata: Path, offset: int) -> None:
    change_offsets(kata, 0x80000000, struct.pack(">Q", offset))
    for question in (GitRepo(kata).objects.read_any, GitRepo(kata).blob_size):
        with pytest.raises(KataError):
            question(tip_of(kata))


def test_a_table_that_is_not_there(kata: Path) -> None:
    """Far offsets that lead behind the end of the index."""
    change_offsets(kata, 0xFFFFFFFF, b"")
    for question in (GitRepo(kata).objects.read_any, GitRepo(kata).blob_size):
        with pytest.raises(KataError):
            question(tip_of(kata))


def change_offsets(path: Path, offset: int, table: bytes) -> None:
    """Have all indexes say that all objects are at one place."""
    git(path, "repack", "-adq")
    for file in (path / ".git/objects/pack").glob("*.idx"):
        data = file.read_bytes()
        (count,) = struct.unpack_from(">I", data, 1028)
        changed = data[: 1032 + 24 * count] + struct.pack(">I", offset) * count + table + data[-40:-20]
        file.unlink()
        file.write_bytes(changed + hashlib.sha1(changed).digest())


def test_an_index_that_leads_to_an_empty_file(kata: Path, mount: MakeMount) -> None:
    """What it says of another file is that it is empty: that is no answer."""
    git(kata, "repack", "-adfq")
    (index,) = (kata / ".git/objects/pack").glob("*.idx")
    listed = git(kata, "show-index", stdin=index.read_bytes()).decode().splitlines()
    offsets = {line.split()[1]: int(line.split()[0]) for line in listed}
    empty, other = git(kata, "rev-parse", "main:files/empty", "main:files/hiker.py").decode().split()
    data = index.read_bytes()
    at = 1032 + 24 * len(offsets) + 4 * sorted(offsets).index(other)
    changed = data[:at] + struct.pack(">I", offsets[empty]) + data[at + 4 : -20]
    index.unlink()
    index.write_bytes(changed + hashlib.sha1(changed).digest())
    mounted = mount(kata.parents[2])
    mounted.expected_log = "ERROR"
    with pytest.raises(OSError, match="Input/output error"):
        (mounted.kata("AbCdEf") / "files/hiker.py").read_bytes()


def huge_index(path: Path) -> None:
    """An index with much nothing at its end."""
    git(path, "repack", "-adq")
    for file in (path / ".git/objects/pack").glob("*.idx"):
        shutil.copy2(file, file.with_suffix(".copy"))
        file.with_suffix(".copy").replace(file)
        os.truncate(file, 200 << 20)


def cyclic(path: Path) -> None:
    """The tip is a delta from itself."""
    forge(path, "main", forging.cycle)


def forge(path: Path, name: str, forger: forging.Forger) -> None:
    """Replace an object of a kata by a forged one."""
    loosen(path)
    oid = bytes.fromhex(git(path, "rev-parse", name).decode())
    pack = Forged()
    forger(pack, oid, *truth_of(path).objects[oid], random.Random(3))
    loose(path, name).unlink()
    pack.write(path / ".git")


@pytest.mark.parametrize("damage", [huge_index, cyclic])
def test_refusing_takes_no_time(kata: Path, damage: Callable[[Path], None]) -> None:
    """What was found to be unreadable is not read again for each question; 20 take a second of the processor."""
    tip = tip_of(kata)
    damage(kata)
    repo = GitRepo(kata)
    begun = time.process_time()
    for _ in range(20):
        with pytest.raises(KataError):
            repo.objects.read_any(tip)
    assert time.process_time() - begun < patience(1.0)


LIES: dict[str, forging.Forger] = {
    "size": lambda pack, oid, kind, data, _dice: forging.lie(pack, oid, kind, data, len(data) + 1),
    "too large": lambda pack, oid, kind, data, _dice: forging.lie(pack, oid, kind, data, 1 << 31),
    "other bytes": lambda pack, oid, kind, data, _dice: forging.lie(pack, oid, kind, data * 2, 2 * len(data)),
    "doubling": forging.doubling,
}


@pytest.mark.parametrize("is_loose", [True, False], ids=["loose", "packed"])
@pytest.mark.parametrize("lie", LIES)
def test_a_size_is_that_of_the_bytes(kata: Path, lie: str, is_loose: bool) -> None:
    """A pack that is asked first lies about an object that stands elsewhere as it should."""
    loosen(kata)
    truth = truth_of(kata).objects
    if not is_loose:
        git(kata, "repack", "-adq")
    pack = Forged()
    for oid, (kind, data) in truth.items():
        LIES[lie](pack, oid, kind, data, random.Random(3))
    pack.write(kata / ".git")
    repo = GitRepo(kata)
    repo.objects.packs.refresh()
    for oid, (kind, data) in truth.items():
        if kind == BLOB:
            assert repo.blob_size(oid) == len(data)
        assert repo.objects.read_any(oid) == (kind, data)


def test_what_lies_is_asked_last(kata: Path) -> None:
    """What makes 64 MiB of each object, all of them wrong ones, is asked once: not for each of a hundred objects."""
    for index in range(2, 30):
        add_event(kata, index, files={"hiker.py": f"{index}\n"})
    loosen(kata)
    truth = truth_of(kata).objects
    git(kata, "repack", "-adq")
    pack = Forged()
    for oid, (kind, data) in truth.items():
        forging.doubling(pack, oid, kind, data, random.Random(3))
    pack.write(kata / ".git")
    repo = GitRepo(kata, largest=LARGEST)
    begun = time.process_time()
    assert {oid: repo.objects.read_any(oid) for oid in truth} == truth
    assert time.process_time() - begun < patience(3.0)


def read_for_ever(oid: bytes, repo: GitRepo) -> bytes:
    while True:
        with contextlib.suppress(DamagedError):
            repo.objects.read_any(oid)


def test_what_doubles_is_paid_for(kata: Path) -> None:
    """What a budget of two seconds allows takes about as long, also where much is copied and little inflated."""
    tip = tip_of(kata)
    forge(kata, "main", forging.doubling)
    repo = GitRepo(kata, largest=LARGEST, budget=Budget(2e6))
    begun = time.process_time()
    with pytest.raises(HeavyError):
        read_for_ever(tip, repo)
    assert time.process_time() - begun < patience(4.5)


def test_a_content_that_takes_too_much_to_read(kata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a process of its own it is refused when it is paid for, long before the processor time is used up."""
    monkeypatch.setattr(made, "_MOST", 1e6)
    tip = tip_of(kata)
    forge(kata, "main", forging.doubling)
    with (tmp_path / "content").open("w+b") as file, pytest.raises(TooLargeError, match="takes more than 1 s"):
        made._write(partial(read_for_ever, tip), file, kata)


def test_refusing_takes_no_memory(kata: Path, mount: MakeMount) -> None:
    """Rows that are too large: what was read of them is not kept by the error."""
    forge(kata, "main:events_summary.json", forging.doubling)
    mounted = mount(kata.parents[2])
    mounted.expected_log = "ERROR"
    top = os.fsencode(mounted.kata("AbCdEf"))
    for index in range(30):
        assert not isinstance(look(top + b"/events/%d" % index), bytes)
    assert peak_memory(mounted.daemon) < 150


def test_listing_a_kata_with_an_unreadable_manifest(kata: Path, mount: MakeMount) -> None:
    """It is tried once, not for each name that depends on it: `ls -l` takes a second of the processor at most."""
    forge(kata, "main:manifest.json", forging.cycle)
    mounted = mount(kata.parents[2])
    mounted.expected_log = "ERROR"
    before = processor_seconds(mounted.daemon)
    subprocess.run(["ls", "-l", mounted.kata("AbCdEf")], capture_output=True, check=False)
    assert processor_seconds(mounted.daemon) - before < patience(1.0)


def processor_seconds(pid: int) -> float:
    """What a process has had of the processor."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
