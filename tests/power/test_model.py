"""The model itself, on traces that are made by hand; and the recorder, on a program whose calls are known."""

from __future__ import annotations

import os
from pathlib import Path

from tests.power.disk import Disk, Tree, read_tree
from tests.power.trace import Call, acknowledge, can_trace, parse, python, record

_ROOT = b"/store"


def states(tmp_path: Path, *steps: tuple[object, ...]) -> list[Tree]:
    """What may be left after the last of some calls, on a disk that was empty: (kind, path, more)."""
    disk = Disk(tmp_path)
    disk.path = _ROOT
    for number, (kind, path, *more) in enumerate(steps):
        named = dict(more[0]) if more and isinstance(more[0], dict) else {}
        disk.do(Call(number, number, str(kind), _ROOT + str(path).encode(), **named))
    found: list[Tree] = []
    for left in disk.one_deviation(len(steps)):
        tree = left.tree(disk.root)
        if tree not in found:
            found.append(tree)
    return found


MAKE = {"flags": frozenset(("O_CREAT", "O_WRONLY"))}


def test_a_new_file(tmp_path: Path) -> None:
    data = bytes(5000)
    written = (("open", "/a", MAKE), ("write", "/a", {"data": data}))
    found = states(tmp_path, *written)
    assert found[0] == {b"a": data}
    assert {frozenset(tree.items()) for tree in found[1:]} == {
        frozenset(()),
        frozenset(((b"a", b""),)),
        frozenset(((b"a", data[:4096]),)),
    }
    # its name is not on the disk with it
    assert states(tmp_path, *written, ("sync", "/a")) == [{b"a": data}, {}]
    assert {b"a": b""} in states(tmp_path, *written, ("sync", ""))
    assert states(tmp_path, *written, ("sync", "/a"), ("sync", "")) == [{b"a": data}]


def test_a_rename_that_others_rest_on(tmp_path: Path) -> None:
    made = (("mkdir", "/x"), ("mkdir", "/y"), ("sync", ""))
    moved = (*made, ("rename", "/x", {"other": b"/store/z"}), ("rename", "/y", {"other": b"/store/z/y"}))
    found = states(tmp_path, *moved)
    # in their order or not, each whole or not at all
    assert {b"x": None, b"y": None} in found
    assert {b"z": None, b"y": None} in found
    assert {b"x": None, b"x/y": None} in found
    assert len(found) == 4
    assert states(tmp_path, *moved, ("sync", "")) == found[:1]


def test_a_sync_that_began_before(tmp_path: Path) -> None:
    """Of what was done meanwhile it says nothing."""
    disk = Disk(tmp_path)
    disk.path = _ROOT
    disk.do(Call(2, 2, "mkdir", b"/store/a"))
    disk.do(Call(3, 1, "sync", b"/store"))
    assert {} in [left.tree(disk.root) for left in disk.one_deviation(3)]
    disk.do(Call(5, 4, "sync", b"/store"))
    assert {} not in [left.tree(disk.root) for left in disk.one_deviation(5)]


def hexed(data: bytes) -> str:
    """Bytes as strace writes them."""
    return "".join(f"\\x{byte:02x}" for byte in data)


def test_what_strace_writes() -> None:
    fuse, mark = hexed(b"/dev/fuse"), hexed(b"/acknowledged/mount:A")
    # its length, no error, and the number of the request
    answer = hexed(bytes([16, *bytes(7), 1, *bytes(7)]))
    lines = [
        f'7 mkdir("{hexed(b"/s/a")}", 0777)       = 0',
        f"7 fsync(3<{hexed(b'/s')}> <unfinished ...>",
        f'8 mkdirat(3<{hexed(b"/s")}>, "{hexed(b"b")}", 0777) = -1 EEXIST (File exists)',
        f'8 writev(9<{fuse}>, [{{iov_base="{answer}", iov_len=16}}], 1) = 16',
        "7 <... fsync resumed>)              = 0",
        f'7 access("{mark}", F_OK) = -1 ENOENT (No such file or directory)',
    ]
    assert list(parse(lines, b"/s")) == [
        Call(1, 1, "mkdir", b"/s/a"),
        Call(5, 2, "sync", b"/s"),
        # heard of when the daemon answered
        Call(6, 4, "mark", b"mount:A"),
    ]


def all_calls(path: Path) -> None:
    """Change a directory in each of the ways that are in the model."""
    directory = os.open(path, os.O_RDONLY)
    unnamed = os.open(path, os.O_TMPFILE | os.O_WRONLY)
    os.write(unnamed, b"without a name, at first")
    os.link(f"/proc/self/fd/{unnamed}", path / "named", src_dir_fd=unnamed, follow_symlinks=True)
    os.write(unnamed, b", and more")
    os.mkdir("grüße >", dir_fd=directory)
    with open(path / "grüße >/a b", "w+b") as file:
        file.write(b"0123456789")
        file.seek(3)
        assert file.read(2) == b"34"
        file.write(b"xy")
    with open(path / "grüße >/a b", "ab") as file:
        file.write(b"end")
        file.flush()
        file.truncate(12)
    os.truncate(path / "named", 40)
    os.link(path / "named", path / "linked")
    os.rename("named", "renamed", src_dir_fd=directory, dst_dir_fd=directory)
    os.replace(path / "renamed", path / "grüße >/a b")
    os.symlink("nowhere", path / "symbolic")
    os.mkdir(path / "gone")
    os.rmdir(path / "gone")
    os.unlink("linked", dir_fd=directory)
    fd = os.open(path / "last", os.O_CREAT | os.O_RDWR)
    os.pwrite(fd, b"far", 5)
    os.writev(fd, [b"a", b"bc"])
    os.fdatasync(fd)
    os.fsync(directory)
    acknowledge("all of it")


def test_recorded(tmp_path: Path) -> None:
    """What was recorded, done again, is what is there."""
    can_trace()
    path = (tmp_path / "changed").resolve()
    path.mkdir()
    disk = Disk(path)
    calls = record(path, python("tests.power.test_model", path))
    for call in calls:
        disk.do(call)
    found = disk.whole().tree(disk.root)
    assert found == read_tree(path)
    assert len(found) == 4
    assert calls[-1].path == b"all of it"


if __name__ == "__main__":
    import sys

    all_calls(Path(sys.argv[1]))
