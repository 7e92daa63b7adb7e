"""``katafs migrate``, as an operator uses it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.git import repository_lock
from katafs.git.store.storing import MUTEX
from tests.katas import make_kata
from tests.legacy.test_migrate import assert_migrated, state
from tests.mounts import CommandLine, command_line, patience, wait_until
from tests.plain_katas import Written, make_plain_kata


@pytest.fixture
def cli() -> Iterator[CommandLine]:
    with command_line() as started:
        yield started


@pytest.fixture
def katas(cli: CommandLine) -> list[Written]:
    """Three plain katas in ``store``, and a native one."""
    store = cli.directory / "store"
    make_kata(store, "AbCdEf")
    return [make_plain_kata(store, kata_id, 1, 3, events=3) for kata_id in ("Py0001", "Py0002", "Py0003")]


def break_kata(written: Written) -> None:
    (written.path / "2.event.json").write_text('{"files": {"../x": {"content": ""}}}')


def test_all(cli: CommandLine, katas: list[Written]) -> None:
    assert cli.done("migrate", "store") == "3 katas with 9 events migrated\n"
    for written in katas:
        assert_migrated(written)
    assert cli.done("migrate", "store") == "0 katas with 0 events migrated\n"


def test_some(cli: CommandLine, katas: list[Written]) -> None:
    before = state(katas[0].path)
    assert cli.done("migrate", "store", "Py0002", "AbCdEf") == (
        "1 kata with 3 events migrated, 1 already stored as git\n"
    )
    assert_migrated(katas[1])
    assert state(katas[0].path) == before


def test_dry_run(cli: CommandLine, katas: list[Written]) -> None:
    before = state(cli.directory / "store")
    assert cli.done("migrate", "--dry-run", "store") == "3 katas with 9 events could be migrated\n"
    assert state(cli.directory / "store") == before


def test_what_could_not_be_migrated(cli: CommandLine, katas: list[Written]) -> None:
    break_kata(katas[1])
    result = cli.run("migrate", "store")
    assert result.returncode == 1
    assert re.fullmatch("katafs: Py0002 is not migrated: event 2: '../x' is not a file name.*\n", result.stderr)
    assert result.stdout == "2 katas with 6 events migrated, 1 not migrated\n"
    assert_migrated(katas[0])
    assert_migrated(katas[2])


def test_keep_originals(cli: CommandLine, katas: list[Written]) -> None:
    before = state(katas[0].path)
    cli.done("migrate", "--keep-originals", "store", "Py0001")
    assert state(katas[0].path / ".katafs-original") == before


def test_what_is_left_is_named(cli: CommandLine, katas: list[Written]) -> None:
    (katas[0].path / "notes.txt").write_text("mine\n")
    result = cli.run("migrate", "store", "Py0001")
    assert (result.returncode, result.stdout) == (0, "1 kata with 3 events migrated\n")
    assert result.stderr == "katafs: Py0001: these are no files of a kata, and stay where they are: notes.txt\n"


def test_wrong_command_lines(cli: CommandLine, katas: list[Written]) -> None:
    assert cli.refused("migrate", "store", "Ab", status=2) == "Ab is not a kata id"
    assert "does not exist" in cli.refused("migrate", "nowhere")
    result = cli.run("migrate", "store", "Zz9999")
    assert (result.returncode, result.stdout) == (1, "0 katas with 0 events migrated, 1 not migrated\n")
    assert re.fullmatch("katafs: Zz9999 is not migrated: .* is not there\n", result.stderr)


def test_progress_on_a_terminal(cli: CommandLine, katas: list[Written]) -> None:
    store = cli.directory / "store"
    for number in range(99):
        shutil.copytree(katas[0].path, store / "Zz" / f"{number:02}" / "aa")
    output, seen = cli.on_terminal("migrate", "store")
    assert output == "102 katas with 306 events migrated\n"
    assert re.search(r"\r\x1b\[K[0-9]+ of 102 katas, [0-9]+ events, [0-9]+ events/s, 0:00:[0-9]{2} left", seen)
    assert seen.endswith("\r\x1b[K")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(cli: CommandLine, katas: list[Written], number: signal.Signals) -> None:
    """It says so, and what it was at is as it was."""
    held = katas[1].path
    before = state(held)
    with repository_lock(held, 1):
        command = cli.command("migrate", "store")
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=cli.directory, env=cli.environment, stdout=pipe, stderr=pipe) as run:
            wait_until(lambda: f"{held}/{MUTEX}" in open_files(run.pid), "the second kata")
            run.send_signal(number)
            output, error = run.communicate(timeout=patience(60))
    assert (run.returncode, output) == (1, b"1 kata with 3 events migrated, 2 left\n")
    assert error == b"katafs: interrupted; started again it goes on from here\n"
    assert state(held) == before
    assert cli.done("migrate", "store") == "2 katas with 6 events migrated\n"


def open_files(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(entry))
    return found


def test_a_full_disk(cli: CommandLine, katas: list[Written]) -> None:
    """It is told once, not for every kata."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    small = cli.directory / "small"
    cli.within_namespace(
        'mkdir "$1/small"; mount -t tmpfs -o size=300k none "$1/small"; cp -a "$1"/store/* "$1/small"; '
        'dd if=/dev/zero of="$1/small/fill" bs=1k count=1000 2>/dev/null || true'
    )
    result = cli.run("migrate", small)
    assert (result.returncode, result.stdout) == (1, "0 katas with 0 events migrated, 1 not migrated, 2 left\n")
    assert re.fullmatch("katafs: Py0001 is not migrated: .*: No space left on device\n", result.stderr)


def test_without_permission(cli: CommandLine, katas: list[Written]) -> None:
    """A store of somebody else: nothing happens, in one sentence a kata."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as others")
    for path in [cli.directory, *Path(cli.directory / "store").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = state(cli.directory / "store")
    cli.within_namespace(":", user=True)
    result = cli.run("migrate", "store", "Py0001")
    assert result.returncode == 1
    assert "Permission denied" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert state(cli.directory / "store") == before
