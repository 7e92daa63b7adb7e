"""Downloads, unpacked by GNU tar and looked at by git; hostile trees and settings; the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import os
import random
import resource
import subprocess
import tarfile
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import (
    DamagedError,
    IsDirectoryError,
    NotDirectoryError,
    NotFoundError,
    StorageError,
    TooLargeError,
)
from katafs.git import GitRepo, pack
from katafs.kata import download
from katafs.kata.download import DIRECTORY, FILE, Download, Member, download_name, make_download
from tests.katas import git, make_long_kata, tags_of

NAME = "cyber-dojo-2026-02-03-AbCdEf-Fizz-Buzz"
MTIME = 1_770_000_000
Tree = Mapping[bytes, "bytes | Tree | tuple[int, str]"]


def put(path: Path, kind: str, data: bytes) -> str:
    """Write a loose object as it is, however wrong; its id."""
    whole = f"{kind} {len(data)}\0".encode() + data
    oid = hashlib.sha1(whole).hexdigest()
    file = path / ".git" / "objects" / oid[:2] / oid[2:]
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(zlib.compress(whole, 1))
    return oid


def put_tree(path: Path, tree: Tree) -> str:
    """A tree of blobs, trees, and entries given as mode and id."""
    entries = []
    for name, value in tree.items():
        if isinstance(value, bytes):
            mode, oid = 0o100644, put(path, "blob", value)
        elif isinstance(value, tuple):
            mode, oid = value
        else:
            mode, oid = 0o040000, put_tree(path, value)
        entries.append((name + b"/" * (mode == 0o040000), b"%o %b\0%b" % (mode, name, bytes.fromhex(oid))))
    return put(path, "tree", b"".join(entry for _, entry in sorted(entries)))


def put_commit(path: Path, tree: Tree | str, *parents: str, number: int = 0) -> str:
    """A commit, which becomes the tip of main and has the tag ``number``."""
    tree_id = tree if isinstance(tree, str) else put_tree(path, tree)
    who = f"AbCdEf <AbCdEf@cyber-dojo.org> {MTIME - 1000 + number} +0000"
    lines = [f"tree {tree_id}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
    oid = put(path, "commit", "\n".join([*lines, "", f"{number} ran tests, grün"]).encode())
    (path / ".git" / "refs" / "heads" / "main").write_text(oid + "\n")
    (path / ".git" / "refs" / "tags" / str(number)).write_text(oid + "\n")
    return oid


def make(path: Path, spool: Path | None = None, **changed: Any) -> Download:
    repo = GitRepo(path)
    tip = repo.main()
    assert tip is not None
    arguments: dict[str, Any] = {"tip": tip, "tags": tags_of(repo.path), "name": NAME, "mtime": MTIME, "spool": spool}
    return make_download(path, **(arguments | changed))


def tgz(image: Download) -> bytes:
    return image.read_tgz(0, image.tgz_size)


def contents(image: Download) -> dict[bytes, tuple[Member, bytes]]:
    return {
        path: (member, image.read(path, 0, member.size) if member.mode == FILE else b"")
        for path, member in image.members.items()
    }


def unpack_tgz(image: Download, directory: Path) -> Path:
    """What GNU tar makes of the archive: the repository."""
    directory.mkdir()
    command = ["tar", "-x", "-z", "-f", "-", "-C", str(directory)]
    done = subprocess.run(command, input=tgz(image), capture_output=True, check=True)
    assert done.stderr == b""
    assert os.listdir(directory) == [image.name]
    return directory / image.name


def unpacked(path: Path, directory: Path) -> Path:
    """The repository that a download of the one at ``path`` unpacks to."""
    image = make(path)
    try:
        return unpack_tgz(image, directory)
    finally:
        image.close()


def assert_clean(path: Path, *options: str) -> None:
    """git finds nothing changed, at once, and when it has to read the files again."""
    assert git(path, *options, "diff-files") == b""
    assert git(path, *options, "status", "--porcelain", "--ignored") == b""
    for file in path.rglob("*"):
        if ".git" not in file.parts:
            os.utime(file)
    assert git(path, *options, "status", "--porcelain") == b""
    assert git(path, *options, "diff", "HEAD", "--") == b""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """An empty repository with main."""
    path = tmp_path / "repo"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def long_kata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native kata of 60 events, with an option commit after them, whose objects are all loose."""
    path = make_long_kata(tmp_path_factory.mktemp("store"), "AbCdEf", 60)
    option = git(path, "commit-tree", "-m", "set option theme to dark", "-p", "main", "main^{tree}").decode().strip()
    git(path, "update-ref", "refs/heads/main", option)
    return path


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Whatever becomes of a download, its temporary file is closed."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = [os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before if fd_exists(fd)]
    assert [target for target in left if "(deleted)" in target] == []


