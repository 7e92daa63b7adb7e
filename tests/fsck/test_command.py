"""``katafs fsck`` from the command line: what is printed, and the exit status."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fsck.cases import (
    KATA_ID,
    LAST,
    copy_kata,
    make_old,
)
from tests.katas import git, make_kata
from tests.mounts import CommandLine, command_line, patience, wait_until


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    """The command line in a directory with an empty ``store``."""
    with command_line() as started:
        yield started


def untag(path: Path) -> None:
    """Take away the newest tag."""
    (path / ".git" / "refs" / "tags" / str(LAST)).unlink()
    make_old(path)


def test_what_is_printed(cli: CommandLine) -> None:
    store = cli.directory / "store"
    path = copy_kata("native", store)
    make_kata(store, "AAAAAA")
    assert cli.done("fsck", "store") == "2 katas: 0 findings\n"
    untag(path)
    git(path, "branch", "feature-x")
    result = cli.run("fsck", "store")
    assert (result.returncode, result.stderr) == (4, "")
    assert result.stdout == (
        f"{KATA_ID} other-reference: refs/heads/feature-x: nothing that katafs or saver made [note]\n"
        f"{KATA_ID} tag-missing: event {LAST} has no tag [--repair mends it]\n"
        "2 katas: 1 finding, 0 mended, 1 left (1 that --repair can mend); 1 note\n"
    )
    assert cli.done("fsck", "store", "AAAAAA") == "1 kata: 0 findings\n"
    result = cli.run("fsck", "store", KATA_ID, "--repair", "--quiet")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout == f"{KATA_ID} tag-missing: event {LAST} has no tag [mended]\n"
    assert cli.done("fsck", "--quiet", "store") == ""


def test_json(cli: CommandLine) -> None:
    path = copy_kata("native", cli.directory / "store")
    (path / ".git" / "link").symlink_to("/nowhere")
    untag(path)
    result = cli.run("fsck", "--json", "--repair", "--quick", "store")
    assert result.returncode == 5
    assert result.stderr == "1 kata: 2 findings, 1 mended, 1 left\n"
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {tuple(line) for line in lines} == {("kata", "code", "state", "message", "advice")}
    assert [(line["code"], line["state"]) for line in lines] == [
        ("tag-missing", "mended"),
        ("odd-file", "left"),
    ]


def test_a_reader_that_goes_away(cli: CommandLine) -> None:
    for kata_id in ("AAAAAA", "BBBBBB"):
        path = make_kata(cli.directory / "store", kata_id)
        (path / ".git" / "refs" / "tags" / "0").write_bytes(b"")
    result = cli.shell("katafs fsck store | true")
    assert result.stderr in ("", "katafs: standard output: Broken pipe\n")


def test_what_cannot_be_checked(cli: CommandLine) -> None:
    store = cli.directory / "store"
    make_kata(store, "AAAAAA")
    assert cli.refused("fsck", "store", "BBBBBB", status=8) == "kata BBBBBB is not in store"
    assert cli.refused("fsck", "nowhere", status=8) == "store nowhere does not exist"
    result = cli.run("fsck", "store", "../..")
    assert result.returncode == 2
    assert "'../..' is not a kata id." in result.stderr


def test_progress(cli: CommandLine) -> None:
    """On a terminal a bar shows how far it is, and findings stand on lines of their own."""
    for kata_id in ("AAAAAA", "BBBBBB"):
        make_kata(cli.directory / "store", kata_id)
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(cli.command("fsck", "store"), cwd=cli.directory, env=cli.environment, stderr=theirs):
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # the other end is closed
                while part := os.read(ours, 4096):
                    shown += part
    finally:
        os.close(ours)
    assert b"2 katas" in shown
    assert b"100%" in shown


def test_a_signal_ends_it_with_a_sentence(cli: CommandLine) -> None:
    path = copy_kata("native", cli.directory / "store")
    (path / ".git" / "refs" / "heads" / "main.lock").touch()
    untagged = path / ".git" / "refs" / "tags" / str(LAST)
    untagged.unlink()
    command, where = cli.command("fsck", "store"), {"cwd": cli.directory, "env": cli.environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **where) as process:  # type: ignore[call-overload]
        # it waits for the lock to be let go, or to be old enough
        wait_until(lambda: "nanosleep" in Path(f"/proc/{process.pid}/wchan").read_text(), "waiting for the lock")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=patience(20))
    assert (process.returncode, output) == (32, b"0 katas: 0 findings\n")
    assert errors == b"katafs: stopped; what was not looked at yet is as it was\n"
