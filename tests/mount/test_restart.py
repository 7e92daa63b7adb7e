"""The daemon may die: the next one answers, and no client notices. `tests.benchmarks.restarts` does it 1,000 times."""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.katas import Served, add_event, assert_sound, git, message, serve_kata, serving, stored_rows
from tests.mounts import DEADLINE, Mount, patience, wait_until
from tests.restarts import EXPECTED, MESSAGE, calling, is_waiting, kill


@pytest.fixture(scope="module")
def kept(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount that is kept alive."""
    with serving(tmp_path_factory.mktemp("restart"), "fast") as mount:
        mount.expected_log = f"{EXPECTED}|sent? it again|the daemon died while"
        yield mount


# -- readers


def test_a_read_that_was_not_taken_yet(kept: Mount) -> None:
    kata = serve_kata(kept, {"a.txt": "text\n"})
    assert kept.daemon != kept.pid, "somebody else keeps it alive"
    os.kill(kept.daemon, signal.SIGSTOP)
    with calling((kata.shown / "files/a.txt").read_text) as read:
        wait_until(is_waiting, "the request")
        kill(kept)
        assert read.result(patience(DEADLINE)) == "text\n"


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
        assert read.result(patience(DEADLINE)).count(b"\n") > 50_000
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
        assert write.result(patience(DEADLINE)) == len(MESSAGE)


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
        assert write.result(patience(DEADLINE)) == len(data)
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
        assert write.result(patience(DEADLINE)) == 4
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
        assert sum(writer.result(patience(DEADLINE)) for writer in writers) == assert_sound(kata.stored)
        assert all(reader.result(patience(DEADLINE)) for reader in readers)
