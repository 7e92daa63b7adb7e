"""Hostile trees and settings: nothing gets out of a download, and git runs nothing of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from katafs.errors import TooLargeError
from katafs.kata.views import image
from tests.downloads.cases import Tree, assert_clean, make, put, put_commit, put_tree, unpacked
from tests.katas import git


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
        monkeypatch.setattr(image, "_MOST_FILES", 2000)
        for inner in ({b"f": b"f"}, {}):
            tree = put_tree(repo, inner)
            for _ in range(40):
                tree = put_tree(repo, {b"%d" % number: (0o040000, tree) for number in range(10)})
            put_commit(repo, tree)
            with pytest.raises(TooLargeError):
                make(repo)

    def test_a_bomb_of_bytes(self, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(image, "_MOST_BYTES", 10_000_000)
        zeros = put(repo, "blob", bytes(1_000_000))
        put_commit(repo, {b"%d" % number: (0o100644, zeros) for number in range(11)})
        with pytest.raises(TooLargeError):
            make(repo)
