"""Control files of every kind, and options, over a real mount."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from katafs.kata.model.kinds import Kind
from tests.katas import Served, assert_sound, git, message, repository_state, serve_kata, stored_rows, unpack
from tests.mounts import MakeMount, Mount, patience, wait_until

OPTIONS = ("theme", "colour", "predict", "revert_red", "revert_amber", "revert_green")


@pytest.fixture
def kata(served: Mount) -> Served:
    return serve_kata(served, {'odd "{name}".txt': "odd\n", "other.txt": "other\n"})


def shell(kata: Served, command: str) -> tuple[int, str, str]:
    """Run a command in the kata's directory in the mount: its status and what it prints."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        ["bash", "-c", command], cwd=kata.shown, env=environment, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout, result.stderr


# -- control files


def test_the_control_directory(kata: Served) -> None:
    control = kata.shown / "control"
    assert sorted(os.listdir(control)) == sorted(kind.value for kind in Kind)
    statuses = {kind: (control / kind.value).stat() for kind in Kind}
    assert {stat.filemode(status.st_mode) for status in statuses.values()} == {"-rw-r--r--"}
    assert len({status.st_ino for status in statuses.values()}) == len(Kind)
    assert statuses[Kind.RAN_TESTS].st_ino == kata.ran_tests.stat().st_ino


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_what_a_control_file_explains(kata: Served, kind: Kind) -> None:
    """The example in it can be written as it stands there; afterwards the outcome is there."""
    file = kata.shown / "control" / kind.value
    text = file.read_text()
    assert file.stat().st_size == len(text.encode())
    found = re.fullmatch(
        r"Write one JSON object [^{]*?\n\n(\{.*\})\n\n(?:The files (?:stay|are).*\n)?", text, re.DOTALL
    )
    assert found is not None, text
    file.write_text(found[1])
    outcome = json.loads(file.read_text())
    known = {"ok": True, "recorded": True, "index": 1, "laptop_id": None, "tab_seq": None}
    assert outcome == {**known, "commit": outcome["commit"]}
    assert assert_sound(kata.stored) == 1
    row = json.loads((kata.shown / "event.json").read_bytes())
    assert row["type"] == kind.type
    assert json.loads((kata.shown / "events/1.json").read_bytes())["type"] == kind.type


def test_each_has_its_own_outcome(kata: Served) -> None:
    (kata.shown / "control/file_create").write_text('{"filename": "new.txt"}')
    with pytest.raises(OSError, match="Invalid argument"):
        (kata.shown / "control/file_delete").write_text('{"filename": "no.txt"}')
    created, deleted, renamed = (
        (kata.shown / "control" / f"file_{what}").read_text() for what in ("create", "delete", "rename")
    )
    assert json.loads(created)["index"] == 1
    refused = json.loads(deleted)
    assert (refused["ok"], refused["errno"]) == (False, "EINVAL")
    assert "no.txt" in refused["message"]
    assert renamed.startswith("Write one JSON object")


def test_edits_before_a_test_run_are_visible_at_once(kata: Served) -> None:
    """Both events, and all that changes with them, though the kernel knew it otherwise."""
    files = {"other.txt": "edited\n", "new.txt": "new\n"}
    for name in ("events", "files", "diff"):
        os.listdir(kata.shown / name)
    assert os.readlink(kata.shown / "events/latest") == "0"
    kata.ran_tests.write_text(json.dumps(message(files)))
    assert kata.accepted() == 2
    assert os.readlink(kata.shown / "diff/latest") == "1..2"
    assert {path.name: path.read_text() for path in (kata.shown / "files").iterdir()} == files
    assert json.loads((kata.shown / "events/1/event.json").read_bytes())["colour"] == "file_edit"
    assert (kata.shown / "diff/1..2").read_bytes() == b""


def test_outages_are_visible_at_once(kata: Served) -> None:
    kata.ran_tests.write_text(json.dumps(message({"a.txt": "1\n"}, stdout={"content": "out"}, index=12)))
    assert json.loads(kata.ran_tests.read_text())["index"] == 12
    assert sorted(map(int, set(os.listdir(kata.shown / "events")) - {"latest"})) == list(range(13))
    for index in range(1, 12):
        event = kata.shown / "events" / str(index)
        row = {"index": index, "event": "outage", "type": "outage"}
        assert json.loads((event / "event.json").read_bytes()) == row
        assert json.loads((event / "events_summary.json").read_bytes()) == stored_rows(kata.stored)[: index + 1]
        assert [(event / name).read_bytes() for name in ("stdout", "stderr", "status")] == [b"", b"", b"0"]
        assert os.listdir(event / "files") == ["a.txt"]
    assert (kata.shown / "events/12/stdout").read_bytes() == b"out"
    assert shell(kata, 'cat control/ran_tests >/dev/null; echo \'{"summary":{"colour":"red"},"index":5}\' > ran_tests')[
        2
    ].endswith("File exists\n")


def test_a_repetition_through_another_mount(served: Mount, kata: Served, mount: MakeMount) -> None:
    """As after a restart: what the first daemon recorded the second one answers for."""
    text = json.dumps(message({"a.txt": "1\n"}, laptop_id="0123456789abcdef" * 4, tab_seq=1))
    kata.ran_tests.write_text(text)
    state, outcome = repository_state(kata.stored), kata.outcome()
    other = Served(kata.stored, mount(served.store, served.mode).kata("".join(kata.shown.parts[-3:])))
    other.ran_tests.write_text(text)
    assert repository_state(kata.stored) == state
    assert other.outcome() == {**outcome, "recorded": False}