def fd_exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


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
    with pytest.raises(NotFoundError):
        image.read(b"no", 0, 1)
    with pytest.raises(NotFoundError):
        image.children(b"files/no")
    with pytest.raises(NotDirectoryError):
        image.children(path)
    with pytest.raises(IsDirectoryError):
        image.read(b"files", 0, 1)
    image.close()
    image.close()


def test_the_same_bytes_each_time(long_kata: Path, tmp_path: Path) -> None:
    """Also made in another thread, read in this one, and from a store that has been repacked in between."""
    first = make(long_kata)
    subprocess.run(["cp", "-a", str(long_kata), str(tmp_path / "packed")], check=True)
    git(tmp_path / "packed", "gc", "--quiet", "--aggressive", "--prune=now")
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


class TestHostile:
    ATTRIBUTES = (
        b"[attr]evil text eol=crlf ident filter=evil diff=evil merge=evil working-tree-encoding=UTF-16\n"
        b"* evil\n*.txt text eol=crlf\n* ident\n* filter=evil diff=evil merge=evil\n"
        b"*.enc working-tree-encoding=UTF-16LE\n"
        b"* crlf\n[attr]text filter=evil\n[attr]merge filter=evil\n"
    )

    @pytest.fixture
    def ran(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A file that is made when the user's filter or driver runs; the user's settings are the worst ones."""
        ran = tmp_path / "ran"
        settings = f"""
            [core]\nautocrlf = true\neol = crlf\nsafecrlf = true\nattributesFile = {tmp_path}/attributes
            fileMode = true\nsymlinks = true\ncheckStat = default\ntrustctime = true\npreloadIndex = true
            [filter "evil"]\nclean = touch {ran}; cat; echo\nsmudge = touch {ran}; cat; echo\nrequired = true
            [diff "evil"]\ncommand = touch {ran}\ntextconv = touch {ran}; cat\n[merge "evil"]\ndriver = touch {ran}
            """
        (tmp_path / "config").write_text(settings)
        (tmp_path / "attributes").write_text("* text=auto eol=crlf filter=evil\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
        return ran

    def test_attributes(self, repo: Path, tmp_path: Path, ran: Path) -> None:
        files = {
            b"lf.txt": b"a\nb\n",
            b"crlf.txt": b"a\r\nb\r\n",
            b"mixed": b"a\nb\r\n\0",
            b"id": b"$Id: x$\n$Id$\n",
            b"x.enc": b"abc",
        }
        put_commit(
            repo, {b".gitattributes": self.ATTRIBUTES, b"files": {b".gitattributes": self.ATTRIBUTES, **files}, **files}
        )
        path = unpacked(repo, tmp_path / "out")
        for name, data in files.items():
            assert (path / "files" / name.decode()).read_bytes() == data
        assert_clean(path)
        assert_clean(path, "-c", "core.autocrlf=true")
        assert_clean(path, "-c", "core.autocrlf=input", "-c", "core.eol=crlf")
        (path / "lf.txt").write_bytes(b"a\nb\nc\n")
        assert git(path, "diff", "--numstat") == b"1\t0\tlf.txt\n"
        assert b"+c" in git(path, "diff")
        git(path, "checkout", "--quiet", "lf.txt")
        assert (path / "lf.txt").read_bytes() == b"a\nb\n"
        assert not ran.exists()

    def test_the_attributes_would_do_harm(self, repo: Path, tmp_path: Path, ran: Path) -> None:
        """Without our own, the same download is not clean, and a program runs."""
        put_commit(repo, {b".gitattributes": self.ATTRIBUTES, b"lf.txt": b"a\nb\n"})
        path = unpacked(repo, tmp_path / "out")
        (path / ".git" / "info" / "attributes").unlink()
        os.utime(path / "lf.txt")
        subprocess.run(["git", "status"], cwd=path, check=False, capture_output=True)
        assert ran.exists()

    def test_users_settings(self, long_kata: Path, tmp_path: Path, ran: Path) -> None:
        assert_clean(unpacked(long_kata, tmp_path / "out"))
        assert not ran.exists()

    def test_a_git_directory_inside(self, repo: Path, tmp_path: Path) -> None:
        """Whoever goes there and asks for the status must not run what its configuration says."""
        ran = tmp_path / "ran"
        config = f"[core]\nrepositoryformatversion = 0\nbare = false\nworktree = ..\nfsmonitor = touch {ran};\n"
        bare: Tree = {
            b"HEAD": b"ref: refs/heads/main\n",
            b"config": config.encode(),
            b"objects": {b"x": b""},
            b"refs": {b"x": b""},
        }
        indirect = {**{key: bare[key] for key in (b"HEAD", b"config")}, b"commondir": b"common", b"common": bare}
        put_commit(repo, {b"files": bare, b"other": indirect})
        subprocess.run(["git", "--work-tree=.", "checkout", "--quiet", "main", "."], cwd=repo, check=True)
        subprocess.run(["git", "status"], cwd=repo / "files", check=False, capture_output=True)
        assert ran.exists(), "git is no longer taken in"
        ran.unlink()
        path = unpacked(repo, tmp_path / "out")
        for directory in ("files", "other", "other/common", "files/objects"):
            git(path / directory, "status")
        assert not ran.exists()
        assert (path / "files" / "config").exists()

    NAMES = (
        b".git", b".GIT", b".Git", b"git~1", b"GIT~1", b"git~2", b".git ", b".git.", b".git...", b".git:x",
        b".git::$INDEX_ALLOCATION", b".g\xe2\x80\x8cit", b"\xef\xbb\xbf.git", b"..", b".", b"x/../../y", b"/tmp/up",
        b"..\\..\\up", b"a\\.git\\config", b"a\\..\\up", b"\\root", b".\\.git", b"git~1\\x",
    )  # fmt: skip

    @pytest.mark.parametrize("names", [NAMES, [b""]], ids=["unsafe", "empty"])
    def test_names(self, names: tuple[bytes, ...], repo: Path, tmp_path: Path) -> None:
        """As files and as directories, at the top and below."""
        hooks: Tree = {b"hooks": {b"post-checkout": b"#!/bin/sh\n"}, b"config": b"[core]\nfsmonitor = false\n"}
        good: Tree = {**dict.fromkeys(names, b"text"), b"file": b"good"}
        put_commit(repo, {**dict.fromkeys(names, hooks), b"good": good})
        path = unpacked(repo, tmp_path / "out")
        shown = {str(file.relative_to(path)) for file in path.rglob("*") if ".git" not in file.parts}
        assert shown == {"good", "good/file"}
        assert set(os.listdir(tmp_path)) == {"repo", "out"}
        assert b"fsmonitor" not in (path / ".git" / "config").read_bytes()
        if b"" not in names:
            assert b"good/file" not in git(path, "status", "--porcelain")

    def test_modes(self, repo: Path, tmp_path: Path) -> None:
        """Links become files that hold their target; nothing can be executed; what git takes for links stays clean."""
        link = put(repo, "blob", b"/etc/passwd")
        up = put(repo, "blob", b"../..")
        script = put(repo, "blob", b"#!/bin/sh\n")
        tree: Tree = {
            b"link": (0o120000, link),
            b"up": (0o120777, up),
            b"script": (0o100755, script),
            b"setuid": (0o104755, script),
            b"group": (0o100664, script),
        }
        put_commit(repo, tree)
        path = unpacked(repo, tmp_path / "out")
        for file in path.rglob("*"):
            assert not file.is_symlink()
            assert file.is_dir() or file.stat().st_mode & 0o7777 == 0o644
        assert (path / "link").read_bytes() == b"/etc/passwd"
        assert_clean(path)

    def test_what_is_no_file(self, repo: Path, tmp_path: Path) -> None:
        """Submodules, and modes that git takes for them, are left out."""
        blob = put(repo, "blob", b"x")
        put_commit(repo, {b"sub": (0o160000, "1" * 40), b"fifo": (0o010644, blob), b"none": (0, "2" * 40), b"a": b"a"})
        path = unpacked(repo, tmp_path / "out")
        assert sorted(os.listdir(path)) == [".git", "a"]

    def test_duplicates(self, repo: Path, tmp_path: Path) -> None:
        one, two = put(repo, "blob", b"one"), put(repo, "blob", b"two")
        tree = put_tree(repo, {b"in": b"tree"})
        entries = [(b"100644", one), (b"100644", two), (b"40000", tree)]
        put_commit(repo, put(repo, "tree", b"".join(b"%b x\0%b" % (mode, bytes.fromhex(oid)) for mode, oid in entries)))
        path = unpacked(repo, tmp_path / "out")
        assert (path / "x").read_bytes() == b"one"
        assert git(path, "cat-file", "-p", two) == b"two"

    def test_a_bomb(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A few small trees that stand for 10^40 files, or directories."""
        monkeypatch.setattr(download, "_MOST_FILES", 2000)
        for inner in ({b"f": b"f"}, {}):
            tree = put_tree(repo, inner)
            for _ in range(40):
                tree = put_tree(repo, {b"%d" % number: (0o040000, tree) for number in range(10)})
            put_commit(repo, tree)
            with pytest.raises(TooLargeError):
                make(repo)

    def test_a_bomb_of_bytes(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(download, "_MOST_BYTES", 10_000_000)
        zeros = put(repo, "blob", bytes(1_000_000))
        put_commit(repo, {b"%d" % number: (0o100644, zeros) for number in range(11)})
        with pytest.raises(TooLargeError):
            make(repo)


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
        monkeypatch.setattr(pack, "_BASES_LIMIT", 20_000)
        large = make(repo)
        assert large.tgz_size > small.tgz_size
        assert git(unpack_tgz(large, tmp_path / "out"), "fsck", "--strict", "--full") == b""
        small.close()
        large.close()

    def test_offsets_of_more_than_31_bits(self) -> None:
        offsets = [12, 2**31 - 1, 2**31, 2**32, 2**40]
        ids = sorted(hashlib.sha1(b"%d" % offset).digest() for offset in offsets)
        records = [oid + offset.to_bytes(8, "big") + b"\1\2\3\4" for oid, offset in zip(ids, offsets, strict=True)]
        shown = subprocess.check_output(["git", "show-index"], input=pack._idx(records, bytes(20)))
        expected = [f"{offset} {oid.hex()} (01020304)" for oid, offset in zip(ids, offsets, strict=True)]
        assert shown.decode().splitlines() == expected

    def test_memory_does_not_grow_with_history(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pack, "_BASES_LIMIT", 2 << 20)
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
            make(repo, tip=bytes.fromhex(blob))
        with pytest.raises(DamagedError):
            make(repo, tip=bytes.fromhex(put(repo, "commit", b"no tree")))

    def test_no_repository(self, tmp_path: Path) -> None:
        with pytest.raises(DamagedError):
            make_download(tmp_path, bytes(20), {}, NAME, MTIME)

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
        image = make(repo, mtime=mtime)
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
