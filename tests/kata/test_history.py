"""The history as data and as text, on the command line and in a mount."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.model.kinds import Kind
from katafs.kata.model.steps import Step, csv_lines, history, history_text
from katafs.kata.reader import reader
from katafs.kata.record.commit import record
from katafs.kata.record.message import parse_act
from katafs.text import visible
from tests.katas import (
    START,
    add_event,
    git_commit,
    git_event,
    long_store,
    make_kata,
    message,
    pretty_json,
    row_time,
    stored_rows,
    unpack,
)
from tests.mounts import MakeMount, katafs, patience, wait_until
from tests.plain_katas import Written, make_plain_kata

ROWS = [
    {"index": 0, "event": "created", "time": row_time(0)},
    {"index": 1, "colour": "red", "predicted": "green", "duration": 1.25, "time": row_time(60), "laptop_id": "b" * 64},
    {"index": 2, "event": "outage"},
    {"index": 3, "colour": "file_rename", "old_filename": "a", "new_filename": "b\x1b[31m", "time": row_time(70)},
    {"index": 4, "colour": "green", "revert": ["AbCdEf", 1], "diff_added_count": 3, "diff_deleted_count": 0},
    {"index": 5, "colour": "amber_special", "predicted": "amber", "checkout": {"id": "ZzZzZz", "index": 9}},
    {"index": 6, "colour": ["?"], "time": "now", "duration": True, "predicted": 7, "diff_added_count": -1},
]
TEXT = """\
event  light  what                             time (UTC)             took  predicted      +   -  laptop
    0         created                          2026-02-03 04:05:06
    1  red    ran tests                        2026-02-03 04:06:06  1.25 s  green, wrong               1
    2         nothing recorded
    3         renamed file “a” to “b␛[31m”  2026-02-03 04:06:16
    4  green  reverted to 1                                                                 +3  -0
    5  amber  checked out ZzZzZz 9                                          amber, right
    6         ran tests
"""


def test_rows_of_every_era() -> None:
    steps = history(ROWS, "AbCdEf")
    text = history_text(steps).decode()
    assert [line.split() for line in text.splitlines()] == [line.split() for line in TEXT.splitlines()]
    titles, *lines = text.splitlines()
    assert [line.index("+3") for line in lines if "+3" in line] == [titles.index("+") - 1]
    assert [step.is_right for step in steps] == [None, False, None, None, None, True, None]


def test_text_that_a_terminal_would_obey() -> None:
    assert (
        visible("a\tb\n\x1b]0;x\x07\x9b\u202e\u200b\x7f\ud800é日") == "a\tb\n␛]0;x␇⟨U+009B⟩⟨U+202E⟩⟨U+200B⟩␡\ufffdé日"
    )


@pytest.fixture
def two(store: Path) -> Path:
    """A kata with two events."""
    path = make_kata(store, "AAAAAA")
    add_event(path, 1, files={"hiker.py": "def answer():\n    return 42\n", "cyber-dojo.sh": "pytest\n"})
    evil = {"content": "\x1b]0;owned\x07 \x1b[31mfailed\x1b[0m\n"}
    add_event(path, 2, files={"b.py": "x\n"}, colour="green", stdout=evil)
    return path


def test_history_in_a_mount(mount: MakeMount, store: Path, two: Path, mode: str) -> None:
    shown = mount(store, mode).kata("AAAAAA")
    file = shown / "history"
    for last in (2, 3):
        data = file.read_bytes()
        assert file.stat().st_size == len(data)
        assert file.stat().st_mtime_ns == (shown / "stdout").stat().st_mtime_ns
        assert len(data.splitlines()) == last + 2
        assert data.decode() == katafs("log", shown).stdout.decode() == katafs("log", two).stdout.decode()
        if last == 2:
            (shown / "ran_tests").write_text('{"summary": {"colour": "amber"}}')
    git_event(two, "by somebody else")
    wait_until(lambda: len(file.read_bytes().splitlines()) == 6, "an event by somebody else")
    assert file.stat().st_size == len(file.read_bytes())


def test_log_and_show_of_a_mount_and_a_store_are_the_same(mount: MakeMount, store: Path, two: Path) -> None:
    shown = mount(store).kata("AAAAAA")
    for index in range(3):
        said = katafs("show", two, index).stdout.decode()
        assert said == katafs("show", shown, index).stdout.decode()
        assert "\x1b" not in said
        assert "\x07" not in said
    said = katafs("show", two).stdout.decode()
    assert said.startswith("event 2: ran tests, green\n")
    for line in ("    ␛]0;owned␇ failed", "deleted file mode 100644", "-    return 42", "+x"):
        assert line in said.splitlines()


def test_no_kata_and_no_event(two: Path, tmp_path: Path) -> None:
    for arguments in (("log", tmp_path), ("show", two, 3), ("show", tmp_path / "none", 1)):
        result = katafs(*arguments, check=False)
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr.startswith(b"katafs: ")
        assert result.stderr.count(b"\n") == 1


def test_several_katas(two: Path, store: Path, tmp_path: Path) -> None:
    """Each below its name, also after one that cannot be read, of which a line tells."""
    one = make_kata(store, "BBBBBB")
    closed = tmp_path / "closed/kata"
    closed.mkdir(parents=True)
    closed.parent.chmod(0)
    odd = [tmp_path / "none", tmp_path, closed]
    for command, last in (("log", []), ("show", []), ("show", ["latest"]), ("show", [0])):
        result = katafs(command, two, *odd, one, *last, check=False)
        assert (result.returncode, result.stderr.count(b"\n")) == (1, 3)
        assert all(str(path) in result.stderr.decode() for path in odd)
        alone = [katafs(command, path, *last).stdout.decode() for path in (two, one)]
        assert result.stdout.decode() == f"{two}\n{alone[0]}\n{one}\n{alone[1]}"
    result = katafs("show", one, two, "2", check=False)
    assert result.stderr == f"katafs: {one}: there is no event 2; the newest is 0\n".encode()
    assert result.stdout.startswith(f"{two}\nevent 2: ".encode()) == (result.returncode == 0)
    assert b"event 2: ran tests" in result.stdout


def test_a_directory_that_is_called_like_an_event(two: Path, tmp_path: Path) -> None:
    """A name alone is a kata, and so is what has a slash in it."""
    (tmp_path / "12").symlink_to(two)
    commands = [["show", "12"], ["show", "12", "2"], ["show", "./12", "latest"], ["show", "12", "./12"]]
    start = [sys.executable, "-m", "katafs"]
    runs = [subprocess.run([*start, *command], cwd=tmp_path, capture_output=True, check=True) for command in commands]
    said = [run.stdout for run in runs]
    assert said[0] == said[1] == said[2]
    assert said[3].count(said[0]) == 2


def test_for_other_programs(two: Path, store: Path, tmp_path: Path) -> None:
    """CSV and JSON say the same of each event, with nothing that a spreadsheet or a terminal would obey."""
    row = {"index": 3, "colour": "=1+1", "time": row_time(3), "type": "file_rename", "predicted": 5}
    rows = [*stored_rows(two), {**row, "old_filename": '-1\n,"', "new_filename": "\x1b[31m@x", "duration": True}]
    assert git_commit(two, "3 renamed", {"events_summary.json": pretty_json(rows)})
    copy = tmp_path / "copy"
    shutil.copytree(two, copy)
    katas = (two, tmp_path / "none", copy)
    table = katafs("log", "--csv", *katas, check=False)
    lines = katafs("log", "--json", *katas, check=False)
    assert table.returncode == lines.returncode == 1
    events = [json.loads(line) for line in lines.stdout.decode().splitlines()]
    cells = list(csv.DictReader(io.StringIO(table.stdout.decode())))
    assert [event["kata"] for event in events] == ["AAAAAA"] * 4 + [str(copy)] * 4
    assert events[2] == {
        "kata": "AAAAAA",
        "event": 2,
        "type": "test",
        "light": "green",
        "time": "2026-02-03T04:07:06.789012Z",
        "duration": 1.25,
        "predicted": None,
        "right": None,
        "added": 1,
        "deleted": 3,
        "file": None,
        "old_file": None,
        "origin": None,
        "laptop": None,
    }
    assert (events[3]["old_file"], events[3]["file"]) == ('-1␊,"', "␛[31m@x")
    assert (cells[3]["old_file"], cells[3]["file"], cells[3]["light"]) == ("'-1␊,\"", "␛[31m@x", "")
    assert len(cells) == len(events) == 8
    for cell, event in zip(cells, events, strict=True):
        assert cell.keys() == event.keys()
        assert {name: value.removeprefix("'") for name, value in cell.items()} == {
            name: "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in event.items()
        }


def test_formulas_of_double_width() -> None:
    """Spreadsheets that are set to Chinese or Japanese take them for their own."""
    assert csv_lines([["\uff1d1", "\uff0d1", "a=1", -1]]) == "'\uff1d1,'\uff0d1,a=1,-1\n"


@pytest.mark.parametrize("archive", ["v0-5rTJv5", "v1-38w9NC", "v1-5U2J18", "saver-v2-rG63fy"])
def test_log_and_show_of_real_katas(shared_katas: Path, store: Path, archive: str) -> None:
    unpack(shared_katas / f"{archive}.tgz", store)
    kata_id = archive[-6:]
    path = store / kata_id[:2] / kata_id[2:4] / kata_id[4:]
    lines = katafs("log", path).stdout.decode().splitlines()
    assert len(lines) >= 3
    assert lines[1].split()[:2] == ["0", "created"]
    assert all(line.split()[1] in ("red", "amber", "green") for line in lines[2:])
    for index in range(len(lines) - 1):
        assert katafs("show", path, index).stdout.startswith(f"event {index}: ".encode())


@pytest.mark.parametrize("layout", ["native", "plain"])
def test_what_the_runner_cut_short_is_said(store: Path, layout: str) -> None:
    if layout == "native":
        path = make_kata(store, "AbCdEf")
        files = {"files": {"a.txt": {"content": "a\n", "truncated": True}, "b.txt": {"content": "b\n"}}}
        text = {**message(index=1, stdout={"content": "out\n", "truncated": True}), **files}
        record(path, "AbCdEf", parse_act(Kind.RAN_TESTS, json.dumps(text).encode()), START)
    else:
        make_plain_kata(store, "AbCdEf", 1, seed=1, events=2)
        path = store / "Ab/Cd/Ef"
        event = json.loads((path / "1.event.json").read_text())
        event["files"] = {"a.txt": {"content": "a\n", "truncated": True}, "b.txt": {"content": "b\n"}}
        event["stdout"], event["stderr"] = {"content": "out\n", "truncated": True}, {"content": "", "truncated": False}
        (path / "1.event.json").write_text(json.dumps(event))
    said = [katafs("show", path, index).stdout.decode() for index in (0, 1)]
    assert "cut short" not in said[0]
    assert "\ncut short  stdout, files/a.txt\n" in said[1]


@pytest.mark.parametrize(("setting", "is_coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_on_a_terminal(two: Path, setting: dict[str, str], is_coloured: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | setting
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "katafs", "log", str(two)]
    subprocess.run(command, stdout=theirs, env=environment, check=True, timeout=patience(60))
    os.close(theirs)
    said = os.read(ours, 1 << 16)
    os.close(ours)
    assert (b"\x1b[" in said) == is_coloured
    assert b"red" in said


def test_head_takes_the_first_lines(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = long_store(tmp_path_factory.getbasetemp()) / "Ln/gK/at"
    script = f"for i in 1 2 3; do {sys.executable} -m katafs log {path} | head -1; done"
    result = subprocess.run(["bash", "-c", script], capture_output=True, check=True, timeout=patience(60))
    assert result.stdout.count(b"event") == 3
    assert result.stderr == b""


def test_a_message_is_a_step() -> None:
    row = {**message(colour="red")["summary"], "index": 0}
    assert history([row])[0].index == 0


@pytest.mark.parametrize("version", [0, 1])
def test_log_and_show_before_and_after_migration(tmp_path: Path, version: int) -> None:
    """With skipped indexes, events out of order, missing outputs."""
    for seed in (4, 9, 11):
        written = make_plain_kata(tmp_path, f"{seed:06}", version, seed)
        read = read_of(written)
        assert len(read) == written.last + 1
        assert migrate_kata(written.path, written.kata_id) is not None
        assert read_of(written) == read


def read_of(written: Written) -> list[tuple[Step, dict[str, str], bool]]:
    """What the commands tell of each event: the step, the outputs, and whether its files differ from the first ones."""
    found = reader(written.path)
    steps = history([{key: value for key, value in row.items() if key != "type"} for row in found.rows()])
    return [(step, found.outputs(step.index), found.diff(0, step.index) != "") for step in steps]
