"""Plain-path services on the mount: their system calls, one by one (FORMAT §3.1)."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.katas import assert_sound, git, stored_rows
from tests.mounts import MakeMount, katafs, patience, wait_until
from tests.plain_katas import comparable, make_plain_kata, parse_rows
from tests.scratch import fast_directory


@pytest.fixture
def store() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as directory:
        yield Path(directory)


def file_create(path: Path, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    assert os.write(fd, text.encode()) == len(text.encode())
    os.close(fd)
    return True


def file_append(path: Path, text: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert os.write(fd, text.encode()) == len(text.encode())
    os.close(fd)
    return True


def file_read(path: Path) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    size = os.fstat(fd).st_size
    data = os.read(fd, size)
    assert len(data) == size
    assert os.read(fd, 8192) == b""
    os.close(fd)
    return data.decode()


def dir_make(path: Path) -> bool:
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    return True


def event_of(index: int, version: int, text: str = "x=1\n") -> tuple[dict[str, Any], dict[str, Any]]:
    """An event file and its row."""
    content: Any = text if version else [text]
    empty: Any = "" if version else [""]
    row: dict[str, Any] = {"duration": 1.5, "colour": "red", "predicted": "none"}
    row |= {"index": index} if version else {}
    row["time"] = [2021, 5, 15, 7, index % 60, 2, 1017]
    event: dict[str, Any] = {
        "files": {"a.py": {"content": content}, "report/cov.txt": {"content": content, "truncated": False}},
        "stdout": {"content": empty, "truncated": False},
        "stderr": {"content": content, "truncated": True},
        "status": "0" if version else 0,
    }
    return event | (row if version else {}), row


def ran_tests(kata: Path, index: int, version: int, text: str = "x=1\n") -> bool:
    """What such a service does; False when somebody has the index."""
    event, row = event_of(index, version, text)
    if not version and not dir_make(kata / str(index)):
        return False
    name = f"{index}.event.json" if version else f"{index}/event.json"
    if not file_create(kata / name, json.dumps(event, separators=(",", ":"))):
        return False
    compact = json.dumps(row, separators=(",", ":"))
    assert file_append(kata / "events.json", ",\n" + compact if version else compact + "\n")
    return True


@pytest.mark.parametrize("version", [0, 1])
def test_events(store: Path, mount: MakeMount, mode: str, version: int) -> None:
    """On a kata that is stored plain, and then on what it became."""
    written = make_plain_kata(store, "AbCdEf", version, 3, events=3)
    kata = mount(store, mode).kata("AbCdEf")
    for index in (3, 4, 7):
        assert ran_tests(kata, index, version)
        event, row = event_of(index, version)
        name = f"{index}.event.json" if version else f"{index}/event.json"
        assert json.loads(file_read(kata / name)) == event
        assert list(parse_rows(file_read(kata / "events.json"))[-1].items()) == list(row.items())
        assert assert_sound_with_outages(written.path) == index
        assert os.readlink(kata / "events/latest") == str(index)
        assert (kata / "files/a.py").read_text() == "x=1\n"
        assert not ran_tests(kata, index, version)
    assert len(parse_rows(file_read(kata / "events.json"))) == 6
    for taken in (0, 2, 5):
        # an outage's index, too
        assert not ran_tests(kata, taken, version)
    assert git(written.path, "log", "-1", "--format=%ct").decode().strip() == "1621062422"


def assert_sound_with_outages(path: Path) -> int:
    assert git(path, "fsck", "--strict", "--full", "--no-dangling") == b""
    rows = stored_rows(path)
    assert [row["index"] for row in rows] == list(range(len(rows)))
    assert {int(tag) for tag in git(path, "tag").split()} == set(range(len(rows)))
    return len(rows) - 1


def test_a_control_file_waits_for_a_row(store: Path, mount: MakeMount) -> None:
    """In version 0 nothing else says which colour the event has."""
    written = make_plain_kata(store, "AbCdEf", 0, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    event, row = event_of(3, 0)
    assert dir_make(kata / "3")
    assert file_create(kata / "3" / "event.json", json.dumps(event))
    message = json.dumps({"summary": {"colour": "green"}})
    with ThreadPoolExecutor() as pool:
        control = pool.submit((kata / "ran_tests").write_text, message)
        time.sleep(0.3)
        assert file_append(kata / "events.json", json.dumps(row) + "\n")
        control.result()
    assert assert_sound(written.path) == 4
    assert [one["colour"] for one in stored_rows(written.path)[3:]] == [row["colour"], "green"]


def test_the_next_directory_is_made_before_the_row_comes(store: Path, mount: MakeMount) -> None:
    """It keeps nobody from appending the row, which says no index in version 0."""
    written = make_plain_kata(store, "AbCdEf", 0, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    (one, its_row), (other, other_row) = event_of(3, 0), event_of(4, 0)
    assert dir_make(kata / "3")
    assert file_create(kata / "3/event.json", json.dumps(one))
    assert dir_make(kata / "4")
    assert not dir_make(kata / "4")
    with ThreadPoolExecutor() as pool:
        second = pool.submit(file_create, kata / "4/event.json", json.dumps(other))
        assert file_append(kata / "events.json", json.dumps(its_row) + "\n")
        assert second.result()
    assert file_append(kata / "events.json", json.dumps({**other_row, "colour": "green"}) + "\n")
    assert assert_sound(written.path) == 4
    assert [row.get("colour") for row in stored_rows(written.path)[3:]] == ["red", "green"]


def test_an_index_is_taken_before_the_event_is_whole(store: Path, mount: MakeMount) -> None:
    """What was acknowledged goes after it."""
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    event, row = event_of(3, 1)
    fd = os.open(kata / "3.event.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    (kata / "ran_tests").write_text(json.dumps({"summary": {"colour": "green"}}))
    os.write(fd, json.dumps(event).encode())
    os.close(fd)
    assert file_append(kata / "events.json", ",\n" + json.dumps(row))
    assert assert_sound(written.path) == 4
    assert [(one["index"], one["colour"]) for one in stored_rows(written.path)[3:]] == [(3, "green"), (4, "red")]


def test_between_the_two_writes(store: Path, mount: MakeMount) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    before = parse_rows(file_read(kata / "events.json"))
    event, row = event_of(3, 1)
    assert file_create(kata / "3.event.json", json.dumps(event))
    assert json.loads(file_read(kata / "3.event.json")) == event
    assert parse_rows(file_read(kata / "events.json")) == before
    assert not file_create(kata / "3.event.json", "{}")
    assert "3.event.json" in os.listdir(kata)
    # the next event begins, and the row is written from the event file
    assert ran_tests(kata, 4, 1)
    rows = parse_rows(file_read(kata / "events.json"))
    assert [one["index"] for one in rows] == [0, 1, 2, 3, 4]
    assert list(rows[3].items()) == list(row.items())
    # and when it comes after all it is not shown twice
    assert file_append(kata / "events.json", ",\n" + json.dumps(row))
    assert parse_rows(file_read(kata / "events.json")) == rows
    assert assert_sound(written.path) == 4
    assert comparable(json.loads(file_read(kata / "3.event.json"))) == comparable(event)


def test_what_was_written_survives_the_daemon(store: Path, mount: MakeMount) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    first = mount(store)
    event, row = event_of(3, 1)
    assert file_create(first.kata("AbCdEf") / "3.event.json", json.dumps(event))
    first.kill()
    kata = mount(store).kata("AbCdEf")
    assert json.loads(file_read(kata / "3.event.json")) == event
    assert not file_create(kata / "3.event.json", "{}")
    assert file_append(kata / "events.json", ",\n" + json.dumps(row))
    assert assert_sound(written.path) == 3


def test_a_control_file_comes_between(store: Path, mount: MakeMount) -> None:
    """Its event goes after the one that waits for its row."""
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    event, _ = event_of(3, 1)
    assert file_create(kata / "3.event.json", json.dumps(event))
    (kata / "ran_tests").write_text(json.dumps({"summary": {"colour": "green"}}))
    assert assert_sound(written.path) == 4
    assert [row["colour"] for row in stored_rows(written.path)[3:]] == ["red", "green"]


@pytest.mark.parametrize("version", [0, 1])
def test_options(store: Path, mount: MakeMount, version: int) -> None:
    written = make_plain_kata(store, "AbCdEf", version, 4, events=1)
    name = next(name for name in ("predict", "revert_red", "colour") if name not in written.options)
    kata = mount(store).kata("AbCdEf")
    for value, created in (("off", True), ("on", False), ("off", False)):
        assert file_create(kata / name, f"\n{value}") is created
        assert file_append(kata / name, f"\n{value}")
        assert file_read(kata / name).rpartition("\n")[2] == value
        assert (kata / "config" / name).read_text() == f"{value}\n"
    assert file_read(kata / name) == "\noff\noff\non\noff"


@pytest.mark.parametrize(
    "text", ['{"files":{"../x":{"content":""}},"colour":"red"}', '{"files":{"a":{"content":7}},"colour":"red"}']
)
def test_what_is_no_event(store: Path, mount: MakeMount, text: str) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    fd = os.open(kata / "3.event.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with pytest.raises(OSError, match="Invalid argument"):
        os.write(fd, text.encode())
    os.close(fd)
    assert ran_tests(kata, 3, 1)
    assert assert_sound(written.path) == 3


def race(kata: Path, version: int, number: int, count: int, won: Any) -> None:
    """Write events as services that do not know of one another."""
    mine = 0
    while mine < count:
        last = max(int(name) for name in os.listdir(kata / "events") if name != "latest")
        if ran_tests(kata, last + 1, version, f"{number} {mine}\n"):
            won.put((last + 1, number, mine))
            mine += 1


def test_one_winner_for_each_index(store: Path, mount: MakeMount) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    won: Any = multiprocessing.Queue()
    writers = [multiprocessing.Process(target=race, args=(kata, 1, number, 4, won)) for number in range(6)]
    try:
        for writer in writers:
            writer.start()
        winners = [won.get(timeout=patience(60)) for _ in range(24)]
        for writer in writers:
            writer.join(patience(60))
    finally:
        for writer in writers:
            writer.kill()
    assert sorted(index for index, _, _ in winners) == list(range(3, 27))
    assert assert_sound(written.path) == 26
    for index, number, mine in winners:
        assert (kata / f"events/{index}/files/a.py").read_text() == f"{number} {mine}\n"


def create_kata(kata: Path, version: int) -> bool:
    """Make a kata as a service does: the directory decides."""
    created = [2021, 5, 15, 7, 0, 0, 5]
    manifest: dict[str, Any] = {
        "display_name": "Bash",
        "exercise": "Leap",
        "created": created,
        "id": "".join(kata.parts[-3:]),
    }
    content: Any = "x=1\n" if version else ["x=1\n"]
    files = {"a.sh": {"content": content}}
    row = {"index": 0, "time": created, "event": "created"} if version else {"event": "created", "time": created}
    if version:
        for path in (kata.parent.parent, kata.parent):
            dir_make(path)
        if not dir_make(kata):
            return False
        assert file_create(kata / "manifest.json", json.dumps({**manifest, "version": 1, "visible_files": files}))
        assert file_create(kata / "events.json", json.dumps(row))
        assert file_create(kata / "0.event.json", json.dumps({"files": files, **row}))
        return True
    for path in (kata.parent.parent, kata.parent, kata):
        dir_make(path)
    if not dir_make(kata / "0"):
        return False
    assert file_create(kata / "manifest.json", json.dumps(manifest))
    assert file_create(kata / "0/event.json", json.dumps({"files": files}))
    assert file_create(kata / "events.json", json.dumps(row) + "\n")
    return True


@pytest.mark.parametrize("version", [0, 1])
def test_new_katas(store: Path, mount: MakeMount, mode: str, version: int) -> None:
    mounted = mount(store, mode)
    kata = mounted.kata("Py0001")
    assert create_kata(kata, version)
    assert (store / "Py/00/01/.git").is_dir()
    assert os.readlink(kata / "events/latest") == "0"
    assert (kata / "files/a.sh").read_text() == "x=1\n"
    assert json.loads(file_read(kata / "manifest.json"))["exercise"] == "Leap"
    assert not create_kata(kata, version)
    assert ran_tests(kata, 1, version)
    assert assert_sound(store / "Py/00/01") == 1
    rows = parse_rows(file_read(kata / "events.json"))
    assert [row.get("colour") for row in rows] == [None, "red"]


def test_only_katas_can_be_made(store: Path, mount: MakeMount) -> None:
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    top = mount(store)
    for path in (top.path / "nothing", top.path / "Ab" / "i0", top.kata("AbCdEf") / "files2", top.kata("AbCdEf") / "5"):
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(path)
    for path in (top.path / "x", top.path / "Ab/12", top.kata("AbCdEf") / "notes.txt", top.kata("AbCdEf") / "events/9"):
        with pytest.raises(OSError, match="Read-only"):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    assert not (written.path / ".git").exists()


def test_a_row_that_never_comes(store: Path, mount: MakeMount) -> None:
    """After a minute the row is written from the event file; here the minute is over already."""
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    kata = mount(store).kata("AbCdEf")
    event, row = event_of(3, 1)
    assert file_create(kata / "3.event.json", json.dumps(event))
    waiting = written.path / ".katafs-pending/3.event.json"
    os.utime(waiting, (time.time() - 61, time.time() - 61))
    wait_until(lambda: not waiting.exists(), "the row")
    wait_until(lambda: len(parse_rows(file_read(kata / "events.json"))) == 4, "the row in the mount")
    assert list(parse_rows(file_read(kata / "events.json"))[3].items()) == list(row.items())
    assert json.loads(file_read(kata / "3.event.json")) == event
    assert assert_sound(written.path) == 3


def test_a_row_at_the_end_of_a_page(store: Path, mount: MakeMount, mode: str) -> None:
    """The kernel cuts a write there: a row comes in two parts."""
    written = make_plain_kata(store, "AbCdEf", 1, 3, events=3)
    kata = mount(store, mode).kata("AbCdEf")
    index = 3
    while (kata / "events.json").stat().st_size < 4200:
        assert ran_tests(kata, index, 1)
        index += 1
    assert len(parse_rows(file_read(kata / "events.json"))) == index
    assert assert_sound(written.path) == index - 1


def race_until(katas: list[Path], version: int, number: int, stop: float, won: Any) -> None:
    """Write events to all katas in turn until then."""
    turn = 0
    while time.monotonic() < stop:
        kata = katas[(number + turn) % len(katas)]
        last = max(int(name) for name in os.listdir(kata / "events") if name != "latest")
        if ran_tests(kata, last + 1, version, f"{number} {turn}\n"):
            won.put((kata.name, last + 1, number, turn))
        turn += 1
    won.put(None)


def read_until(katas: list[Path], stop: float, counted: Any) -> None:
    """Read ``events.json`` until then: always whole rows, and never fewer."""
    count, seen = 0, dict.fromkeys(katas, 0)
    while time.monotonic() < stop:
        for kata in katas:
            rows = parse_rows((kata / "events.json").read_text())
            assert [row.get("index", at) for at, row in enumerate(rows)] == list(range(len(rows)))
            assert len(rows) >= seen[kata]
            seen[kata] = len(rows)
            count += 1
    counted.put(count)


@pytest.mark.slow
@pytest.mark.parametrize("version", [0, 1])
def test_sixteen_services(store: Path, mount: MakeMount, version: int) -> None:
    """One winner for each index, and no torn read of ``events.json``, for half a minute."""
    made = [make_plain_kata(store, f"AbCd{number:02}", version, 3, events=3) for number in range(4)]
    mounted = mount(store)
    katas = [mounted.kata(written.kata_id) for written in made]
    won: Any = multiprocessing.Queue()
    counted: Any = multiprocessing.Queue()
    stop = time.monotonic() + 30
    processes = [
        multiprocessing.Process(target=race_until, args=(katas, version, number, stop, won)) for number in range(16)
    ]
    processes += [multiprocessing.Process(target=read_until, args=(katas, stop, counted)) for _ in range(2)]
    winners, ended = [], 0
    try:
        for process in processes:
            process.start()
        while ended < 16:
            winner = won.get(timeout=patience(90))
            ended += winner is None
            winners += [winner] if winner is not None else []
        counts = [counted.get(timeout=patience(60)) for _ in range(2)]
        for process in processes:
            process.join(patience(60))
    finally:
        for process in processes:
            process.kill()
    assert [process.exitcode for process in processes] == [0] * 18
    assert min(counts) > 100
    for kata, written in zip(katas, made, strict=True):
        indexes = sorted(index for name, index, _, _ in winners if name == kata.name)
        assert indexes == list(range(3, assert_sound(written.path) + 1))
    for name, index, number, turn in winners:
        kata = next(kata for kata in katas if kata.name == name)
        assert (kata / f"events/{index}/files/a.py").read_text() == f"{number} {turn}\n"


@pytest.mark.parametrize("version", [0, 1])
def test_who_has_plain_files_open_while_the_kata_is_migrated(store: Path, mount: MakeMount, version: int) -> None:
    """What is appended to them afterwards goes where it belongs."""
    written = make_plain_kata(store, "AbCdEf", version, 3, events=3)
    (written.path / "predict").write_text("\non\non")
    kata = mount(store).kata("AbCdEf")
    with open(kata / "events.json", "a") as events, open(kata / "predict", "a") as option:
        katafs("migrate", store)
        event, row = event_of(3, version)
        assert version or dir_make(kata / "3")
        assert file_create(kata / ("3.event.json" if version else "3/event.json"), json.dumps(event))
        events.write((",\n" if version else "") + json.dumps(row) + "\n")
        option.write("\noff")
    assert parse_rows(file_read(kata / "events.json"))[-1] == row
    assert (kata / "config/predict").read_text() == "off\n"
    assert assert_sound(written.path) == 3
