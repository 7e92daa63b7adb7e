"""Compaction by a mount whose processes are killed in the middle of it, while events are written."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from katafs.kata.compact import compact_kata
from tests.katas import Served, assert_sound, git, message, serve_kata, serving, stored_rows
from tests.mounts import Mount, wait_until
from tests.restarts import EXPECTED

_KATAS = 2
# a kata that has taken as many is worth the work
_EVENTS = 6
# seconds; of 20 deaths within 6 seconds a mount ends (`katafs.mount.keeper`)
_BETWEEN_DEATHS = 0.4


def descendants(pid: int) -> Iterator[int]:
    """Those that work for a process, started by whichever of its threads."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)


def temporary(katas: list[Served]) -> set[Path]:
    """The packs that are being written, and those that were, by some who died."""
    return {file for kata in katas for file in (kata.stored / ".git/objects/pack").glob("tmp_pack_katafs_*")}


def kill_one(mount: Mount, dice: random.Random) -> str:
    """kill -9 to the daemon, or to one of the processes that work for it; which."""
    daemon = mount.daemon
    if not daemon:
        return "nobody"
    helpers = list(descendants(daemon))
    victim = daemon if not helpers or dice.random() < 0.3 else dice.choice(helpers)
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGKILL)
    return "daemon" if victim == daemon else "helper"


def write(kata: Served, index: int) -> None:
    text = "".join(f"{index} {line}\n" for line in range(50))
    kata.ran_tests.write_text(json.dumps(message({"hiker.py": text, "cyber-dojo.sh": "pytest\n"}, index=index)))


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_in_the_middle(fuse: None, tmp_path: Path, kills: int) -> None:
    dice = random.Random(kills)
    killed: dict[str, int] = {}
    amid = 0
    with serving(tmp_path, "fast", "--compact-after", "0.1") as mount:
        mount.expected_log = f"{EXPECTED}|is not compacted|and is refused|who recorded has ended"
        katas = [serve_kata(mount) for _ in range(_KATAS)]
        index = 0
        for _ in range(kills):
            earliest = time.monotonic() + _BETWEEN_DEATHS
            for _ in range(_EVENTS):
                index += 1
                for kata in katas:
                    write(kata, index)
            end = time.monotonic() + 3.0
            left_behind = temporary(katas)
            while temporary(katas) <= left_behind and time.monotonic() < end:
                time.sleep(0.001)
            time.sleep(dice.uniform(0, 0.03))
            amid += not temporary(katas) <= left_behind
            which = kill_one(mount, dice)
            killed[which] = killed.get(which, 0) + 1
            time.sleep(max(0.0, earliest - time.monotonic()))
        for kata in katas:
            write(kata, index + 1)
            assert kata.recorded() == index + 1
        wait_until(lambda: ": compacted" in mount.log_text(), "a compaction", seconds=30.0)
        # for git's fsck: the next compaction may be under way
        assert mount.stop() == ""
        for kata in katas:
            check(kata.stored, index + 1)
    print(killed, "killed amid compaction:", amid)  # noqa: T201 - figures of a long test
    assert amid
    assert kills < 10 or killed.keys() == {"daemon", "helper"}


def check(path: Path, last: int) -> None:
    assert [row["index"] for row in stored_rows(path)] == list(range(last + 1))
    for index in range(1, last + 1):
        assert git(path, "show", f"{index}:files/hiker.py").startswith(b"%d 0\n" % index)
    git(path, "fsck", "--full", "--strict")
    compact_kata(path, "AbCdEf")
    assert assert_sound(path) == last
