"""The daemon goes on whatever a handler raises and whatever happens to a repository; how it ends; no deadlocks."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio

from katafs.errors import DamagedError, KataError, NotFoundError
from katafs.fuse import invalidating
from katafs.fuse.fastopen import FastOpen
from katafs.fuse.operations import Operations
from katafs.kata.record.commit import Committed
from katafs.kata.store import Store
from katafs.tree.catalogue import row_at
from katafs.tree.context import Context
from katafs.tree.dirs import control
from katafs.tree.numbers import Numbers
from katafs.tree.tree import Stale, Tree
from tests.conftest import MODES
from tests.katas import Served, assert_sound, make_kata, message, serve_kata, serving, stored_rows
from tests.mounts import MakeMount, Mount, katafs, patience, wait_until

MESSAGE = json.dumps(message({"a.txt": "a\n"})).encode()
CONTEXT: Any = None  # no handler here looks at who asks


@contextmanager
def running(*programs: tuple[object, ...]) -> Iterator[list[subprocess.Popen[str]]]:
    """Python programs, each with its arguments, that run beside the test and are ended with it."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for program in programs:
            command = [sys.executable, "-c", *map(str, program)]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        yield processes
    finally:
        # all of them, before one is waited for: one may wait for another in the kernel
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate()


# -- what a handler raises


class BrokenTree(Tree):
    """A tree of which every question fails in the same way, from the moment when it is given an error."""

    error: BaseException | None = None

    def __init__(self, store: Path) -> None:
        super().__init__(Context(Store(store)))

    def __getattribute__(self, name: str) -> Any:
        error = object.__getattribute__(self, "__dict__").get("error")
        if error is not None:
            raise error
        return object.__getattribute__(self, name)


HANDLERS: dict[str, Callable[[Operations], Awaitable[object]]] = {
    "lookup": lambda ops: ops.lookup(1, b"a", CONTEXT),
    "getattr": lambda ops: ops.getattr(1, CONTEXT),
    "readlink": lambda ops: ops.readlink(1, CONTEXT),
    "readdir": lambda ops: ops.readdir(1, 0, CONTEXT),
    "open": lambda ops: ops.open(1, os.O_RDONLY, CONTEXT),
    "read": lambda ops: ops.read(1, 0, 10),
    "write": lambda ops: ops.write(1, 0, b"{"),
    "setattr": lambda ops: ops.setattr(1, CONTEXT, CONTEXT, None, CONTEXT),
    "statfs": lambda ops: ops.statfs(CONTEXT),
}


