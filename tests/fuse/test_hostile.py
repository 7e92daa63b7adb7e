"""The threat model of the README: whoever can write to one kata's repository, and nothing else, gets nothing else."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.downloads.cases import put
from tests.katas import add_event, git, make_kata
from tests.mounts import CommandLine, MakeMount, command_line

SECRET = "what only its owner may read\n"


def set_files(path: Path, entries: list[tuple[bytes, bytes, str]]) -> None:
    """Make event 0 one whose ``files/`` has these entries (mode, name, id), whatever git thinks of them."""
    data = b"".join(b"%b %b\0%b" % (mode, name, bytes.fromhex(oid)) for mode, name, oid in entries)
    files = put(path, "tree", data)
    root = git(path, "ls-tree", "main").decode().splitlines()
    lines = [line if not line.endswith("\tfiles") else f"040000 tree {files}\tfiles" for line in root]
    tree = git(path, "mktree", "--missing", stdin="\n".join(lines).encode()).decode().strip()
    commit = git(path, "commit-tree", tree, "-m", "0 kata creation").decode().strip()
    git(path, "update-ref", "refs/heads/main", commit)
    git(path, "update-ref", "refs/tags/0", commit)


def test_names_and_modes_of_a_tree(store: Path, mount: MakeMount, mode: str) -> None:
    """Whatever a tree holds, the mount shows plain files and directories that are inside it."""
    path = make_kata(store, "AbCdEf")
    blob = put(path, "blob", b"text\n")
    link = put(path, "blob", b"/etc/passwd")
    inner = put(path, "tree", b"".join(b"100644 %b\0%b" % (name, bytes.fromhex(blob)) for name in (b"..", b"inner")))
    names = (b"..", b".", b"", b"a/b", b"../../up", b"/etc/x", b".git", b"new\nline", b"\x01\x1b[2J\x7f", b"\xff\xfe")
    entries = [(b"100644", name, blob) for name in (*names, b"x" * 255, b"y" * 256)]
    entries += [(b"120000", b"link", link), (b"120777", b"odd link", link), (b"160000", b"submodule", "12" * 20)]
    entries += [(b"104755", b"setuid", blob), (b"020666", b"device", blob), (b"010644", b"pipe", blob)]
    entries += [(b"40000", b"directory", inner), (b"100777", b"all", blob), (b"0", b"none", blob)]
    set_files(path, entries)
    kata = mount(store, mode).kata("AbCdEf")
    for top in (os.fsencode(kata / "files"), os.fsencode(kata / "events/0/files")):
        shown = set(os.listdir(top))
        assert shown >= {b"new\nline", b"\x01\x1b[2J\x7f", b"\xff\xfe", b"x" * 255, b"link", b"setuid", b"directory"}
        assert not shown & {b"..", b".", b"", b"a/b", b".git", b"y" * 256, b"submodule"}
        assert os.listdir(top + b"/directory") == [b"inner"]
        for name in shown:
            status = os.lstat(top + b"/" + name)
            assert stat.S_IMODE(status.st_mode) == (0o555 if name == b"directory" else 0o444)
            assert stat.S_ISREG(status.st_mode) != (name == b"directory")
        assert Path(os.fsdecode(top), "link").read_bytes() == b"/etc/passwd"
    assert (kata / "events/0.json").stat().st_size > 0
    assert (kata / "download.tgz").stat().st_size > 0


def _link(path: Path, to: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)


def _objects(mine: Path, other: Path) -> None:
    _link(mine / "objects", other / "objects")


def _fans(mine: Path, other: Path) -> None:
    for directory in (other / "objects").iterdir():
        if len(directory.name) == 2:
            _link(mine / "objects" / directory.name, directory)


def _loose(mine: Path, other: Path) -> None:
    for file in (other / "objects").glob("??/*"):
        _link(mine / "objects" / file.parent.name / file.name, file)


def _packs(mine: Path, other: Path) -> None:
    git(other.parent, "gc", "-q")
    _link(mine / "objects/pack", other / "objects/pack")


def _one_pack(mine: Path, other: Path) -> None:
    git(other.parent, "gc", "-q")
    for file in (other / "objects/pack").iterdir():
        _link(mine / "objects/pack" / file.name, file)


def _alternates(mine: Path, other: Path) -> None:
    (mine / "objects/info").mkdir(exist_ok=True)
    (mine / "objects/info/alternates").write_text(f"{other}/objects\n")


def _common(mine: Path, other: Path) -> None:
    (mine / "commondir").write_text(f"{other}\n")


def _whole(mine: Path, other: Path) -> None:
    _link(mine, other)


def _file(mine: Path, other: Path) -> None:
    shutil.rmtree(mine)
    mine.write_text(f"gitdir: {other}\n")


WAYS = (_objects, _fans, _loose, _packs, _one_pack, _alternates, _common, _whole, _file)


@pytest.mark.parametrize("way", WAYS)
def test_no_way_to_another_repository(store: Path, mount: MakeMount, way: Callable[[Path, Path], None]) -> None:
    """Its owner may name any commit as his own, but not have its objects read."""
    other = make_kata(store, "ABCDEF", {"secret.txt": SECRET})
    mine = make_kata(store, "GhJkLm")
    way(mine / ".git", other / ".git")
    if (mine / ".git/refs").is_dir() and not (mine / ".git").is_symlink():
        tip = git(other, "rev-parse", "main").decode()
        (mine / ".git/refs/heads/main").write_text(tip)
        (mine / ".git/refs/tags/0").write_text(tip)
    mounted = mount(store)
    mounted.expected_log = "ERROR"
    assert (mounted.kata("ABCDEF") / "files/secret.txt").read_text() == SECRET
    kata = mounted.kata("GhJkLm")
    seen = [path for path in kata.rglob("*") if path.is_file()]
    assert not [path for path in seen if SECRET.encode() in _bytes(path)]
    for name in ("files/secret.txt", "events/0/files/secret.txt", "events/0.json", "download.tgz", "diff/0..0.json"):
        with pytest.raises(OSError):  # noqa: PT011 - ENOENT or EIO
            (kata / name).read_bytes()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_references_that_are_links(store: Path, mount: MakeMount) -> None:
    other = make_kata(store, "ABCDEF", {"secret.txt": SECRET})
    mine = make_kata(store, "GhJkLm")
    _link(mine / ".git/refs/heads", other / ".git/refs/heads")
    mounted = mount(store)
    mounted.expected_log = "ERROR"
    assert os.listdir(mounted.kata("GhJkLm")) == [".git"]
    assert not (mounted.kata("GhJkLm") / ".git/refs/heads/main").exists()


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    with command_line() as started:
        yield started


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_what_another_user_may(cli: CommandLine) -> None:
    """He writes to his kata, not to root's; his messages get him nothing of a kata that he may not read."""
    store = cli.directory / "store"
    mine, other = make_kata(store, "AbCdEf"), make_kata(store, "GhJkLm", {"secret.txt": SECRET})
    subprocess.run(["chown", "-R", "65534:65534", mine], check=True)
    os.chmod(other, 0o700)
    add_event(other, 1, stdout={"content": SECRET})
    cli.mount("--allow-other", "store", "mnt")
    message = json.dumps(
        {"summary": {"revert": ["GhJkLm", 0], "checkout": {"id": "GhJkLm", "index": 1}, "colour": "red"}}
    )
    for name in ("ran_tests", "control/reverted", "control/checked_out"):
        result = cli.as_other("sh", "-c", f"printf %s '{message}' > mnt/Ab/Cd/Ef/{name}; cat mnt/Ab/Cd/Ef/{name}")
        assert "secret" not in result.stdout
    assert int(os.readlink(cli.directory / "mnt/Ab/Cd/Ef/events/latest")) >= 1
    assert cli.as_other("grep", "-r", SECRET.strip(), "mnt/Ab/Cd/Ef/files", "mnt/Ab/Cd/Ef/events").returncode == 1
    assert {path.stat().st_uid for path in mine.rglob("*")} == {65534}, "written by the daemon, as its owner"
    refused = cli.as_other("sh", "-c", f"printf %s '{message}' > mnt/Gh/Jk/Lm/ran_tests")
    assert "Permission denied" in refused.stderr
