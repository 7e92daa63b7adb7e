"""``katafs status``: what is mounted, and who serves it, for people and for programs."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from katafs import __version__
from katafs.cli.status import counted
from katafs.text import span
from tests.conftest import unavailable
from tests.katas import make_kata
from tests.mounts import CommandLine, command_line, daemon_of, patience, wait_until


@pytest.fixture
def cli(fuse: None) -> Iterator[CommandLine]:
    """The command line in a directory with the kata AbCdEf in ``store`` and an empty ``mnt``."""
    if os.geteuid() != 0:
        unavailable("only root's mounts say who serves them")
    with command_line() as started:
        make_kata(started.directory / "store", "AbCdEf")
        yield started


def status(cli: CommandLine, code: int = 0) -> dict[str, Any]:
    """What is said to programs of the mount ``mnt``."""
    said = cli.run("status", "--json", "mnt")
    assert (said.returncode, said.stderr) == (code, "")
    (one,) = json.loads(said.stdout)
    return dict(one)


def test_a_mount_that_is_kept_alive(cli: CommandLine) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    pid = cli.mount("--allow-other", "store", "mnt")
    one = status(cli)
    after = datetime.now(UTC)
    known: dict[str, Any] = {
        "mountpoint": str(cli.directory / "mnt"),
        "store": str(cli.directory / "store"),
        "state": "serving",
    }
    known |= {"read_only": False, "allow_other": True, "version": __version__, "mode": "fast", "kept_alive": True}
    known |= {"pid": pid, "daemon_pid": daemon_of(pid), "daemons_died": 0, "reloads": 0}
    assert one.items() >= known.items()
    since = datetime.fromisoformat(one["since"])
    assert before <= since <= after
    assert 0 <= one["seconds"] <= (after - before).total_seconds()
    assert one["memory_bytes"] > 1 << 20
    os.kill(one["daemon_pid"], signal.SIGKILL)
    wait_until(lambda: status(cli)["daemons_died"] == 1, "another daemon")
    cli.done("reload", "mnt")
    later = status(cli)
    assert (later["reloads"], later["since"], later["pid"]) == (1, one["since"], pid)


def test_a_mount_that_is_not(cli: CommandLine) -> None:
    pid = cli.mount("--no-keep-alive", "--no-fast-open", "-o", "ro", "store", "mnt")
    known = {"read_only": True, "mode": "slower", "kept_alive": False, "pid": pid, "daemon_pid": pid}
    assert status(cli).items() >= known.items()
    # no signal reaches a daemon that nobody could replace
    assert cli.refused("reload", "mnt", alive=1).startswith("mnt: this mount is not kept alive")
    cli.done("umount", "mnt")
    wait_until(lambda: not cli.daemons(), "the end of the daemon")
    assert str(pid) not in "".join(file.read_text() for file in Path("/run/katafs").glob("*.json"))


def test_what_a_person_reads(cli: CommandLine) -> None:
    pid = cli.mount("store", "mnt")
    said = cli.done("status", "mnt")
    first, *lines = said.splitlines()
    assert first == str(cli.directory / "mnt")
    facts = dict(line.strip().split(None, 1) for line in lines)
    assert facts["store"] == str(cli.directory / "store")
    assert facts["state"].startswith("serving for ")
    assert facts["mode"] == "fast mode, read-write, kept alive"
    assert facts["process"] == f"{daemon_of(pid)}, kept alive by {pid}"
    # with what else is mounted
    assert f"{first}\n  store" in cli.run("status").stdout


@pytest.mark.parametrize(("setting", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal(cli: CommandLine, setting: dict[str, str], is_coloured: bool) -> None:
    cli.mount("store", "mnt")
    environment = {name: value for name, value in cli.environment.items() if name != "NO_COLOR"} | setting
    ours, theirs = pty.openpty()
    command = cli.command("status", "mnt")
    subprocess.run(command, stdout=theirs, cwd=cli.directory, env=environment, check=True, timeout=patience(60))
    os.close(theirs)
    said = os.read(ours, 1 << 16)
    os.close(ours)
    assert (b"\x1b[" in said, b"serving" in said) == (is_coloured, True)


def test_a_mount_that_is_dead_or_does_not_answer(cli: CommandLine) -> None:
    pid = cli.mount("store", "mnt")
    daemon = daemon_of(pid)
    os.kill(daemon, signal.SIGSTOP)
    try:
        assert status(cli, 1)["state"] == "does not answer"
    finally:
        os.kill(daemon, signal.SIGCONT)
    cli.kill(pid)
    assert status(cli, 1).keys() & {"state", "pid"} == {"state"}
    assert status(cli, 1)["state"] == "dead"


def test_a_mount_that_does_not_answer_can_be_taken_away(cli: CommandLine) -> None:
    daemon = daemon_of(cli.mount("store", "mnt"))
    os.kill(daemon, signal.SIGSTOP)
    try:
        assert cli.done("umount", "--lazy", "mnt") == ""
        assert os.listdir(cli.directory / "mnt") == []
    finally:
        os.kill(daemon, signal.SIGCONT)
    wait_until(lambda: not cli.daemons(), "the end of the daemon")


def test_where_nothing_is_mounted(cli: CommandLine) -> None:
    assert cli.refused("status", "mnt") == "mnt: no katafs is mounted here"
    cli.before = ["unshare", "--mount", "--propagation=private"]
    subprocess.run([*cli.before, "true"], check=True)
    none = "umount --lazy --all --types fuse.katafs 2>/dev/null; "
    assert cli.shell(f"{none} katafs status").stdout == "no katafs is mounted\n"
    assert cli.shell(f"{none} katafs status --json").stdout == "[]\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3_700, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (8_640_000, "100 d"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert span(seconds) == said


def test_counters_are_found_in_what_prometheus_reads() -> None:
    text = """# HELP katafs_commits_total Commits.
katafs_commits_total{written="control",kata="a b"} 2.0
katafs_commits_total{written="option"} 1
katafs_request_duration_seconds_bucket{le="0.1"} 4.0
katafs_request_duration_seconds_count{operation="read"} 1.5e+03
katafs_request_errors_total{errno="ENOENT",operation="lookup"} 70.0
katafs_request_errors_total{errno="EROFS",operation="lookup"} 1.0
katafs_request_errors_total{errno="ENOSYS",operation="getxattr"} 1.0
katafs_cache_hits_total{cache="blobs"} 5.0
katafs_memory_bytes 7
process_open_fds 9.0
"""
    assert counted(text) == {"commits": 3, "requests": 1500, "errors": 1}
