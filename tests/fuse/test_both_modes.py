"""What must be so however the kernel opens files: bytes by every way to read, and nothing stale, nor anybody stuck."""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.katas import Served, assert_sound, git, message, serve_kata
from tests.mount.test_bounds import big_event
from tests.mounts import Mount, patience, wait_until

MIB = 1 << 20
_ALIGNED = 4096


@pytest.fixture
def kata(served: Mount) -> Served:
    return serve_kata(served, {"a.txt": "a\n"})


# -- ways to read


def by_mapping(access: int) -> Callable[[Path], bytes]:
    def read(path: Path) -> bytes:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, flags=access, prot=mmap.PROT_READ) as data:
            return bytes(data)

    return read


def by_sendfile(path: Path) -> bytes:
    target = os.memfd_create("read")
    try:
        with path.open("rb") as file:
            while os.sendfile(target, file.fileno(), None, 70_001):
                pass
        return os.pread(target, os.fstat(target).st_size, 0)
    finally:
        os.close(target)


def by_splice(path: Path) -> bytes:
    reader, writer = os.pipe()
    parts = []
    try:
        with path.open("rb") as file:
            while count := os.splice(file.fileno(), writer, 65536):
                parts.append(os.read(reader, count))
        return b"".join(parts)
    finally:
        os.close(reader)
        os.close(writer)


def directly(path: Path) -> bytes:
    """O_DIRECT: past the kernel's pages."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    parts = []
    try:
        with mmap.mmap(-1, 64 * _ALIGNED) as buffer:
            at = 0
            while count := os.preadv(fd, [buffer], at):
                parts.append(buffer[:count])
                at += count
        return b"".join(parts)
    finally:
        os.close(fd)


def backwards(path: Path) -> bytes:
    """In pieces from the end, so that no reading ahead helps."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        parts = [os.pread(file.fileno(), 5_000, at) for at in range(0, size, 5_000)[::-1]]
    return b"".join(parts[::-1])


def by_descriptor_of_another(path: Path) -> bytes:
    with path.open("rb") as file:
        return subprocess.run(["cat"], stdin=file, capture_output=True, check=True).stdout


READING: dict[str, Callable[[Path], bytes]] = {
    "mmap, shared": by_mapping(mmap.MAP_SHARED),
    "mmap, private": by_mapping(mmap.MAP_PRIVATE),
    "sendfile": by_sendfile,
    "splice": by_splice,
    "O_DIRECT": directly,
    "backwards": backwards,
    "an inherited descriptor": by_descriptor_of_another,
}


@pytest.fixture(scope="module")
def large(served: Mount) -> tuple[Served, dict[str, bytes]]:
    """A kata with files of many sizes: what is in them, by path. Each way to read finds them unread."""
    kata = serve_kata(served)
    sizes = (1, 4096, 4097, 131_073, MIB + 1)
    git(kata.stored, "config", "core.compression", "0")
    files: dict[str, bytes] = {}
    for number in range(1, len(READING) + 1):
        contents = {f"f{size}": random.Random(size + number).randbytes(size) for size in sizes}
        big_event(kata.stored, **contents)
        files |= {f"events/{number}/files/{name}": data for name, data in contents.items()}
    return kata, files


@pytest.mark.parametrize(("number", "way"), list(enumerate(READING.values(), 1)), ids=READING)
def test_ways_to_read(large: tuple[Served, dict[str, bytes]], number: int, way: Callable[[Path], bytes]) -> None:
    """Unread, and read before; also what is made when it is asked for."""
    kata, files = large
    for _ in range(2):
        for path, data in files.items():
            if path.startswith(f"events/{number}/"):
                assert way(kata.shown / path) == data, path
    for name in ("events_summary.json", f"diff/{number - 1}..{number}.summary.json", "history", "ran_tests"):
        said = way(kata.shown / name)
        assert said == (kata.shown / name).read_bytes(), name
        assert len(said) == (kata.shown / name).stat().st_size > 0


# -- nothing stale


def awaited_names(index: int) -> list[str]:
    """What is there from event ``index`` on, and was not before."""
    before = index - 1
    return [
        f"events/{index}",
        f"events/{index}.json",
        f"events/{index}/files/new{index}.txt",
        f"files/new{index}.txt",
        f"files/sub{index}/below.txt",
        f"diff/{before}..{index}",
        f"diff/{before}..{index}.json",
        f"diff/{index}..0",
        f"html/{before}..{index}.html",
    ]


