"""What goes wrong under a daemon: disks, repositories, clocks, and the limits of the operating system."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.git import GitRepo, GitWriter
from katafs.git.refs.locks import STALE_MAIN, _seen
from katafs.git.refs.reading import MAIN
from tests.katas import add_event, assert_sound, git, make_kata
from tests.mount.test_bounds import MIB, big_event, memory, workers
from tests.mounts import MakeMount, Mount, patience, wait_until

MESSAGE = b'{"summary": {"colour": "red"}}'


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def alive(mounted: Mount) -> bool:
    return mounted.process is not None and mounted.process.poll() is None


# -- the store


@pytest.fixture
def read_only_store(store: Path) -> Iterator[Path]:
    if os.getuid() != 0:
        pytest.skip("only root may mount")
    path = make_kata(store, "AbCdEf")
    add_event(path, 1, files={"a.txt": "1\n"})
    subprocess.run(["mount", "--bind", store, store], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
    yield store
    subprocess.run(["umount", "-l", store], check=True)


def test_a_read_only_store(read_only_store: Path, mount: MakeMount, mode: str) -> None:
    kata = mount(read_only_store, mode).kata("AbCdEf")
    for name in ("events/1/files/a.txt", "diff/0..1", "events/1.json", "download.tgz", "files/a.txt"):
        assert (kata / name).read_bytes()
    with pytest.raises(OSError, match="Read-only file system"):
        (kata / "ran_tests").write_bytes(MESSAGE)
    assert os.readlink(kata / "events/latest") == "1"


def test_a_repository_that_vanishes_and_comes_back(store: Path, mount: MakeMount, tmp_path: Path) -> None:
    path = make_kata(store, "AbCdEf")
    add_event(path, 1, files={"a.txt": "1\n"})
    mounted = mount(store)
    mounted.expected_log = "ERROR"
    kata = mounted.kata("AbCdEf")
    with open(kata / "events/1/files/a.txt") as file:
        shutil.copytree(path, tmp_path / "saved", symlinks=True)
        shutil.rmtree(path)
        wait_until(lambda: not kata.exists(), "the end of the kata", 3)
        with pytest.raises(OSError):  # noqa: PT011 - ENOENT or ESTALE
            (kata / "ran_tests").write_bytes(MESSAGE)
        shutil.copytree(tmp_path / "saved", path, symlinks=True)
        wait_until(kata.exists, "the kata", 3)
        assert file.read() == "1\n"
    assert (kata / "events/1/files/a.txt").read_text() == "1\n"
    (kata / "ran_tests").write_bytes(MESSAGE)
    assert assert_sound(path) == 2


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int fails(void) { return access(getenv("KATAFS_TEST_NO_FSYNC"), F_OK) == 0; }
int fsync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fsync"))(fd);
}
int fdatasync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int)) dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


def test_a_store_that_cannot_be_synced(
    store: Path, mount: MakeMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer hears EIO, and nothing is acknowledged; when the disk is well again, so is the kata."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "shim.c").write_text(SHIM)
    command = ["gcc", "-shared", "-fPIC", "-o", f"{tmp_path}/shim.so", f"{tmp_path}/shim.c", "-ldl"]
    subprocess.run(command, check=True)
    trigger = tmp_path / "no-fsync"
    monkeypatch.setenv("KATAFS_TEST_NO_FSYNC", str(trigger))
    path = make_kata(store, "AbCdEf")
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", str(tmp_path / "shim.so"))
        mounted = mount(store)
    mounted.expected_log = "ERROR|WARNING"
    kata = mounted.kata("AbCdEf")
    (kata / "ran_tests").write_bytes(MESSAGE)
    trigger.touch()
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            (kata / "ran_tests").write_bytes(MESSAGE)
    assert b'"ok": false' in (kata / "ran_tests").read_bytes()
    assert os.readlink(kata / "events/latest") == "1"
    trigger.unlink()
    (kata / "ran_tests").write_bytes(MESSAGE)
    assert assert_sound(path) == 2


# -- the clock


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0], ids=["forward", "back"])
def test_a_clock_that_jumps(store: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """A lock that is held for a moment stays, whatever the clock says; one that was left behind goes."""
    path = make_kata(store, "AbCdEf")
    refs = GitWriter(GitRepo(path)).refs
    lock = path / ".git/refs/heads/main.lock"
    now, started = time.time(), time.monotonic()
    shift = 0.0
    monkeypatch.setattr(time, "time", lambda: now + jump)
    monkeypatch.setattr(time, "monotonic", lambda: started + shift)
    for _ in range(3):
        # each by another writer
        lock.touch()
        for _ in range(4):
            refs.locks.unlock(MAIN, STALE_MAIN)
            assert lock.exists()
            shift += 0.2
        lock.unlink()
        refs.locks.unlock(MAIN, STALE_MAIN)
    assert os.fspath(lock) not in _seen
    lock.touch()
    for _ in range(12):
        refs.locks.unlock(MAIN, STALE_MAIN)
        shift += 1
    assert not lock.exists()


# -- limits of the daemon


def test_few_descriptors(store: Path, mount: MakeMount) -> None:
    """EMFILE for a request that needs one, and nothing that stays: no kata is taken for a damaged one."""
    for number in range(16):
        path = make_kata(store, f"AbCdE{number % 10}" if number < 10 else f"AbCd{number}", {"a.txt": f"{number}\n"})
        git(path, "gc", "-q")
    mounted = mount(store)
    mounted.expected_log = "Too many open files"
    katas = sorted(path for path in (mounted.path / "Ab/Cd").iterdir())
    soft, hard = resource.prlimit(mounted.daemon, resource.RLIMIT_NOFILE)
    resource.prlimit(mounted.daemon, resource.RLIMIT_NOFILE, (descriptors(mounted.daemon), hard))
    failed = set()
    for kata in katas:
        for name in ("files/a.txt", "events/0.json", "download.tgz", "ran_tests"):
            try:
                (kata / name).write_bytes(MESSAGE) if name == "ran_tests" else (kata / name).read_bytes()
            except OSError as error:
                failed.add(error.errno)
    assert failed == {errno.EMFILE}
    resource.prlimit(mounted.daemon, resource.RLIMIT_NOFILE, (soft, hard))
    for kata in katas:
        assert (kata / "files/a.txt").read_text()
        (kata / "ran_tests").write_bytes(MESSAGE)


@pytest.mark.slow
def test_little_memory(store: Path, mount: MakeMount) -> None:
    """400 MB of address space, and a huge diff, file and download wanted: answers or errors, and the daemon goes on."""
    path = make_kata(store, "AbCdEf")
    big_event(path, text=b"".join(b"line %d\n" % number for number in range(200_000)), data=os.urandom(20 * MIB))
    mounted = mount(store)
    mounted.expected_log = "ERROR|WARNING"
    resource.prlimit(mounted.daemon, resource.RLIMIT_AS, (400 * MIB, 400 * MIB))
    kata = mounted.kata("AbCdEf")
    names = ["diff/0..1", "diff/0..1.json", "files/data", "files/text", "download.tgz", "events/1.json"] * 4
    readers = [
        subprocess.Popen(["cat", str(kata / name)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for name in names
    ]
    for reader in readers:
        said = reader.communicate(timeout=patience(100))[1].decode()
        assert not said or "File too large" in said or "Cannot allocate memory" in said, said
    assert alive(mounted)
    (kata / "ran_tests").write_bytes(MESSAGE)
    assert (kata / "events/2/status").read_bytes() == b"0"
    assert memory(mounted.daemon) < 400
    wait_until(lambda: not workers(mounted.daemon), "the end of the workers")


MANY = 10_000


def test_many_open_files(store: Path, mount: MakeMount, mode: str) -> None:
    """10,000 descriptors in one client cost the daemon none."""
    path = make_kata(store, "AbCdEf")
    for index in range(1, 4):
        add_event(path, index, files={f"{number}.txt": f"{number} {index}\n" for number in range(5)})
    mounted = mount(store, mode)
    kata = mounted.kata("AbCdEf")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY + 100:
        pytest.skip("so many files may not be opened here")
    before = descriptors(mounted.daemon)
    opened: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        names = [kata / f"events/{number % 3 + 1}/files/{number % 5}.txt" for number in range(MANY)]
        # one by one, so that those that were opened are closed
        opened.extend(os.open(name, os.O_RDONLY) for name in names)
        for number, fd in enumerate(opened):
            assert os.pread(fd, 99, 0) == f"{number % 5} {number % 3 + 1}\n".encode()
        assert descriptors(mounted.daemon) < before + 20
    finally:
        for fd in opened:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert descriptors(mounted.daemon) < before + 20


@pytest.mark.slow
def test_many_readers(store: Path, mount: MakeMount, mode: str) -> None:
    """2,000 threads that read at the same time, quick things and slow ones: right, or EAGAIN."""
    path = make_kata(store, "AbCdEf")
    for index in range(1, 30):
        add_event(path, index, files={"a.txt": f"{index}\n", "b.txt": "b\n" * index})
    mounted = mount(store, mode)
    kata = mounted.kata("AbCdEf")
    before = descriptors(mounted.daemon)
    wrong: list[object] = []
    right: list[int] = []
    barrier = threading.Barrier(2000)

    def read(number: int) -> None:
        index = number % 29 + 1
        barrier.wait(patience(60))
        try:
            if (kata / f"events/{index}/files/a.txt").read_text() != f"{index}\n":
                wrong.append(index)
            name = (f"diff/{index - 1}..{index}", "download.tgz", f"events/{index}.json", f"diff/0..{index}.json")
            assert (kata / name[number % 4]).read_bytes()
            right.append(number)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                wrong.append(error)

    threading.stack_size(256 << 10)
    try:
        threads = [threading.Thread(target=read, args=(number,)) for number in range(2000)]
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(0)
    for thread in threads:
        thread.join(patience(100))
    assert not wrong
    assert len(right) > 1000
    assert descriptors(mounted.daemon) < before + 60
