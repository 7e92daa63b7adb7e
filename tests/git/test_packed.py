"""Reading packs: every object of real ones, damaged ones in every way, and hostile ones."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from katafs.errors import DamagedError
from katafs.git import GitRepo
from katafs.git.budget import Budget
from katafs.git.format.pack import entry_head, varint
from katafs.git.odb.packs import Packs
from katafs.git.refs.reading import References
from tests.katas import add_event, git, make_kata
from tests.mounts import MakeMount

MIB = 1 << 20
READ = """
import re, sys
from pathlib import Path
from katafs.errors import DamagedError
from katafs.git import GitRepo
repo = GitRepo(Path(sys.argv[1]))
for oid in sys.argv[2:]:
    try:
        print(len(repo.blob(bytes.fromhex(oid))))
    except DamagedError as error:
        print("damaged" if "too many" in str(error) else error)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def pack(path: Path, *oids: str, options: tuple[str, ...] = ()) -> None:
    listed = "".join(f"{oid} file\n" for oid in oids).encode()
    git(path, "pack-objects", "-q", *options, path / ".git/objects/pack/pack", stdin=listed)
    git(path, "prune-packed", "-q")


def blob(path: Path, data: bytes) -> str:
    return git(path, "hash-object", "-w", "--stdin", stdin=data).decode().strip()


@pytest.mark.parametrize("options", [("--delta-base-offset",), ()], ids=["offsets", "ids"])
def test_every_object_of_a_real_pack(store: Path, options: tuple[str, ...]) -> None:
    path = make_kata(store, "AbCdEf")
    dice = random.Random(1)
    data = dice.randbytes(100_000)
    contents = []
    for _ in range(60):
        at = dice.randrange(len(data))
        data = data[:at] + dice.randbytes(50) + data[at + 20 :]
        contents.append(data)
    oids = [blob(path, each) for each in contents]
    pack(path, *oids, options=("--window=60", "--depth=50", *options))
    packs = Packs(f"{path}/.git/objects", Budget())
    for oid, each in zip(oids, contents, strict=True):
        assert packs.read(bytes.fromhex(oid), 200_000) == (3, each)
        assert packs.head(bytes.fromhex(oid)) == (3, len(each))
        assert bytes.fromhex(oid) in packs
        with pytest.raises(ValueError, match="too many"):
            packs.read(bytes.fromhex(oid), 90_000)
    assert bytes(20) not in packs
    with pytest.raises(KeyError):
        packs.read(bytes(20), 200_000)
    assert set(packs) >= set(map(bytes.fromhex, oids))
    newest = max((path / ".git/objects/pack").glob("*.pack"), key=lambda each: each.stat().st_size)
    verified = git(path, "verify-pack", "-v", newest).decode()
    assert "chain length = 4" in verified, "the pack has chains"


@pytest.mark.thorough
def test_a_small_object_made_of_a_huge_one(store: Path) -> None:
    """The difference is a few bytes; the base would take 100 MiB of memory."""
    path = make_kata(store, "AbCdEf")
    huge = bytes(100 * MIB)
    base, small = blob(path, huge), blob(path, bytes(10) + b"end")
    # git never makes it, so the difference is put together here: copy 10 bytes, insert 3
    make_thin(path, base, small)
    command = [sys.executable, "-c", READ, str(path), small]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said[0] == "damaged"
    assert int(said[1]) >> 10 < 80


def make_thin(path: Path, base: str, small: str) -> None:
    """A pack with the base, whole, and the small one as a difference from it by its id."""
    directory = path / ".git/objects"
    loose = directory / base[:2] / base[2:]
    data = zlib.decompress(loose.read_bytes()).partition(b"\0")[2]
    delta = varint(len(data)) + varint(13) + b"\x90\x0a" + b"\x03end"
    entries = [entry_head(3, len(data)) + zlib.compress(data, 9)]
    entries.append(entry_head(7, len(delta)) + bytes.fromhex(base) + zlib.compress(delta))
    body = struct.pack(">4sII", b"PACK", 2, 2) + b"".join(entries)
    (path / "thin.pack").write_bytes(body + hashlib.sha1(body).digest())
    (directory / "pack").mkdir(exist_ok=True)
    git(path, "index-pack", "-o", directory / "pack/pack-x.idx", path / "thin.pack")
    (path / "thin.pack").rename(directory / "pack/pack-x.pack")
    for oid in (base, small):
        (directory / oid[:2] / oid[2:]).unlink()


@pytest.fixture
def packed(store: Path) -> Path:
    """A kata with a history, all in one pack."""
    path = make_kata(store, "AbCdEf")
    for index in range(1, 12):
        add_event(path, index, files={"a.txt": "line\n" * 400 + f"{index}\n", f"{index}.txt": "x"})
    git(path, "gc", "-q", "--prune=now")
    return path


def all_objects(path: Path) -> dict[str, bytes]:
    """Every object, as git has it."""
    listed = git(path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)").decode()
    return {oid: git(path, "cat-file", kind, oid) for oid, kind in map(str.split, listed.splitlines())}