# -- options


@pytest.mark.parametrize("layout", ["native", "saver"])
def test_options(served: Mount, request: pytest.FixtureRequest, layout: str) -> None:
    """Each is a commit without a tag, by which neither events nor diffs change; it can be seen at once."""
    if layout == "saver":
        if not (served.store / "rG/63/fy").exists():
            unpack(request.getfixturevalue("shared_katas") / "saver-v2-rG63fy.tgz", served.store)
        kata = Served(served.store / "rG/63/fy", served.kata("rG63fy"))
    else:
        kata = serve_kata(served)
    tags = git(kata.stored, "tag")
    rows = (kata.shown / "events_summary.json").read_bytes()
    for name in OPTIONS:
        file = kata.shown / "config" / name
        first = file.read_text()
        assert stat.filemode(file.stat().st_mode) == "-rw-r--r--"
        for value in {"theme": ("dark", "light")}.get(name, ("on", "off")) * 2:
            before = git(kata.stored, "rev-parse", "main")
            changes = file.read_text() != f"{value}\n"
            assert shell(kata, f"echo {value} > config/{name}; cat config/{name}; stat -c %s config/{name}") == (
                0,
                f"{value}\n{len(value) + 1}\n",
                "",
            )
            assert file.read_text() == f"{value}\n"
            assert (git(kata.stored, "rev-parse", "main") != before) == changes
            if changes:
                assert git(kata.stored, "log", "-1", "--format=%s") == f"set option {name} to {value}\n".encode()
                assert git(kata.stored, "rev-parse", "main~1") == before
                seconds = int(git(kata.stored, "log", "-1", "--format=%ct"))
                assert int(file.stat().st_mtime) == seconds
            if layout == "saver":
                assert json.loads((kata.shown / "options.json").read_bytes())[name] == value
        file.write_text(first)
    assert git(kata.stored, "tag") == tags
    assert (kata.shown / "events_summary.json").read_bytes() == rows
    stored = json.loads(git(kata.stored, "show", "main:options.json")) if layout == "saver" else None
    assert stored is None or list(stored) == list(OPTIONS)
    git(kata.stored, "fsck", "--strict")


@pytest.mark.parametrize("written", ["printf dark", "printf '\\ndark'", "echo ' dark '", "printf 'dark\\n\\n'"])
def test_ways_to_write_an_option(kata: Served, written: str) -> None:
    """The newline is optional; appended, or put over what is there, it is the new value."""
    for redirection in (">", ">>", "1<>"):
        assert shell(kata, f"{written} {redirection} config/theme; cat config/theme") == (0, "dark\n", "")
        assert shell(kata, f"echo light {redirection} config/theme; cat config/theme") == (0, "light\n", "")
    assert shell(kata, f"{written} | tee config/theme > /dev/null; cat config/theme") == (0, "dark\n", "")
    assert int(git(kata.stored, "rev-list", "--count", "main")) == 1 + 7


BAD = ["blue", "Dark", "dark light", "on", '"dark"', "x" * 3000]


def test_values_that_are_refused(kata: Served) -> None:
    state = repository_state(kata.stored)
    for value in BAD:
        status, out, error = shell(kata, f"echo '{value}' > config/theme")
        assert (status, out) == (1, "")
        assert "Invalid argument" in error
        assert (kata.shown / "config/theme").read_text() == "light\n"
    assert shell(kata, "printf 'dark\\0' > config/theme")[0] == 1
    assert shell(kata, ": > config/theme; echo > config/theme; cat config/theme") == (0, "light\n", "")
    assert shell(kata, "truncate -s 3 config/theme")[0] == 1
    assert shell(kata, "echo x > config/new")[0] == 1
    assert repository_state(kata.stored) == state
    assert shell(kata, "ls config") == (0, "".join(f"{name}\n" for name in sorted(OPTIONS)), "")


def test_an_option_that_another_mount_sets(served: Mount, kata: Served, mount: MakeMount) -> None:
    other = mount(served.store, served.mode).kata("".join(kata.shown.parts[-3:]))
    for value in ("dark", "light", "dark"):
        (other / "config/theme").write_text(value)
        wait_until(lambda: (kata.shown / "config/theme").read_text() == f"{value}\n", "the option", seconds=1.0)  # noqa: B023


def test_options_and_events_at_once(kata: Served) -> None:
    """Through one mount they wait for one another, and none is lost."""
    failures: list[OSError] = []

    def write(path: Path, texts: list[str]) -> None:
        for text in texts:
            try:
                path.write_text(text)
            except OSError as error:
                failures.append(error)

    works = [(kata.ran_tests, [json.dumps(message(stdout={"content": f"{turn}"})) for turn in range(15)])] * 2
    works += [(kata.shown / "config" / name, ["on", "off"] * 5) for name in OPTIONS[2:4]]
    works += [(kata.shown / "control/file_create", [f'{{"filename": "{turn}.txt"}}' for turn in range(10)])]
    threads = [threading.Thread(target=write, args=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
    assert not failures
    assert kata.accepted() == 40
    subjects = git(kata.stored, "log", "--format=%s", "main").decode().splitlines()
    assert sum(subject.startswith("set option") for subject in subjects) == 20
    assert sorted(os.listdir(kata.shown / "files"))[:3] == ["0.txt", "1.txt", "2.txt"]
