"""A kata that its owner closed to others in the store is closed to them in the mount."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from katafs.kata.model.ids import kata_path
from tests.conftest import unavailable
from tests.katas import add_event, make_kata
from tests.mounts import CommandLine, command_line, wait_until

PLACES = ("", "files", "files/hiker.py", "events/0/files/hiker.py", "events/0.json", "diff/0..1", "html/index.html",
          "download.tgz", "history", "ran_tests", ".git/HEAD", "manifest.json")  # fmt: skip


@pytest.fixture
def cli(fuse: None) -> Iterator[CommandLine]:
    """The command line in a directory with two katas in ``store`` and an empty ``mnt``."""
    if os.geteuid() != 0:
        unavailable("only root mounts for other users")
    with command_line() as started:
        for kata_id in ("AbCdEf", "AbCdEg"):
            add_event(make_kata(started.directory / "store", kata_id), 1)
        yield started


@pytest.mark.parametrize("option", ["fast", "slower"])
def test_closed_to_others(cli: CommandLine, option: str) -> None:
    """With all that is below it, also where its owner has looked at it, and the kernel remembers."""
    kata_path(cli.directory / "store", "AbCdEf").chmod(0o700)
    cli.mount("--allow-other", *(["--no-fast-open"] if option == "slower" else []), "store", "mnt")
    closed, other = (kata_path(cli.directory / "mnt", kata_id) for kata_id in ("AbCdEf", "AbCdEg"))
    for kata, can in ((closed, False), (other, True)):
        for place in PLACES:
            assert (kata / place).stat()
            said = cli.as_other("ls" if place in ("", "files") else "cat", kata / place)
            assert (said.returncode == 0) == can, (place, said)
    assert cli.as_other("sh", "-c", f"echo dark > {closed}/config/theme").returncode != 0
    # who opened it may close it
    kata_path(cli.directory / "store", "AbCdEf").chmod(0o755)
    wait_until(lambda: cli.as_other("cat", closed / "history").returncode == 0, "the mode of the store")


@pytest.mark.parametrize(
    ("stored", "shown"), [(0o750, 0o750), (0o711, 0o711), (0o777, 0o755), (0o2775, 0o755), (0, 0o700)]
)
def test_modes(cli: CommandLine, stored: int, shown: int) -> None:
    kata_path(cli.directory / "store", "AbCdEf").chmod(stored)
    cli.mount("store", "mnt")
    assert stat.S_IMODE(kata_path(cli.directory / "mnt", "AbCdEf").stat().st_mode) == shown
    for above in ("mnt/Ab", "mnt/Ab/Cd"):
        assert stat.S_IMODE((cli.directory / above).stat().st_mode) == 0o755
