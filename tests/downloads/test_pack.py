"""The pack in a download; and downloads that fail."""

from __future__ import annotations

import hashlib
import os
import random
import resource
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import pytest

from katafs.errors import DamagedError, StorageError
from katafs.git.format import index
from katafs.git.store import pack_writer
from katafs.kata.views.download import make_download
from katafs.kata.views.image import Source
from katafs.kata.views.spool import Spool
from tests.downloads.cases import MTIME, NAME, Tree, make, put, put_commit, unpack_tgz, unpacked
from tests.katas import git


class TestPack:
    """Objects of all sizes and differences, as git reads them back."""

    def test_differences(self, repo: Path, tmp_path: Path) -> None:
        chance = random.Random(3)
        sizes = [0, 1, 15, 16, 63, 64, 65, 127, 128, 511, 512, 513, 2047, 2048, 5000, 70_000]
        versions = {b"%d" % size: chance.randbytes(size) for size in sizes}
        large = b"large" * (7 << 19)
        parent: tuple[str, ...] = ()
        for number in range(60):
            for name, data in versions.items():
                if chance.random() < 0.3:
                    at, out = chance.randint(0, len(data)), chance.choice([0, 0, 1, 5, 300])
                    added = chance.randbytes(chance.choice([0, 1, 20, 127, 128, 400]))
                    versions[name] = data[:at] + added + data[at + out :]
            tree: Tree = {
                **versions,
                b"in": {**versions},
                b"always": b"line\n" * 40 + b"%d" % number,
                b"empty": chance.choice([b"", b"x", b"y" * 200]),
                b"large": large if number < 30 else large[number // 30 :: 2],
            }
            parent = (put_commit(repo, tree, *parent, number=number),)
        path = unpacked(repo, tmp_path / "out")
        (idx,) = (path / ".git" / "objects" / "pack").glob("*.idx")
        git(path, "verify-pack", idx)
        assert git(path, "fsck", "--strict", "--full") == b""
        assert git(path, "log", "--format=%H %T") == git(repo, "log", "--format=%H %T", "main")
        chains = git(path, "verify-pack", "--stat-only", idx).decode()
        assert "chain length = 50" in chains
        assert "chain length = 51" not in chains

    def test_little_memory_for_bases(self, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is kept to make differences from is forgotten in time; the pack is only larger then."""
        parent: tuple[str, ...] = ()
        for number in range(5):
            tree = {b"%d" % name: b"%d " % name * 2000 + b"%d" % number for name in range(20)}
            parent = (put_commit(repo, tree, *parent, number=number),)
        small = make(repo)
        monkeypatch.setattr(pack_writer, "_BASES_LIMIT", 20_000)
        large = make(repo)
        assert large.tgz_size > small.tgz_size
        assert git(unpack_tgz(large, tmp_path / "out"), "fsck", "--strict", "--full") == b""
        small.close()
        large.close()

    def test_offsets_of_more_than_31_bits(self) -> None:
        offsets = [12, 2**31 - 1, 2**31, 2**32, 2**40]
        ids = sorted(hashlib.sha1(b"%d" % offset).digest() for offset in offsets)
        records = [index.Record(oid, offset, 0x01020304) for oid, offset in zip(ids, offsets, strict=True)]
        shown = subprocess.check_output(["git", "show-index"], input=index.build(records, bytes(20)))
        expected = [f"{offset} {oid.hex()} (01020304)" for oid, offset in zip(ids, offsets, strict=True)]
        assert shown.decode().splitlines() == expected

    def test_memory_does_not_grow_with_history(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pack_writer, "_BASES_LIMIT", 2 << 20)
        parent: tuple[str, ...] = ()
        used = []
        for number in range(16):
            data = random.Random(number).randbytes(1 << 20)
            parent = (put_commit(repo, {b"%d" % number: data}, *parent, number=number),)
            if number % 8 == 7:
                tracemalloc.start()
                make(repo).close()
                used.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        assert used[0] < 10 << 20
        assert used[1] < used[0] + (1 << 20)


class TestFailures:
    def test_a_missing_object(self, repo: Path, tmp_path: Path) -> None:
        blob = put(repo, "blob", b"old")
        first = put_commit(repo, {b"a": (0o100644, blob)})
        put_commit(repo, {b"a": b"new"}, first, number=1)
        (repo / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
        with pytest.raises(DamagedError, match=blob):
            make(repo, tmp_path)

    @pytest.mark.parametrize("damage", [b"", b"not zlib", zlib.compress(b"blob 3\0abd"), zlib.compress(b"tree 0\0")])
    def test_a_damaged_object(self, damage: bytes, repo: Path, tmp_path: Path) -> None:
        blob = put(repo, "blob", b"abc")
        put_commit(repo, {b"a": (0o100644, blob)})
        (repo / ".git" / "objects" / blob[:2] / blob[2:]).write_bytes(damage)
        with pytest.raises(DamagedError, match=blob):
            make(repo, tmp_path)

    def test_the_wrong_kind_of_object(self, repo: Path) -> None:
        blob = put(repo, "blob", b"abc")
        put_commit(repo, {b"a": (0o040000, blob)})
        with pytest.raises(DamagedError):
            make(repo)
        with pytest.raises(DamagedError):
            make(repo, oid=bytes.fromhex(blob))
        with pytest.raises(DamagedError):
            make(repo, oid=bytes.fromhex(put(repo, "commit", b"no tree")))

    def test_no_repository(self, tmp_path: Path) -> None:
        with pytest.raises(DamagedError):
            make_download(tmp_path, Source(bytes(20), {}, NAME, MTIME * 10**9), Spool())

    @pytest.mark.parametrize("limit", [10, 5_000, 60_000, 130_000])
    def test_a_full_disk(self, limit: int, repo: Path, tmp_path: Path) -> None:
        """Here: a limit on the size of files (EFBIG); at the pack, at the files, at the archive."""
        put_commit(repo, {b"a": random.Random(1).randbytes(50_000)})
        spool = tmp_path / "spool"
        spool.mkdir()
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            with pytest.raises(StorageError) as raised:
                make(repo, spool)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert raised.value.errno_name == "EFBIG"
        assert os.listdir(spool) == []

    def test_no_directory_for_temporary_files(self, repo: Path, tmp_path: Path) -> None:
        put_commit(repo, {})
        with pytest.raises(StorageError) as raised:
            make(repo, tmp_path / "none")
        assert raised.value.errno_name == "ENOENT"
