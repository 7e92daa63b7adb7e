"""The daemon may die: the next one answers, and no client notices. `tests.benchmarks.restarts` does it 1,000 times."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from katafs.fuse.keeper import GIVE_UP_DEATHS
from tests.katas import Served, add_event, assert_sound, git, make_kata, message, serve_kata, serving, stored_rows
from tests.mounts import DEADLINE, MakeMount, Mount, command_line, daemon_of, katafs, wait_until

MESSAGE = json.dumps(message({"a.txt": "a\n"})).encode()
EXPECTED = "the daemon has died|was left behind"


@pytest.fixture(scope="module")
def kept(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount that is kept alive."""
    with serving(tmp_path_factory.mktemp("restart"), "fast") as mount:
        mount.expected_log = f"{EXPECTED}|sent? it again|the daemon died while"
        yield mount


def kill(mount: Mount) -> int:
    """kill -9 to the daemon; the number it had."""
    wait_until(lambda: mount.daemon, "a daemon")
    pid = mount.daemon
    os.kill(pid, signal.SIGKILL)
    return pid


@contextmanager
def calling(call: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Make a call in a thread. It is not waited for when the test fails: nobody may answer it."""
    pool = ThreadPoolExecutor(1)
    try:
        yield pool.submit(call)
    finally:
        pool.shutdown(wait=False)


def is_waiting() -> bool:
    """Whether a thread of ours waits for the answer to a FUSE request, in the kernel's function of this name."""
    for wchan in Path("/proc/self/task").glob("*/wchan"):
        with suppress(OSError):
            if "request_wait_answer" in wchan.read_text():
                return True
    return False


# -- readers


def test_a_read_that_was_not_taken_yet(kept: Mount) -> None:
    kata = serve_kata(kept, {"a.txt": "text\n"})
    assert kept.daemon != kept.pid, "somebody else keeps it alive"
    os.kill(kept.daemon, signal.SIGSTOP)
    with calling((kata.shown / "files/a.txt").read_text) as read:
        wait_until(is_waiting, "the request")
        kill(kept)
        assert read.result(DEADLINE) == "text\n"


def test_a_read_under_way(kept: Mount) -> None:
    """A diff that takes long is taken, and its daemon dies."""
    lines = [str(number * 7919 % 50021) for number in range(50_000)]
    kata = serve_kata(kept, {"a.txt": "\n".join(lines)})
    add_event(kata.stored, 1, files={"a.txt": "\n".join(reversed(lines))})
    os.listdir(kata.shown / "diff")
    with calling((kata.shown / "diff/0..1").read_bytes) as read:
        wait_until(is_waiting, "the request")
        time.sleep(0.01)
        assert not read.done()
        before = kill(kept)
        assert read.result(DEADLINE).count(b"\n") > 50_000
    assert kept.daemon not in (0, before)


def test_a_listing_under_way(kept: Mount) -> None:
    kata = serve_kata(kept)
    for index in range(1, 60):
        add_event(kata.stored, index)
    with os.scandir(kata.shown / "events") as entries:
        names = [next(entries).name]
        kill(kept)
        names += [entry.name for entry in entries]
    assert sorted(names) == sorted(["latest", *map(str, range(60))])


def test_open_files_and_working_directories_go_on(kept: Mount) -> None:
    text = "".join(f"{number}\n" for number in range(300_000))
    kata = serve_kata(kept, {"a.txt": text})
    with open(kata.shown / "files/a.txt") as file:
        directory = os.open(kata.shown / "events", os.O_PATH)
        begin = file.read(10)
        kill(kept)
        assert begin + file.read() == text
        assert os.listdir(f"/proc/self/fd/{directory}") == ["latest", "0"]
        os.close(directory)


# -- writers


def write_across(kept: Mount, kata: Served, lock: str, until: Callable[[], object]) -> None:
    """Write a message that gets as far as a lock, which is held, lets it; kill the daemon there."""
    path = kata.stored / ".git" / lock
    path.write_text("")
    with calling(lambda: kata.ran_tests.write_bytes(MESSAGE)) as write:
        wait_until(until, "the write")
        kill(kept)
        path.unlink()
        assert write.result(DEADLINE) == len(MESSAGE)


def test_a_write_that_was_recorded_is_not_recorded_again(kept: Mount) -> None:
    """The branch has been moved, the tag not yet made."""
    kata = serve_kata(kept)
    assert not (kata.shown / "files/a.txt").exists()
    main = git(kata.stored, "rev-parse", "main")
    write_across(kept, kata, "refs/tags/1.lock", lambda: git(kata.stored, "rev-parse", "main") != main)
    assert "was recorded already" in kept.log_text()
    commit = git(kata.stored, "rev-parse", "main").decode().strip()
    assert json.loads(kata.ran_tests.read_text())["commit"] == commit
    assert (kata.shown / "files/a.txt").read_text() == "a\n", "visible at once"
    assert assert_sound(kata.stored) == kata.accepted()
    assert kata.accepted() == len(stored_rows(kata.stored)) - 1 <= 2
    assert [row["type"] for row in stored_rows(kata.stored)].count("test") == 1


def test_a_write_that_was_not_recorded_is_recorded(kept: Mount) -> None:
    """The commit is there, and announced; the branch has not been moved."""
    kata = serve_kata(kept)
    objects = set((kata.stored / ".git/objects").rglob("*"))
    write_across(
        kept, kata, "refs/heads/main.lock", lambda: len(set((kata.stored / ".git/objects").rglob("*")) - objects) > 1
    )
    assert [row["type"] for row in stored_rows(kata.stored)].count("test") == 1
    assert assert_sound(kata.stored) == kata.accepted()


def test_a_number_that_is_given_is_not_late(kept: Mount) -> None:
    kata = serve_kata(kept)
    main = git(kata.stored, "rev-parse", "main")
    lock = kata.stored / ".git/refs/tags/1.lock"
    lock.write_text("")
    data = json.dumps(message(index=1)).encode()
    with calling(lambda: kata.ran_tests.write_bytes(data)) as write:
        wait_until(lambda: git(kata.stored, "rev-parse", "main") != main, "the commit")
        kill(kept)
        lock.unlink()
        assert write.result(DEADLINE) == len(data)
    assert json.loads(kata.ran_tests.read_text())["index"] == 1


def test_an_option_under_way(kept: Mount) -> None:
    kata = serve_kata(kept)
    option = kata.shown / "config/theme"
    lock = kata.stored / ".git/refs/heads/main.lock"
    lock.write_text("")
    with calling(lambda: option.write_text("dark")) as write:
        wait_until(is_waiting, "the request")
        kill(kept)
        lock.unlink()
        assert write.result(DEADLINE) == 4
    assert option.read_text() == "dark\n"
    assert git(kata.stored, "rev-list", "--count", "main") == b"2\n"


def test_the_rest_of_a_message_whose_beginning_has_died(kept: Mount) -> None:
    kata = serve_kata(kept)
    fd = os.open(kata.ran_tests, os.O_WRONLY)
    try:
        os.write(fd, MESSAGE[:20])
        kill(kept)
        with pytest.raises(OSError, match="Input/output error") as caught:
            os.write(fd, MESSAGE[20:])
        assert caught.value.errno == errno.EIO
        outcome = json.loads(kata.ran_tests.read_text())
        assert (outcome["ok"], outcome["errno"]) == (False, "EIO")
        assert "died" in outcome["message"]
        with pytest.raises(OSError, match="Input/output error"):
            os.write(fd, MESSAGE[20:])
        assert os.pwrite(fd, MESSAGE, 0) == len(MESSAGE), "the same descriptor can be used again"
    finally:
        os.close(fd)
    assert assert_sound(kata.stored) == kata.accepted()


def test_a_rest_that_looks_like_a_message_is_refused_too(kept: Mount) -> None:
    kata = serve_kata(kept)
    with open(kata.ran_tests, "ab", buffering=0) as file:
        file.write(b'{"files": ')
        kill(kept)
        with pytest.raises(OSError, match="Input/output error"):
            file.write(MESSAGE)
    assert len(stored_rows(kata.stored)) == 1


@pytest.mark.parametrize("position", ["truncated", "from the start", "from the start, appending"])
def test_who_starts_afresh_is_not_refused(kept: Mount, position: str) -> None:
    kata = serve_kata(kept)
    fd = os.open(kata.ran_tests, os.O_WRONLY | (os.O_APPEND if "appending" in position else 0))
    try:
        os.write(fd, MESSAGE[:20])
        kill(kept)
        if position != "from the start":
            os.ftruncate(fd, 0)
        assert os.pwrite(fd, MESSAGE, 0) == len(MESSAGE)
    finally:
        os.close(fd)
    assert assert_sound(kata.stored) == kata.accepted()


# -- a daemon that cannot end

SLOW = """
import os, sys, trio
from katafs.cli import main
from katafs.fuse import fastopen
load = fastopen.load

def load_and_change(**wanted):
    loaded = load(**wanted)
    from katafs.fuse.operations import Operations
    real = Operations.lookup
    async def lookup(self, parent, name, ctx):
        while name == b"slow" and os.path.exists(sys.argv[1]):
            await trio.sleep(0.01)
        return await real(self, parent, name, ctx)
    Operations.lookup = lookup
    return loaded

fastopen.load = load_and_change
main(["mount", "--log-file=log", *sys.argv[2:], "store", "mnt"])
"""


def is_telling(pid: int) -> bool:
    """Whether a thread of a process waits in write(2) or writev(2), uninterruptibly."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            if ") D " in (task / "stat").read_text() and (task / "syscall").read_text().split()[0] in ("1", "20"):
                return True
    return False


@pytest.mark.parametrize("option", ["--log-level=info", "--no-keep-alive"])
def test_a_daemon_that_cannot_end_because_the_kernel_waits_for_it(fuse: None, option: str) -> None:
    """It was telling the kernel what to forget in a directory, where a name was being looked up: the kernel waits for
    the answer to that, and the dead daemon for the kernel."""
    with command_line() as cli:
        path = make_kata(cli.directory / "store", "AbCdEf")
        slow = cli.directory / "slow"
        slow.touch()
        assert cli.python(SLOW, slow, option).returncode == 0
        (pid,) = cli.daemons()
        shown = cli.directory / "mnt/Ab/Cd/Ef"
        os.listdir(shown)
        daemon = daemon_of(pid)
        with calling(partial(os.stat, shown / "slow")) as lookup:
            wait_until(is_waiting, "the request")
            with calling(lambda: (cli.directory / "mnt/Ab/Cd/Ef/ran_tests").write_bytes(MESSAGE)) as write:
                wait_until(lambda: is_telling(daemon), "a thread that waits for the kernel")
                os.kill(daemon, signal.SIGKILL)
                if option == "--no-keep-alive":
                    for call in (lookup, write):
                        assert isinstance(call.exception(DEADLINE), OSError), "they hear of it"
                else:
                    slow.unlink()
                    assert isinstance(lookup.exception(DEADLINE), FileNotFoundError)
                    assert write.result(DEADLINE) == len(MESSAGE)
                    assert "has died (killed)" in (cli.directory / "log").read_text()
        assert assert_sound(path) == 1
        wait_until(lambda: not Path(f"/proc/{daemon}").exists(), "its end")
        cli.done("umount", "mnt")


# -- how it ends


def ended(mount: Mount) -> int:
    """The exit status of the process that was started; all that it started has ended too."""
    assert mount.process is not None
    status = mount.process.wait(DEADLINE)
    assert not os.listdir(mount.path), "it is unmounted"
    return status


def test_it_is_given_up_when_the_daemon_dies_again_and_again(store: Path, mount: MakeMount) -> None:
    make_kata(store, "AbCdEf")
    mounted = mount(store)
    mounted.expected_log = f"{EXPECTED}|given up"
    assert mounted.process is not None
    while mounted.process.poll() is None:
        with suppress(ProcessLookupError):
            if daemon := mounted.daemon:
                os.kill(daemon, signal.SIGKILL)
    assert ended(mounted) == 1
    assert f"has died {GIVE_UP_DEATHS} times within 6 seconds; the last time: SIGKILL" in mounted.log_text()


@pytest.mark.parametrize("how", ["the daemon", "katafs umount", "fusermount3"])
def test_what_is_ended_on_purpose_stays_so(store: Path, mount: MakeMount, how: str) -> None:
    make_kata(store, "AbCdEf")
    mounted = mount(store)
    os.listdir(mounted.kata("AbCdEf"))
    if how == "the daemon":
        os.kill(mounted.daemon, signal.SIGTERM)
    elif how == "katafs umount":
        katafs("umount", mounted.path)
    else:
        subprocess.run(["fusermount3", "-u", mounted.path], check=True)
    assert ended(mounted) == 0
    assert "has died" not in mounted.log_text()


def test_who_keeps_it_alive_is_killed(store: Path, mount: MakeMount) -> None:
    """The daemon goes on; it unmounts when it ends."""
    path = make_kata(store, "AbCdEf")
    mounted = mount(store)
    mounted.expected_log = "keeps the mount alive has gone"
    assert mounted.process is not None
    daemon = mounted.daemon
    mounted.process.kill()
    mounted.process.wait(DEADLINE)
    (mounted.kata("AbCdEf") / "ran_tests").write_bytes(MESSAGE)
    assert assert_sound(path) == 1
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: not os.path.ismount(mounted.path), "the unmount")
    assert not os.listdir(mounted.path)


def test_without_being_kept_alive(store: Path, mount: MakeMount) -> None:
    """Who waits hears of it; and mounting again is enough."""
    make_kata(store, "AbCdEf")
    mounted = mount(store, options=("--no-keep-alive",))
    assert mounted.daemon == mounted.pid
    wait_until(lambda: "will not outlive the daemon: --no-keep-alive was given" in mounted.log_text(), "the reason")
    os.kill(mounted.pid, signal.SIGSTOP)
    with calling(lambda: os.listdir(mounted.kata("AbCdEf"))) as listing:
        wait_until(is_waiting, "the request")
        mounted.kill()
        with pytest.raises(OSError, match=r"not connected|abort"):
            listing.result(DEADLINE)
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mounted.path)
    mounted.log.unlink()
    again = mount(store, path=mounted.path)
    assert "events" in os.listdir(again.kata("AbCdEf"))


def test_without_the_fast_mode(store: Path, mount: MakeMount) -> None:
    mounted = mount(store, mode="slower")
    assert mounted.daemon == mounted.pid
    wait_until(lambda: "will not outlive the daemon: that needs the fast mode" in mounted.log_text(), "the reason")


# -- all at once


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_readers_and_writers_across_deaths(kept: Mount, kills: int) -> None:
    kata = serve_kata(kept, {"a.txt": "same\n"})
    stop = threading.Event()

    def write() -> int:
        count = 0
        while not stop.is_set():
            assert kata.ran_tests.write_bytes(json.dumps(message()).encode())
            count += 1
        return count

    def read() -> int:
        count = 0
        while not stop.is_set():
            assert (kata.shown / "events/0/files/a.txt").read_text() == "same\n"
            rows = json.loads((kata.shown / "events_summary.json").read_text())
            assert [row["index"] for row in rows] == list(range(len(rows)))
            assert not (kata.shown / f"nothing{count}").exists()
            count += 1
        return count

    with ThreadPoolExecutor(6) as pool:
        writers = [pool.submit(write) for _ in range(3)]
        readers = [pool.submit(read) for _ in range(3)]
        for _ in range(kills):
            stop.wait(0.55)  # more often, and it would be given up
            kill(kept)
        stop.set()
        assert sum(writer.result(DEADLINE) for writer in writers) == assert_sound(kata.stored)
        assert all(reader.result(DEADLINE) for reader in readers)
