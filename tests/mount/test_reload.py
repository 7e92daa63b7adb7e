"""``katafs reload``: new code under a living mount. And what a supervisor is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import katafs
from tests.katas import assert_sound, make_kata, message
from tests.mounts import DEADLINE, CommandLine, children, command_line, daemon_of, patience, wait_until

PACKAGE = Path(katafs.__file__).parent
MESSAGE = json.dumps(message()).encode()


@pytest.fixture
def cli(fuse: None) -> Iterator[CommandLine]:
    """The command line, run from a copy of the package, with the kata AbCdEf in ``store``."""
    with command_line() as started:
        make_kata(started.directory / "store", "AbCdEf")
        shutil.copytree(PACKAGE, started.directory / "katafs", ignore=shutil.ignore_patterns("__pycache__"))
        started.environment["PYTHONPATH"] = str(started.directory)
        yield started


def kata(cli: CommandLine) -> Path:
    return cli.directory / "mnt/Ab/Cd/Ef"


def change(cli: CommandLine, name: str, old: str, new: str) -> None:
    """Another version of a module is installed."""
    path = cli.directory / "katafs" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_new_code_serves_and_nobody_notices(cli: CommandLine) -> None:
    """Clients read, write, and write in pieces, all the while."""
    pid = cli.mount("--log-file=log", "store", "mnt")
    daemon = daemon_of(pid)
    stop = threading.Event()

    def write(pieces: int) -> int:
        count = 0
        while not stop.is_set():
            with open(kata(cli) / "ran_tests", "wb", buffering=0) as file:
                for at in range(pieces):
                    size = len(MESSAGE) // pieces + 1
                    file.write(MESSAGE[at * size : (at + 1) * size])
                    time.sleep(0.005)
            count += 1
        return count

    def read() -> int:
        count = 0
        while not stop.is_set():
            assert (kata(cli) / "events/0/status").read_text() == "0"
            assert not (kata(cli) / f"nothing{count}").exists()
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, pieces) for pieces in (1, 1, 3)]
        reader = pool.submit(read)
        try:
            wait_until((kata(cli) / "events/3").exists, "some events")
            change(cli, "__init__.py", f'"{katafs.__version__}"', '"99.1"')
            assert cli.done("reload", "mnt") == ""
            after = sum(1 for _ in (kata(cli) / "events").iterdir())
            wait_until((kata(cli) / f"events/{after + 3}").exists, "events after the reload")
        finally:
            stop.set()
        assert reader.result(patience(DEADLINE)) > 10
        count = sum(writer.result(patience(DEADLINE)) for writer in writers)
        assert count == assert_sound(cli.directory / "store/Ab/Cd/Ef")
    wait_until(lambda: cli.daemons() == [pid], "the same process alone, with new code")
    assert daemon_of(pid) not in (0, daemon)
    assert not re.search("WARNING|ERROR", (cli.directory / "log").read_text())
    cli.done("reload", "mnt")
    os.kill(daemon_of(pid), signal.SIGKILL)
    assert (kata(cli) / "event.json").read_text(), "and it keeps the mount alive"
    cli.done("umount", "mnt")
    wait_until(lambda: not cli.daemons(), "the end")


def test_the_version_is_the_new_one(cli: CommandLine) -> None:
    cli.mount("store", "mnt")
    change(cli, "__init__.py", f'"{katafs.__version__}"', '"99.1"')
    cli.done("reload", "mnt")
    fd = os.open(cli.directory / "mnt/.katafs/version", os.O_RDONLY)
    assert os.read(fd, 99) == b"99.1\n"
    os.close(fd)


def test_nobody_is_left_of_those_before(cli: CommandLine) -> None:
    """The keeper waits for the end of whoever it has started, also of who was there before it executed itself."""
    pid = cli.mount("--log-file=log", "store", "mnt")
    before = children(pid)
    cli.done("reload", "mnt")
    wait_until(lambda: not set(before) & set(children(pid)), "the end of the daemon before, and of its fork server")


def test_new_code_that_cannot_be_loaded_changes_nothing(cli: CommandLine) -> None:
    pid = cli.mount("--log-file=log", "store", "mnt")
    daemon = daemon_of(pid)
    change(cli, "kata/read/kata.py", "class Kata:", "class Kata\n")
    said = cli.run("reload", "mnt")
    assert said.returncode == 1
    assert "SyntaxError" in said.stderr
    assert daemon_of(pid) == daemon
    (kata(cli) / "ran_tests").write_bytes(MESSAGE)
    assert "reloading has failed" in (cli.directory / "log").read_text()


@pytest.mark.parametrize("file", ["resuming.py", "journal.py"])
def test_new_code_that_cannot_read_what_is_handed_over_changes_nothing(cli: CommandLine, file: str) -> None:
    pid = cli.mount("--log-file=log", "store", "mnt")
    daemon = daemon_of(pid)
    if file == "journal.py":
        change(cli, "fuse/writing/journal.py", "READABLE = (0, 1)", "READABLE = (7, 8)")
    else:
        change(cli, "mount/resuming.py", "VERSION = 1", "VERSION = 8")
    said = cli.run("reload", "mnt")
    assert said.returncode == 1
    assert "cannot read what the one that is running hands over" in said.stderr
    assert daemon_of(pid) == daemon
    (kata(cli) / "ran_tests").write_bytes(MESSAGE)


def test_what_cannot_be_reloaded(cli: CommandLine) -> None:
    assert cli.refused("reload", "mnt") == "mnt: no katafs is mounted here"
    cli.mount("--no-keep-alive", "store", "mnt")
    assert cli.refused("reload", "mnt", alive=1).startswith("mnt: this mount is not kept alive")


@pytest.mark.parametrize("option", ["--log-level=info", "--no-keep-alive"])
def test_a_supervisor_hears_when_it_is_ready(cli: CommandLine, option: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.settimeout(patience(DEADLINE))
        supervisor.bind(str(cli.directory / "notify"))
        cli.environment["NOTIFY_SOCKET"] = str(cli.directory / "notify")
        with cli.foreground(option, "store", "mnt") as process:
            assert supervisor.recv(99) == b"READY=1"
            assert kata(cli).exists()
            process.send_signal(signal.SIGTERM)
            assert process.wait(patience(DEADLINE)) == 0
