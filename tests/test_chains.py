"""Chains of differences in packs: what they are made of is seen before libgit2 unfolds it."""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from katafs.git import GitRepo
from katafs.git.chains import Chains
from katafs.git.pack import _type_and_size, _varint
from tests.katas import git, make_kata

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
def test_every_object_of_a_real_pack_is_good(store: Path, options: tuple[str, ...]) -> None:
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
    chains = Chains(f"{path}/.git/objects/pack")
    repo = GitRepo(path)
    for oid, each in zip(oids, contents, strict=True):
        chains.check(bytes.fromhex(oid), 200_000)
        with pytest.raises(ValueError, match="too many"):
            Chains(f"{path}/.git/objects/pack").check(bytes.fromhex(oid), 90_000)
        assert repo.blob(bytes.fromhex(oid)) == each
    verified = git(path, "verify-pack", "-v", next((path / ".git/objects/pack").glob("*.pack"))).decode()
    assert "chain length = 4" in verified, "the pack has chains"


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
    delta = _varint(len(data)) + _varint(13) + b"\x90\x0a" + b"\x03end"
    entries = [_type_and_size(3, len(data)) + zlib.compress(data, 9)]
    entries.append(_type_and_size(7, len(delta)) + bytes.fromhex(base) + zlib.compress(delta))
    body = struct.pack(">4sII", b"PACK", 2, 2) + b"".join(entries)
    (path / "thin.pack").write_bytes(body + hashlib.sha1(body).digest())
    (directory / "pack").mkdir(exist_ok=True)
    git(path, "index-pack", "-o", directory / "pack/pack-x.idx", path / "thin.pack")
    (path / "thin.pack").rename(directory / "pack/pack-x.pack")
    for oid in (base, small):
        (directory / oid[:2] / oid[2:]).unlink()