@pytest.mark.parametrize("name", HANDLERS)
@pytest.mark.parametrize(
    ("error", "number"),
    [
        (RuntimeError("odd"), errno.EIO),
        (KeyError("odd"), errno.EIO),
        (RecursionError("odd"), errno.EIO),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"), errno.EIO),
        (OSError(errno.ENOSPC, "odd"), errno.EIO),
        (DamagedError("odd"), errno.EIO),
        (NotFoundError("odd"), errno.ENOENT),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_handler_raises(
    name: str, error: BaseException, number: int, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = BrokenTree(store)
    operations = Operations(tree, FastOpen(None))
    tree.error = error
    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(HANDLERS[name], operations)
    assert caught.value.errno == number
    is_bug = not isinstance(error, KataError)
    assert any(record.exc_info for record in caplog.records) == is_bug, "a traceback for what nobody expected"
    assert ("odd" in caplog.text) == (number == errno.EIO)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Stale]:
    """What the kernel would be told: there is none here."""
    stale: list[Stale] = []
    monkeypatch.setattr(invalidating, "invalidate", stale.append)
    return stale


@contextmanager
def handlers(store: Path) -> Iterator[tuple[Operations, Tree, int]]:
    """The handlers of a mount without a kernel, and the number of a control file."""
    make_kata(store, "AbCdEf")
    tree = Tree(Context(Store(store)))
    yield Operations(tree, FastOpen(None)), tree, Numbers.number(row_at("ran_tests").key("AbCdEf"))


def test_a_failure_of_katafs_itself_in_a_write(
    store: Path, told: list[Stale], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The writer hears EIO, the rest of his message too, and the outcome says so; the next message is recorded."""

    def fail(*_: object, **__: object) -> Committed:
        raise RuntimeError("odd")

    async def run(ops: Operations, number: int) -> None:
        handle = (await ops.open(number, os.O_WRONLY, CONTEXT)).fh
        with monkeypatch.context() as patch:
            patch.setattr(control, "record", fail)
            await ops.write(handle, 0, MESSAGE[:9])
            for _ in range(2):
                with pytest.raises(pyfuse3.FUSEError) as caught:
                    await ops.write(handle, 9, MESSAGE[9:])
                assert caught.value.errno == errno.EIO
        outcome = json.loads(await ops.read(number, 0, 999))
        assert (outcome["ok"], outcome["errno"], outcome["tab_seq"]) == (False, "EIO", None)
        await ops.write(handle, 0, MESSAGE)
        assert json.loads(await ops.read(number, 0, 999))["index"] == 1

    with handlers(store) as (ops, _, number):
        trio.run(run, ops, number)
    assert len(told) == 1
    assert caplog.text.count("RuntimeError: odd") == 1


def test_stopping(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel is being told is waited for; after that it is told nothing, and writes are still recorded."""
    is_told, may_go_on = threading.Event(), threading.Event()
    told: list[Stale] = []

    def invalidate(stale: Stale) -> None:
        told.append(stale)
        is_told.set()
        may_go_on.wait(patience(20))

    async def run(ops: Operations, number: int) -> None:
        handle = (await ops.open(number, os.O_WRONLY, CONTEXT)).fh
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ops.write, handle, 0, MESSAGE)
            await trio.to_thread.run_sync(is_told.wait, patience(20))
            with trio.move_on_after(0.05) as scope:
                await ops.stop()
            assert scope.cancelled_caught, "the kernel has not answered yet"
            may_go_on.set()
            await ops.stop()
        await ops.write(handle, 0, MESSAGE)
        assert json.loads(await ops.read(number, 0, 999))["index"] == 2

    monkeypatch.setattr(invalidating, "invalidate", invalidate)
    with handlers(store) as (ops, _, number):
        trio.run(run, ops, number)
    assert len(told) == 1


# -- repositories that are damaged while they are shown


@pytest.fixture(scope="module", params=MODES)
def served(request: pytest.FixtureRequest, fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount for all tests here, in each mode."""
    with serving(tmp_path_factory.mktemp("served"), request.param) as mount:
        # a handler that fails otherwise, with a traceback, is not expected
        mount.expected_log = r"katafs\.fuse\.answering: \w+: "
        yield mount


DAMAGES = {
    "main is rubbish": "echo rubbish > .git/refs/heads/main",
    "main is cut off": "truncate -s 20 .git/refs/heads/main",
    "main is empty": "truncate -s 0 .git/refs/heads/main",
    "main is nowhere": "echo 1212121212121212121212121212121212121212 > .git/refs/heads/main",
    "main is a blob": "blob=$(git rev-parse HEAD:stdout); echo $blob > .git/refs/heads/main",
    "no main": "rm .git/refs/heads/main",
    "no HEAD": "rm .git/HEAD",
    "config is rubbish": "echo '[core' > .git/config",
    "logs is a file": "rm -r .git/logs; touch .git/logs",
    "no objects": "rm -r .git/objects",
    "objects are empty": "find .git/objects -type f -exec truncate -s 0 {} +",
    "objects are cut off": "find .git/objects -type f -exec truncate -s 30 {} +",
    "no repository": "rm -r .git",
    "a file for a repository": "rm -r .git; echo gitdir: / > .git",
    "no kata": 'rm -r "$PWD"',
}
READS = ("events_summary.json", "files/hiker.py", "events/1.json", "events/1/files/a.txt", "diff/0..1", "download.tgz")


LISTED = (".", "events", "files", "diff", ".git")


def use(kata: Served, fd: int) -> set[int]:
    """Read, list and write all over a kata; the errors."""
    found = set()
    calls: list[Callable[[], object]] = [partial(Path.read_bytes, kata.shown / name) for name in READS]
    calls += [partial(os.listdir, kata.shown / name) for name in LISTED]
    calls += [partial(os.readlink, kata.shown / "events/latest"), partial(kata.ran_tests.write_bytes, MESSAGE)]
    calls += [partial(os.pwrite, fd, MESSAGE, 0), partial(os.pread, fd, 99, 0), partial(os.fstat, fd)]
    for call in calls:
        try:
            call()
        except OSError as error:
            found.add(error.errno or 0)
    return found


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage(served: Mount, damage: str, tmp_path: Path) -> None:
    """Each caller gets an errno, everybody else goes on; and what was mended works again, without a new mount."""
    kata, other = serve_kata(served), serve_kata(served)
    kata.ran_tests.write_bytes(MESSAGE)
    fd = os.open(kata.ran_tests, os.O_RDWR)
    try:
        assert use(kata, fd) == {errno.ENOENT}, "files/hiker.py is gone since event 1"
        shutil.copytree(kata.stored, tmp_path / "saved", symlinks=True)
        subprocess.run(["sh", "-c", damage], cwd=kata.stored, check=True)
        assert use(kata, fd) <= {errno.EIO, errno.ESTALE, errno.ENOENT, errno.EROFS, errno.ENOTDIR}
        other.ran_tests.write_bytes(MESSAGE)
        assert other.accepted() == 1
        if kata.stored.is_dir():
            # its contents only: it stays the same directory
            subprocess.run(["rm", "-rf", ".git"], cwd=kata.stored, check=True)
            shutil.move(tmp_path / "saved/.git", kata.stored)
        else:
            shutil.move(tmp_path / "saved", kata.stored)
        wait_until(lambda: use(kata, fd) == {errno.ENOENT}, "the mended kata", seconds=2.0)
        assert kata.accepted() > 3
    finally:
        os.close(fd)


# -- the end

WRITER = """
import os, sys
path, data = sys.argv[1], sys.argv[2].encode()
fd = os.open(path, os.O_WRONLY)
while True:
    os.pwrite(fd, data, 0)
    print("recorded", flush=True)
"""
READER = """
import itertools, os, sys
for number in itertools.count():
    try:
        os.stat(f"{sys.argv[1]}/nothing{os.getpid()}-{number}")
    except FileNotFoundError:
        print("read", flush=True) if number == 0 else None
"""


def recorded(process: subprocess.Popen[str], lines: int) -> int:
    """How many events a writer was told of, to its end; none of them is lost."""
    assert process.stdout is not None
    assert process.stderr is not None
    # not communicate(), which knows nothing of what was read ahead
    out, err = process.stdout.read(), process.stderr.read()
    assert "Error" in err, "the next write failed"
    return lines + out.count("recorded")


def begin(processes: list[subprocess.Popen[str]], lines: int) -> None:
    """Wait until each has read something, or recorded so many events."""
    for process in processes:
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline() in ("recorded\n", "read\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_write(store: Path, mount: MakeMount, mode: str, number: signal.Signals) -> None:
    """The write is finished and answered, and no other is begun."""
    path = make_kata(store, "AbCdEf")
    mounted = mount(store, mode)
    with running((WRITER, mounted.kata("AbCdEf") / "ran_tests", MESSAGE.decode())) as [writer]:
        begin([writer], 5)
        os.kill(mounted.pid, number)
        assert mounted.process is not None
        assert mounted.process.wait(patience(10)) == 0
        assert assert_sound(path) == recorded(writer, 5)
    assert not os.listdir(mounted.path), "it is unmounted"


def test_a_signal_while_others_read(store: Path, mount: MakeMount, mode: str) -> None:
    """The kernel is being told what to forget, and waits for readers whom nobody would answer any more."""
    path = make_kata(store, "AbCdEf")
    mounted = mount(store, mode)
    kata = mounted.kata("AbCdEf")
    programs = [(READER, kata)] * 4 + [(WRITER, kata / "ran_tests", MESSAGE.decode())] * 3
    with running(*programs) as processes:
        readers, writers = processes[:4], processes[4:]
        begin(readers, 1)
        begin(writers, 5)
        os.kill(mounted.pid, signal.SIGTERM)
        assert mounted.process is not None
        assert mounted.process.wait(patience(5)) == 0
        assert assert_sound(path) == sum(recorded(writer, 5) for writer in writers)


def test_kill_and_mount_again(store: Path, mount: MakeMount, mode: str) -> None:
    path = make_kata(store, "AbCdEf")
    for _ in range(2):
        before = len(stored_rows(path)) - 1
        mounted = mount(store, mode)
        target = mounted.kata("AbCdEf") / "ran_tests"
        with running(*[(WRITER, target, MESSAGE.decode())] * 2) as writers:
            begin(writers, 4)
            mounted.kill()
            count = sum(recorded(writer, 4) for writer in writers)
        katafs("umount", mounted.path)
        # at most one event more was recorded, whose writer was not told
        assert before + count <= len(stored_rows(path)) - 1 <= before + count + 1
        again = mount(store, mode)
        again.expected_log = "was left behind"
        # the lock of one who died is not waited for
        for lock in (path / ".git/refs").rglob("*.lock"):
            os.utime(lock, (1, 1))
        (again.kata("AbCdEf") / "ran_tests").write_bytes(MESSAGE)
        assert assert_sound(path) == len(os.listdir(again.kata("AbCdEf") / "events")) - 2
        assert not again.stop()


# -- deadlocks

CHECKING_READER = """
import json, os, random, sys, time
path, end, count = sys.argv[1], time.monotonic() + float(sys.argv[2]), 0
while time.monotonic() < end:
    events = [int(name) for name in os.listdir(f"{path}/events") if name != "latest"]
    assert sorted(events) == list(range(len(events)))
    assert int(os.readlink(f"{path}/events/latest")) >= max(events)
    index = random.choice(events)
    if index:
        text = open(f"{path}/events/{index}/stdout").read()
        assert os.stat(f"{path}/events/{index}/stdout").st_size == len(text) > 0
        assert open(f"{path}/events/{index}/files/{text}.txt").read() == text * 500
    rows = json.load(open(f"{path}/events_summary.json"))
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert open(f"{path}/events/{len(rows) - 1}/status").read() == "0", "a row that is seen can be read"
    assert not os.path.exists(f"{path}/nothing{count}")
    for name in os.listdir(f"{path}/files"):
        try:
            text = open(f"{path}/files/{name}").read()
        except FileNotFoundError:
            continue
        assert text == text[: len(text) // 500] * 500 or name in ("hiker.py", "cyber-dojo.sh"), text
    open(f"{path}/diff/latest").read() if max(events) else None
    count += 1
print(count)
"""
CHECKED_WRITER = """
import json, os, sys, time
path, name, end, count = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3]), 0
while time.monotonic() < end:
    text = f"{name} {count}"
    files = {f"{text}.txt": {"content": text * 500}}
    data = json.dumps({"files": files, "stdout": {"content": text}, "summary": {"colour": "red"}}).encode()
    with open(path, "wb", buffering=0) as file:
        for at in range(0, len(data), 3000):
            file.write(data[at : at + 3000])
    count += 1
print(count)
"""


@pytest.mark.parametrize("seconds", [2.5, pytest.param(60, marks=pytest.mark.slow)])
def test_readers_and_writers_on_one_kata(served: Mount, seconds: float) -> None:
    kata = serve_kata(served)
    programs = [(CHECKED_WRITER, kata.ran_tests, name, seconds) for name in ("one", "two")]
    counts = []
    with running(*programs, *[(CHECKING_READER, kata.shown, seconds)] * 4) as processes:
        for process in processes:
            out, err = process.communicate(timeout=patience(seconds + 20))
            assert not err
            counts.append(int(out))
    assert all(counts)
    assert sum(counts[:2]) == kata.accepted() > 5
