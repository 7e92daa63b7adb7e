"""Plain-path services that are not root: they may do on the mount what they may do in a tree of plain files."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import unavailable
from tests.katas import assert_sound
from tests.legacy.test_mount_services import (
    create_kata,
    dir_make,
    event_of,
    file_append,
    file_create,
    file_read,
    ran_tests,
)
from tests.mounts import CommandLine, command_line, patience, wait_until
from tests.plain_katas import Written, make_plain_kata

# as cyber-dojo's saver has
OWNER, GROUP = 19663, 65533
STRANGER = 20000


@pytest.fixture
def cli(fuse: None) -> Iterator[CommandLine]:
    if os.geteuid() != 0:
        unavailable("only root can act as others")
    with command_line() as started:
        yield started


def as_user(uid: int, gid: int, call: Callable[[], Any]) -> Any:
    """Make a call in a process of that user: its result, or the name of the errno."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def run() -> None:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
        try:
            writer.send(call())
        except OSError as error:
            writer.send(errno.errorcode[error.errno or 0])

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    writer.close()
    try:
        return reader.recv()
    finally:
        process.join(patience(20))


def own(path: Path) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, OWNER, GROUP, follow_symlinks=False)


def plain_store(store: Path, version: int) -> Written:
    written = make_plain_kata(store, "AbCdEf", version, 4, events=3)
    own(store)
    return written


def what_is_tried(kata: Path, version: int) -> dict[str, Callable[[], Any]]:
    """What a service does, and what it does not, by name, in this order."""
    event, row = event_of(3, version)
    name = "3.event.json" if version else "3/event.json"
    line = ",\n" + json.dumps(row) if version else json.dumps(row) + "\n"
    tried: dict[str, Callable[[], Any]] = {
        "read": lambda: len(file_read(kata / "events.json")) > 0,
        "list": lambda: "manifest.json" in os.listdir(kata),
        "late": lambda: dir_make(kata / "2") if not version else file_create(kata / "2.event.json", "{}"),
        "directory": lambda: version == 1 or dir_make(kata / "3"),
        "event": lambda: file_create(kata / name, json.dumps(event)),
        "row": lambda: file_append(kata / "events.json", line),
        "option": lambda: [file_create(kata / "predict", "\non"), file_append(kata / "predict", "\non")],
        "new kata": lambda: create_kata(kata.parents[2] / "Py/00/01", version),
        "its event": lambda: ran_tests(kata.parents[2] / "Py/00/01", 1, version),
        "access": lambda: [os.access(kata / name, mode) for name in ("", "events.json") for mode in (os.R_OK, os.W_OK)],
    }
    return tried


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize(("uid", "gid"), [(STRANGER, STRANGER), (OWNER, GROUP), (STRANGER, GROUP)])
def test_users_may_do_what_they_may_do_with_plain_files(cli: CommandLine, version: int, uid: int, gid: int) -> None:
    written = plain_store(cli.directory / "store", version)
    shutil.copytree(cli.directory / "store", cli.directory / "plain")
    own(cli.directory / "plain")
    cli.mount("--allow-other", "store", "mnt")
    plain, shown = (cli.directory / name / "Ab/Cd/Ef" for name in ("plain", "mnt"))
    answers = {}
    for name, call in what_is_tried(plain, version).items():
        answers[name] = as_user(uid, gid, call)
    for name, call in what_is_tried(shown, version).items():
        assert as_user(uid, gid, call) == answers[name], name
    if uid == OWNER:
        assert answers["event"] is answers["new kata"] is answers["its event"] is True
        assert assert_sound(written.path) == 3
    else:
        assert answers["event" if version else "directory"] == answers["new kata"] == "EACCES"
        assert not (written.path / ".git").exists()
    others = [path for path in (cli.directory / "store").rglob("*") if path.lstat().st_uid != OWNER]
    assert not others, "it is all the owner's, whoever mounts"


def test_what_root_begins_is_the_owner_s_too(cli: CommandLine) -> None:
    """And an event that root left without its row is recorded as the owner."""
    written = plain_store(cli.directory / "store", 1)
    cli.mount("--allow-other", "store", "mnt")
    kata = cli.directory / "mnt/Ab/Cd/Ef"
    assert file_create(kata / "3.event.json", json.dumps(event_of(3, 1)[0]))
    assert as_user(OWNER, GROUP, lambda: ran_tests(kata, 4, 1)) is True
    wait_until(lambda: assert_sound(written.path) == 4, "both")
    assert not [path for path in (cli.directory / "store").rglob("*") if path.lstat().st_uid != OWNER]
