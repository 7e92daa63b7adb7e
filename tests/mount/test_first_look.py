"""A mount is said to be ready when nobody of ours is in it any more: who unmounts it at once is not told that it is
busy."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.conftest import unavailable
from tests.katas import make_kata
from tests.mounts import DEADLINE, CommandLine, command_line, patience, wait_until

# the command line, with a first look that goes on until somebody opens a pipe
SLOW = """
import os
from pathlib import Path
from katafs.cli import main
from katafs.mount import first_look

def look(mountpoint):
    fd = os.open(mountpoint / ".katafs/version", os.O_RDONLY)
    Path(os.environ["BEGUN"]).touch()
    os.close(os.open(os.environ["GATE"], os.O_RDONLY))
    os.close(fd)

first_look.touch = look
main()
"""


@pytest.fixture
def cli(fuse: None) -> Iterator[CommandLine]:
    if os.geteuid() != 0:
        unavailable("only root's mounts are kept")
    with command_line() as started:
        make_kata(started.directory / "store", "AbCdEf")
        os.mkfifo(started.directory / "gate")
        yield started


@contextlib.contextmanager
def looking(cli: CommandLine) -> Iterator[subprocess.Popen[bytes]]:
    """``katafs mount`` whose first look has begun, and goes on."""
    command = [sys.executable, "-c", SLOW, "mount", "store", "mnt"]
    paths = {name.upper(): str(cli.directory / name) for name in ("begun", "gate")}
    with subprocess.Popen(command, cwd=cli.directory, env={**cli.environment, **paths}) as process:
        wait_until((cli.directory / "begun").exists, "the first look")
        yield process


def end_look(cli: CommandLine) -> bool:
    """Whether who waits at the pipe is let go; False when nobody does."""
    try:
        os.close(os.open(cli.directory / "gate", os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False
    return True


def test_it_is_ready_when_the_first_look_has_ended(cli: CommandLine) -> None:
    with looking(cli) as process:
        # the daemon is ready meanwhile
        assert (cli.directory / "mnt/Ab/Cd/Ef/manifest.json").read_text()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        wait_until(lambda: end_look(cli), "who waits at the pipe")
        assert process.wait(patience(DEADLINE)) == 0
        subprocess.run(["umount", cli.directory / "mnt"], check=True)
    wait_until(lambda: not cli.daemons(), "the end of the daemon")


def test_a_first_look_that_does_not_end_is_ended(cli: CommandLine) -> None:
    """Whoever asked for the mount is not kept waiting by a daemon that hangs, and can unmount it."""
    with looking(cli) as process:
        assert process.wait(patience(DEADLINE)) == 0
        wait_until(lambda: subprocess.run(["umount", cli.directory / "mnt"], check=False).returncode == 0, "the end")
        assert not end_look(cli)
    wait_until(lambda: not cli.daemons(), "the end of the daemon")


def test_it_is_not_busy_when_it_is_ready(cli: CommandLine) -> None:
    for _ in range(5):
        cli.done("mount", "store", "mnt")
        subprocess.run(["umount", cli.directory / "mnt"], check=True)
        wait_until(lambda: not cli.daemons(), "the end of the daemon")
