"""A kata of a version that this katafs does not know: it is read, never written to, and everybody is told why."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import ReadOnlyError
from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import record, set_option
from katafs.kata.record.message import parse_act
from tests.katas import add_event, git, git_commit, make_kata, repository_state
from tests.mounts import MakeMount, katafs

MESSAGE = b'{"summary": {"colour": "red"}}'
SAID = "kata AbCdEf is of version 3, and this katafs knows 2: it is only read"


def of_version(store: Path, version: Any) -> Path:
    """A kata with an event whose manifest says so."""
    path = make_kata(store, "AbCdEf")
    add_event(path, 1)
    manifest = json.loads((path / "manifest.json").read_bytes())
    data = json.dumps({**manifest, "version": version}).encode()
    assert git_commit(path, "another version", {"manifest.json": data})
    (path / "manifest.json").write_bytes(data)
    return path


def test_a_later_version_is_not_written_to(store: Path) -> None:
    path = of_version(store, 3)
    before = repository_state(path)
    with pytest.raises(ReadOnlyError, match=f"^{SAID}$") as refused:
        record(path, "AbCdEf", parse_act(Kind.RAN_TESTS, MESSAGE))
    assert refused.value.errno == errno.EROFS
    with pytest.raises(ReadOnlyError, match=f"^{SAID}$"):
        set_option(path, "AbCdEf", "theme", "dark")
    assert repository_state(path) == before


@pytest.mark.parametrize("version", [2.5, 3.0, 1e20])
def test_any_larger_number_is_a_later_version(store: Path, version: float) -> None:
    """JSON has one kind of numbers: some programs write 3 as 3.0."""
    path = of_version(store, version)
    before = repository_state(path)
    with pytest.raises(ReadOnlyError, match=r"and this katafs knows 2: it is only read$"):
        record(path, "AbCdEf", parse_act(Kind.RAN_TESTS, MESSAGE))
    assert repository_state(path) == before


@pytest.mark.parametrize("version", [2, 2.0, "3", None, True])
def test_other_values_are_no_later_version(store: Path, version: Any) -> None:
    path = of_version(store, version)
    assert record(path, "AbCdEf", parse_act(Kind.RAN_TESTS, MESSAGE)).index == 2


def test_a_later_version_in_a_mount(store: Path, mount: MakeMount) -> None:
    of_version(store, 3)
    kata = mount(store, options=("--xattr",)).kata("AbCdEf")
    assert os.getxattr(kata, "user.katafs.version") == b"3"
    assert {"control", "ran_tests"} & set(os.listdir(kata)) == set()
    assert (kata / "events/1/files/hiker.py").read_text().startswith("def answer")
    assert git(kata, "tag") == b"0\n1\n"
    with pytest.raises(OSError, match="Read-only file system"):
        (kata / "config/theme").write_text("dark")


def test_fsck_says_so_and_mends_nothing(store: Path) -> None:
    path = of_version(store, 3)
    git(path, "tag", "-d", "1")
    said = katafs("fsck", "--repair", store, check=False)
    assert said.returncode == 4
    assert f"AbCdEf version-later: {SAID}, and not mended [note]" in said.stdout.decode()
    assert "AbCdEf tag-missing" in said.stdout.decode()
    assert git(path, "tag") == b"0\n"


def test_plain_files_of_a_later_version_are_left_as_they_are(store: Path) -> None:
    path = store / "Ab/Cd/Ef"
    path.mkdir(parents=True)
    (path / "manifest.json").write_text('{"version": 3, "id": "AbCdEf"}')
    said = katafs("migrate", store, check=False)
    assert said.returncode == 1
    assert "AbCdEf is not migrated: there is no .git, but the manifest's version is 3" in said.stderr.decode()
    assert os.listdir(path) == ["manifest.json"]
