"""A host that dies in the middle of something, and one that comes back from where nobody heard of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import KataError
from katafs.kata.legacy.pending import flush_pending
from katafs.kata.legacy.plain_files import mark
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import plain_job, record
from katafs.kata.record.message import parse_act
from tests.hosts.host import Host, two_hosts
from tests.katas import assert_sound, git, make_kata, message, stored_rows
from tests.legacy.test_mount_services import assert_sound_with_outages
from tests.mounts import patience, wait_until
from tests.plain_katas import make_plain_kata

KATA = "AbCdEf"
# seconds: what is left by the dead is watched for one, and what a host knows of a directory is as old
SOON = 5.0

# what one host does in a process of its own: it prints the index, or what was wrong
RECORD = """
import sys
from tests.hosts.test_fencing import recorded
print(recorded(*sys.argv[1:]), flush=True)
"""
MIGRATE = """
import sys
from pathlib import Path
from typing import Any
from katafs.errors import KataError
from katafs.kata.legacy.migrate import migrate_kata
try:
    print(migrate_kata(Path(sys.argv[1]), sys.argv[2]), flush=True)
except KataError as error:
    print(error.errno_name, flush=True)
"""


def recorded(path: str, text: str, index: str = "") -> str:
    """Record an event in a kata: its index, or the errno."""
    more: dict[str, Any] = {"index": int(index)} if index else {}
    act = parse_act(Kind.RAN_TESTS, json.dumps(message({"a.txt": text}, **more)).encode())
    try:
        return str(record(Path(path), KATA, act).index)
    except KataError as error:
        return error.errno_name


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path) as (one, other):
        make_kata(one.store, KATA, {"a.txt": "0\n"})
        yield one, other


@contextmanager
def doing(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=patience(30))[0].strip()


def sound(host: Host) -> list[str]:
    """What the events hold, in order."""
    path = kata_path(host.shared, KATA)
    last = assert_sound_with_outages(path)
    return [git(path, "show", f"{index}:files/a.txt").decode() for index in range(1, last + 1)]


@pytest.mark.parametrize("step", ["LINK main.lock", "RENAME main", "UNLINK main.lock", "LINK 1"])
def test_a_katafs_that_is_killed(hosts: tuple[Host, Host], step: str) -> None:
    """In the middle of a commit: the other goes on, after what is there, and nothing is half there."""
    one, other = hosts
    path = kata_path(one.store, KATA)
    with doing(RECORD, path, "one") as process:
        one.say("hang", *step.split())
        wait_until(one.is_hung, step)
        process.send_signal(signal.SIGKILL)
        # what was asked is done, and nothing after it
        one.say("go")
        process.wait(patience(10))
    # what was edited is an event, too
    assert recorded(str(kata_path(other.store, KATA)), "two") in ("2", "4")
    texts = sound(other)
    assert texts[-1] == "two"
    assert "one" in texts or step == "LINK main.lock"


@pytest.mark.parametrize("step", ["LINK main.lock", "RENAME main"])
def test_a_host_that_comes_back(hosts: tuple[Host, Host], step: str) -> None:
    """It was cut off in the middle of a commit, and the server has given it up: what others did stays."""
    one, other = hosts
    with doing(RECORD, kata_path(one.store, KATA), "one", 1) as process:
        one.say("hang", *step.split())
        wait_until(one.is_hung, step)
        one.say("expire")
        assert recorded(str(kata_path(other.store, KATA)), "two", "1") == "1"
        one.say("go")
        # it hears that somebody was first
        assert said(process) == "EEXIST"
    assert recorded(str(kata_path(other.store, KATA)), "three", "2") == "2"
    assert sound(other)[0] == "two"
    assert stored_rows(kata_path(one.shared, KATA))[-1]["index"] == 2
    assert not [name for name in os.listdir(kata_path(one.shared, KATA) / ".git/refs/heads") if name != "main"]


def test_a_host_whose_files_another_has_removed(hosts: tuple[Host, Host]) -> None:
    """It was not heard of for so long that it was taken for dead: it begins again, and its event is recorded once."""
    one, _ = hosts
    with doing(RECORD, kata_path(one.store, KATA), "one", 1) as process:
        one.say("hang", "LINK", "main.lock")
        wait_until(one.is_hung, "LINK main.lock")
        for file in (kata_path(one.shared, KATA) / ".git").glob(".katafs-*"):
            if file.name != ".katafs-mutex":
                file.unlink()
        one.say("go")
        assert said(process) == "1"
    assert sound(one) == ["one"]


@pytest.mark.parametrize("step", ["MKDIR .katafs-new", "RENAME .git"])
def test_a_migration_whose_host_comes_back(tmp_path: Path, step: str) -> None:
    """Another host has migrated the kata meanwhile, and written to it."""
    with two_hosts(tmp_path) as (one, other):
        make_plain_kata(one.shared, KATA, 1, 3, events=3)
        with doing(MIGRATE, kata_path(one.store, KATA), KATA) as process:
            one.say("hang", *step.split())
            wait_until(one.is_hung, step)
            one.say("expire")
            with doing(MIGRATE, kata_path(other.store, KATA), KATA) as second:
                said(second)
            assert recorded(str(kata_path(other.store, KATA)), "two", "3") == "3"
            one.say("go")
            said(process)
        assert recorded(str(kata_path(one.store, KATA)), "three", "4") == "4"
        path = kata_path(one.shared, KATA)
        assert assert_sound(path) == 4
        assert git(path, "show", "3:files/a.txt") == b"two"


def test_a_note_that_another_host_replaces_is_stale_for_a_moment(hosts: tuple[Host, Host]) -> None:
    """That there is nothing to be recorded is found out all the same: by looking once more."""
    path = kata_path(hosts[0].store, KATA)

    def flush(path: Path, kata_id: str, **_: object) -> None:
        flush_pending(path, kata_id, 60)

    def tell_nobody(*_: object) -> None:
        pass

    job = plain_job(path, KATA, flush)
    mark(path, KATA)
    note = hosts[0].shared / ".katafs-pending" / KATA
    for _ in range(12):
        new = note.with_name("new")
        new.touch()
        new.rename(note)
        job(tell_nobody, tell_nobody)
        if not note.exists():
            mark(path, KATA)
    job(tell_nobody, tell_nobody)