def read_all(path: Path) -> dict[str, bytes]:
    """Every object that can be read, by a new reader; no other errors than those of `Packs`."""
    packs = Packs(f"{path}/.git/objects", Budget())
    found = {}
    try:
        oids = list(packs)
    except ValueError:
        # of a pack whose index cannot be read nobody says what is in it
        oids = []
    for oid in oids:
        try:
            kind, data = packs.read(oid, 1 << 20)
            assert packs.head(oid) == (kind, len(data))
            found[oid.hex()] = data
        except (KeyError, OSError, ValueError, zlib.error):
            pass
    return found


def test_all_objects_of_a_history(packed: Path) -> None:
    assert read_all(packed) == all_objects(packed)


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
def test_every_way_to_damage_a_pack(packed: Path, suffix: str) -> None:
    """Cut off, and one byte changed: what can be read is right, or is not what its id says."""
    whole = all_objects(packed)
    (file,) = (packed / ".git/objects/pack").glob(f"*{suffix}")
    data = file.read_bytes()
    file.chmod(0o644)
    dice = random.Random(3)
    for cut in (0, 1, 7, 8, 12, 20, 1000, len(data) // 2, len(data) - 41, len(data) - 1):
        file.write_bytes(data[:cut])
        assert read_all(packed).items() <= whole.items()
    for _ in range(300):
        at = dice.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :])
        read_all(packed)
        repo = GitRepo(packed)
        for oid in dice.sample(sorted(whole), 5):
            try:
                kind, seen = repo.objects.read_any(bytes.fromhex(oid))
            except DamagedError:
                continue
            assert (kind in (1, 2, 3), seen) == (True, whole[oid])


def test_packs_come_and_go(packed: Path) -> None:
    """A pack that a reader has open is replaced by another, then objects are loose, then packed again."""
    whole = all_objects(packed)
    repo = GitRepo(packed)
    some = [bytes.fromhex(oid) for oid in whole]
    assert repo.objects.read_any(some[0])[1] == whole[some[0].hex()]
    git(packed, "repack", "-a", "-d", "-f", "-q", "--window=1")
    assert {oid.hex(): repo.objects.read_any(oid)[1] for oid in some} == whole
    (pack_file,) = (packed / ".git/objects/pack").glob("*.pack")
    moved = packed / "moved.pack"
    pack_file.rename(moved)
    for leftover in (packed / ".git/objects/pack").iterdir():
        leftover.unlink()
    git(packed, "unpack-objects", "-q", stdin=moved.read_bytes())
    assert {oid.hex(): repo.objects.read_any(oid)[1] for oid in some} == whole
    git(packed, "gc", "-q", "--prune=now")
    assert {oid.hex(): repo.objects.read_any(oid)[1] for oid in some} == whole


def test_a_repack_between_two_renames(packed: Path) -> None:
    """`git repack` renames its pack first, so that for a moment there is an index alone, which sorts before others."""
    whole = all_objects(packed)
    (idx,) = (packed / ".git/objects/pack").glob("*.idx")
    shutil.copyfile(idx, idx.with_name(f".tmp-1-{idx.name}"))
    repo = GitRepo(packed)
    assert {oid: repo.objects.read_any(bytes.fromhex(oid))[1] for oid in whole} == whole


@pytest.mark.parametrize("suffix", [".pack", ".idx"])
def test_a_pack_that_is_cut_off_under_a_mount(packed: Path, mount: MakeMount, mode: str, suffix: str) -> None:
    """The daemon has read from it. (Mapped into memory, it would be a SIGBUS.) With its bytes back, all is well."""
    mounted = mount(packed.parents[2], mode)
    mounted.expected_log = "damaged|missing"
    kata = mounted.kata("AbCdEf")
    assert (kata / "events/3/files/a.txt").read_text().endswith("3\n")
    (file,) = (packed / ".git/objects/pack").glob(f"*{suffix}")
    data = file.read_bytes()
    file.chmod(0o644)
    for size in (40, 0):
        os.truncate(file, size)
        for name in ("events/7/files/7.txt", "diff/8..9", "diff/2..5.json", "events/6.json", "download.tgz"):
            try:
                (kata / name).read_bytes()
            except OSError as error:
                assert error.errno == errno.EIO, name  # noqa: PT017
        with contextlib.suppress(OSError):
            (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
    assert (mounted.path / ".katafs/version").read_text(), "it lives"
    file.write_bytes(data)
    assert (kata / "events/9/files/9.txt").read_text() == "x"


def test_each_search_of_unsorted_references_is_paid_for(store: Path) -> None:
    """They may have 16 MiB, and a listing of events asks for each tag."""
    path = make_kata(store, "AbCdEf")
    lines = [b"%040x refs/tags/%d\n" % (number, number) for number in reversed(range(1, 10_000))]
    (path / ".git/packed-refs").write_bytes(b"".join(lines))
    budget = Budget(1e9)
    references = References(f"{path.resolve()}/.git", budget)
    left = []
    for number in (5000, 6000, 7000):
        assert references.tag(number) == number.to_bytes(20, "big")
        left.append(budget.left)
    assert left[0] - left[1] == left[1] - left[2] > 500
