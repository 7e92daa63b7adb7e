"""Downloads, unpacked by GNU tar and looked at by git; the same bytes each time; names."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from katafs.git import GitRepo
from katafs.kata.views.download import Download, download_name
from katafs.kata.views.image import DIRECTORY, FILE, Member
from tests.downloads.cases import (
    MTIME,
    NAME,
    Tree,
    assert_clean,
    contents,
    make,
    put,
    put_commit,
    tgz,
    unpack_tgz,
    unpacked,
)
from tests.katas import git


class TestRepository:
    @pytest.fixture(params=["saver", "native"])
    def kata(self, request: pytest.FixtureRequest) -> Path:
        name = {"saver": "saver_kata", "native": "long_kata"}[request.param]
        path = request.getfixturevalue(name)
        assert isinstance(path, Path)
        return path

    def test_an_ordinary_repository(self, kata: Path, tmp_path: Path) -> None:
        path = unpacked(kata, tmp_path / "out")
        assert git(path, "fsck", "--strict", "--full", "--no-dangling") == b""
        assert_clean(path)
        assert git(path, "remote") == b""
        every_field = "--format=%H %T %P %an %ae %ad %cn %ce %cd %B"
        assert git(path, "log", every_field, "--raw", "-p") == git(kata, "log", every_field, "--raw", "-p", "main")
        refs = git(kata, "for-each-ref", "refs/tags", "refs/heads/main")
        assert git(path, "for-each-ref") == refs
        assert git(path, "symbolic-ref", "HEAD") == b"refs/heads/main\n"
        assert {file.name for file in (path / ".git").iterdir()} == {
            "HEAD", "config", "index", "info", "objects", "packed-refs", "refs"
        }  # fmt: skip

    @pytest.mark.parametrize("of", ["main:manifest.json", "main^{tree}", "annotated", "nothing"])
    def test_a_tag_of_something_else_is_that_of_its_commit(self, long_kata: Path, tmp_path: Path, of: str) -> None:
        """Loose and packed."""
        path = tmp_path / "kata"
        shutil.copytree(long_kata, path)
        commit = git(path, "rev-parse", "3")
        if of == "annotated":
            git(path, "tag", "-f", "-a", "-m", "annotated", "3", "3")
        elif of == "nothing":
            (path / ".git/refs/tags").mkdir(parents=True, exist_ok=True)
            (path / ".git/refs/tags/3").write_text("1" * 40 + "\n")
        else:
            git(path, "update-ref", "refs/tags/3", git(path, "rev-parse", of).decode().strip())
        for state in ("loose", "packed"):
            if state == "packed" and of != "nothing":
                git(path, "repack", "-a", "-d", "-q")
                git(path, "prune-packed")
            tags = {index: GitRepo(path).tag(index) for index in range(5)}
            image = make(path, tags=tags)
            refs = image.read(b".git/packed-refs", 0, 1 << 20)
            assert commit.strip() + b" refs/tags/3\n" in refs, (state, refs)

    def test_it_can_be_gone_on_with(self, kata: Path, tmp_path: Path) -> None:
        path = unpacked(kata, tmp_path / "out")
        git(tmp_path, "clone", "--quiet", path, tmp_path / "clone")
        assert git(tmp_path / "clone", "status", "--porcelain") == b""
        (path / "files" / "new.txt").write_text("mine\n")
        git(path, "add", "--all")
        git(path, "commit", "--quiet", "--message", "mine")
        git(path, "gc", "--quiet")
        assert git(path, "fsck", "--strict", "--full") == b""
        assert git(path, "diff", "--stat", "HEAD~", "--shortstat").endswith(b"1 file changed, 1 insertion(+)\n")

    def test_every_object_and_no_other(self, kata: Path, tmp_path: Path) -> None:
        put(kata, "blob", b"nobody refers to this")
        path = unpacked(kata, tmp_path / "out")
        (idx,) = (path / ".git" / "objects" / "pack").glob("*.idx")
        packed = {line.split()[1] for line in git(path, "show-index", stdin=idx.read_bytes()).splitlines()}
        assert packed == {line.split()[0] for line in git(kata, "rev-list", "--objects", "main").splitlines()}
        ids = sorted(bytes.fromhex(oid.decode()) for oid in packed)
        assert idx.stem == "pack-" + hashlib.sha1(b"".join(ids)).hexdigest()
        git(path, "verify-pack", idx)

    def test_an_option_commit_has_no_tag(self, long_kata: Path, tmp_path: Path) -> None:
        path = unpacked(long_kata, tmp_path / "out")
        assert git(path, "log", "-1", "--format=%s %D") == b"set option theme to dark HEAD -> main\n"
        assert git(path, "tag") == git(long_kata, "tag")


def test_both_forms_are_the_same(long_kata: Path) -> None:
    image = make(long_kata)
    expected = contents(image)
    with tarfile.open(fileobj=io.BytesIO(tgz(image))) as tar:
        found = {}
        for info in tar:
            assert (info.uid, info.gid, info.uname, info.gname) == (0, 0, "", "")
            assert info.isdir() or info.isreg()
            kind = DIRECTORY & ~0o7777 if info.isdir() else FILE & ~0o7777
            reader = tar.extractfile(info)
            path = info.name.removeprefix(NAME).removeprefix("/").encode("utf-8", "surrogateescape")
            found[path] = (Member(kind | info.mode, info.size, int(info.mtime)), reader.read() if reader else b"")
    assert list(found) == list(expected)
    assert found == expected
    assert {member.mtime for member, _ in found.values()} == {MTIME}
    image.close()


def test_reading(long_kata: Path) -> None:
    image = make(long_kata)
    assert image.children(b"")[0] == b".git"
    assert image.children(b".git/refs") == [b"heads", b"tags"]
    assert image.children(b".git/refs/heads") == []
    walked = {b""}
    for path, member in image.members.items():
        assert path in walked, f"{path!r} comes before its directory"
        if member.mode == DIRECTORY:
            walked |= {path + b"/" + name if path else name for name in image.children(path)}
    assert walked == set(image.members)
    path = b"files/dos.txt"
    whole = image.read(path, 0, 1000)
    assert len(whole) == image.members[path].size
    assert image.read(path, 3, 5) == whole[3:8]
    assert image.read(path, len(whole), 5) == image.read(path, 10**9, 5) == image.read_tgz(10**9, 5) == b""
    assert b"".join(image.read_tgz(at, 1000) for at in range(0, image.tgz_size, 1000)) == tgz(image)
    image.close()
    image.close()


def test_the_same_bytes_each_time(long_kata: Path, tmp_path: Path) -> None:
    """Also made in another thread, read in this one, and from a store that has been repacked in between."""
    first = make(long_kata)
    subprocess.run(["cp", "-a", str(long_kata), str(tmp_path / "packed")], check=True)
    # in two packs, since the only pack of a repository is taken as it is
    packed = tmp_path / "packed"
    git(packed, "pack-objects", "-q", ".git/objects/pack/pack", stdin=git(packed, "rev-parse", "main:"))
    for pack in (packed / ".git" / "objects" / "pack").glob("*.pack"):
        pack.with_suffix(".keep").touch()
    git(packed, "gc", "--quiet", "--aggressive", "--prune=now")
    assert not list((tmp_path / "packed" / ".git" / "objects").glob("??"))
    made: list[Download] = []
    thread = threading.Thread(target=lambda: made.append(make(tmp_path / "packed")))
    thread.start()
    thread.join()
    assert contents(made[0]) == contents(first)
    assert tgz(made[0]) == tgz(first)
    first.close()
    made[0].close()


def test_the_image_needs_no_repository(repo: Path) -> None:
    put_commit(repo, {b"a": b"text"})
    image = make(repo)
    subprocess.run(["rm", "-r", str(repo)], check=True)
    assert image.read(b"a", 0, 9) == b"text"
    image.close()


NAMES = (
    b"with space", b" ", b"...", b"-dash", b"new\nline", b"tab\t", b'quote"', b"back\\slash", b"gitignore", b"git~x",
    b".gitx", b"HEAD", "größe 日本".encode(), b"latin\xe9", b"n" * 255, b"a.b", b"a0",
)  # fmt: skip


def test_names(repo: Path, tmp_path: Path) -> None:
    deep: Tree = {b"end": b"deep"}
    for _ in range(12):
        deep = {b"d" * 100: deep}
    put_commit(repo, {**{name: name for name in NAMES}, b"a": dict.fromkeys(NAMES, b"in a"), b"deep": deep})
    path = unpacked(repo, tmp_path / "out")
    for name in NAMES:
        assert (path / os.fsdecode(name)).read_bytes() == name
    assert Path(path, "deep", *["d" * 100] * 12, "end").read_bytes() == b"deep"
    assert_clean(path)
    assert git(path, "fsck", "--strict", "--full") == b""


def test_no_files_at_all(repo: Path, tmp_path: Path) -> None:
    put_commit(repo, {})
    path = unpacked(repo, tmp_path / "out")
    assert os.listdir(path) == [".git"]
    assert_clean(path)


def test_a_history_with_merges_and_tags_outside(repo: Path, tmp_path: Path) -> None:
    first = put_commit(repo, {b"a": b"1" * 100})
    stray = put_commit(repo, {b"stray": b"s"}, first, number=7)
    side = put_commit(repo, {b"a": b"1" * 100 + b"2"}, first, number=1)
    put_commit(repo, {b"a": b"1" * 99 + b"3"}, first, side, number=2)
    path = unpacked(repo, tmp_path / "out")
    assert git(path, "tag") == b"0\n1\n2\n"
    assert git(path, "log", "--graph", "--format=%H") == git(repo, "log", "--graph", "--format=%H", "main")
    assert stray.encode() not in git(path, "rev-list", "--all")
    assert git(path, "fsck", "--strict", "--full") == b""


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"created": [2026, 2, 3, 4, 5, 6, 7], "exercise": "Fizz Buzz"}, "2026-02-03-AbCdEf-Fizz-Buzz"),
        ({"created": [2019, 1, 16, 12, 44, 55, 800239]}, "2019-01-16-AbCdEf"),
        ({"created": [2026, 12, 31], "exercise": ""}, "2026-12-31-AbCdEf"),
        ({"created": [2026, 12, 31], "exercise": None}, "2026-12-31-AbCdEf"),
        ({"created": [2026, 12, 31], "exercise": "  (100) doors: äö/../x\n"}, "2026-12-31-AbCdEf-100-doors-x"),
        ({"created": [2026, 12, 31], "exercise": "a" * 79 + " b"}, "2026-12-31-AbCdEf-" + "a" * 79),
        ({"created": [2026, 12, 31], "exercise": "x!" * 10**6}, "2026-12-31-AbCdEf-" + ("x-" * 40)[:-1]),
        ({"created": [2026, 12, 31], "exercise": ["a"]}, "2026-12-31-AbCdEf"),
        ({"created": [2026, 12, 31], "exercise": {"a": 1}}, "2026-12-31-AbCdEf"),
        ({}, "1970-01-02-AbCdEf"),
        ({"created": "2026-12-31"}, "1970-01-02-AbCdEf"),
        ({"created": {"a": 1}}, "1970-01-02-AbCdEf"),
        ({"created": 5}, "1970-01-02-AbCdEf"),
        ({"created": None}, "1970-01-02-AbCdEf"),
        ({"created": [2026]}, "1970-01-02-AbCdEf"),
        ({"created": [2026, 2, 30]}, "1970-01-02-AbCdEf"),
        ({"created": [2026, 2, 3.5]}, "1970-01-02-AbCdEf"),
        ({"created": [10**40, 1, 1]}, "1970-01-02-AbCdEf"),
        ({"created": ["2026", "../..", "1"]}, "1970-01-02-AbCdEf"),
    ],
)
def test_the_name(manifest: dict[str, Any], expected: str) -> None:
    assert download_name("AbCdEf", manifest, 86_400) == f"cyber-dojo-{expected}"


@pytest.mark.parametrize("seconds", [10**20, -(10**20), 2**63])
def test_the_name_without_any_date(seconds: int) -> None:
    assert download_name("AbCdEf", {}, seconds) == "cyber-dojo-1970-01-01-AbCdEf"


def test_odd_times(repo: Path, tmp_path: Path) -> None:
    put_commit(repo, {b"a": b"a"})
    for mtime in (0, 1, 2**30):
        image = make(repo, time_ns=mtime * 10**9)
        path = unpack_tgz(image, tmp_path / str(mtime))
        assert int((path / "a").stat().st_mtime) == mtime
        assert git(path, "status", "--porcelain") == b""
        image.close()


def test_time_of_300_commits(repo: Path) -> None:
    """Printed, not asserted; the benchmark does that."""
    rows = []
    parent: tuple[str, ...] = ()
    files = {b"file %d" % number: b"".join(b"line %d\n" % line for line in range(100)) for number in range(10)}
    for number in range(300):
        rows.append(
            b'{"index": %d, "colour": "red", "time": [2026, 2, 3, 4, 5, 6, %d]}' % (number, number * 7919 % 1000)
        )
        files[b"file %d" % (number % 10)] += b"new line %d\n" % number
        parent = (put_commit(repo, {b"files": {**files}, b"events.json": b",\n".join(rows)}, *parent, number=number),)
    for state in ("loose", "packed"):
        start = time.perf_counter()
        image = make(repo)
        print(f"{state}: {(time.perf_counter() - start) * 1e3:.1f} ms, {image.tgz_size} bytes")  # noqa: T201
        image.close()
        git(repo, "gc", "--quiet")