@pytest.mark.parametrize("by", ["this process", "another"])
def test_names_that_were_looked_up_before(kata: Served, by: str) -> None:
    """By whoever looks first, and as often as he likes: there at once."""
    for index in range(1, 11):
        names = awaited_names(index)
        for name in names * 3:
            assert not os.path.lexists(kata.shown / name), name
        for directory in ("events", "diff", "files", "html"):
            os.listdir(kata.shown / directory)
        files = {"a.txt": f"{index}\n", f"new{index}.txt": "new\n", f"sub{index}/below.txt": "below\n"}
        data = json.dumps(message(files, index=index)).encode()
        if by == "another":
            subprocess.run(["sh", "-c", 'cat > "$1"', "sh", kata.ran_tests], input=data, check=True)
        else:
            kata.ran_tests.write_bytes(data)
        assert [name for name in names if not os.path.lexists(kata.shown / name)] == []
        listed = {name for directory in ("events", "files") for name in os.listdir(kata.shown / directory)}
        assert {str(index), f"new{index}.txt", f"sub{index}"} <= listed
        assert os.readlink(kata.shown / "events/latest") == str(index)


def test_a_mapping_of_what_changes(kata: Served) -> None:
    """Whoever has mapped a file at the tip goes on seeing what he mapped; whoever maps it anew sees what is new."""
    for index in range(1, 6):
        path = kata.shown / "files/a.txt"
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            before = bytes(mapped)
            kata.ran_tests.write_text(json.dumps(message({"a.txt": f"{index}" * index}, index=index)))
            assert bytes(mapped) == before
        assert by_mapping(mmap.MAP_SHARED)(path) == f"{index}".encode() * index


# -- writers

WRITER = """
import json, os, sys
path, name, count, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for number in range(count):
    summary = {"colour": "red", "by": f"{name} {number}"}
    data = json.dumps({"summary": summary, "stdout": {"content": name * 99}}).encode()
    fd = os.open(path, os.O_WRONLY | [os.O_TRUNC, os.O_APPEND][number % 2])
    while data:
        data = data[os.write(fd, data[:size]):]
    os.close(fd)
"""


def test_writers_of_all_kinds_at_once(kata: Served) -> None:
    """Whole and in pieces, with O_TRUNC and O_APPEND, from threads and from other pid namespaces: all are recorded."""
    clients = []
    for number, size in enumerate((1 << 20, 100, 7)):
        command = [sys.executable, "-c", WRITER, str(kata.ran_tests), f"own{number}", "4", str(size)]
        clients += [subprocess.Popen(command)]
        apart = [*command[:4], f"apart{number}", *command[5:]]
        clients += [subprocess.Popen(["unshare", "--pid", "--fork", *apart])]

    def write(name: str) -> None:
        for number in range(4):
            data = json.dumps({"summary": {"colour": "red", "by": f"{name} {number}"}}).encode()
            fd = os.open(kata.ran_tests, os.O_WRONLY | os.O_TRUNC)
            for at in range(0, len(data), 11):
                os.write(fd, data[at : at + 11])
            os.close(fd)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, ["thread0", "thread1", "thread2"]))
    assert [client.wait(patience(60)) for client in clients] == [0] * 6
    rows = json.loads((kata.shown / "events_summary.json").read_bytes())
    names = [f"{kind}{number}" for kind in ("own", "apart", "thread") for number in range(3)]
    expected = [f"{name} {number}" for name, number in itertools.product(names, range(4))]
    assert sorted(row["by"] for row in rows[1:]) == sorted(expected)
    assert assert_sound(kata.stored) == len(expected)


# -- nobody is stuck


def test_invalidations_beside_everything(kata: Served) -> None:
    """Commits that make the kernel forget, while others look those very names up, list, map and truncate them, and
    while the control file itself is read: everybody is answered."""
    stop = threading.Event()
    done: list[int] = []

    def repeat(work: Callable[[], object]) -> None:
        count = 0
        while not stop.is_set():
            work()
            count += 1
        done.append(count)

    def look() -> None:
        newest = os.readlink(kata.shown / "events/latest")
        for name in ("files/a.txt", "stdout", f"events/{int(newest) + 1}", "files/nothing", "event.json"):
            os.path.lexists(kata.shown / name)

    def enumerate_all() -> None:
        for directory in ("", "events", "files", "diff", "control"):
            for entry in os.scandir(kata.shown / directory):
                entry.stat(follow_symlinks=False)

    def read_outcome() -> None:
        with kata.ran_tests.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # by the next writer it may be cut off under us, which is what a mapping is like
            with contextlib.suppress(ValueError), mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ) as mapped:
                assert len(mapped) == size

    def truncate() -> None:
        os.truncate(kata.shown / "control/ran_tests", 0)

    works = [look, look, enumerate_all, read_outcome, truncate]
    threads = [threading.Thread(target=repeat, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        for index in range(1, 31):
            command = ["timeout", "20", "sh", "-c", 'cat > "$1"', "sh", str(kata.ran_tests)]
            data = json.dumps(message({"a.txt": f"{index}\n"}, index=index)).encode()
            assert subprocess.run(command, input=data, check=False).returncode == 0
            assert os.readlink(kata.shown / "events/latest") == str(index)
    finally:
        stop.set()
    wait_until(lambda: len(done) == len(works), "the end of all readers")
    assert min(done) > 0
