"""What is visible, to whom, and when; many clients, several daemons and git on one kata; long runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.katas import (
    Served,
    assert_sound,
    git,
    git_commit,
    git_event,
    make_kata,
    message,
    pretty_json,
    serve_kata,
    stored_rows,
)
from tests.mounts import MakeMount, Mount, patience, wait_until


@pytest.fixture
def kata(served: Mount) -> Served:
    return serve_kata(served, {"changing.txt": "0\n", "same.txt": "same\n"})


def record(kata: Served, text: str, **more: object) -> None:
    """A test run: all that it writes has the text in it. With its index, so that it is one event."""
    more = {"index": len(stored_rows(kata.stored)), **more}
    files = {"changing.txt": text, "same.txt": "same\n", f"in {text}/new.txt": text}
    kata.ran_tests.write_text(json.dumps({**message(files), "stdout": {"content": text}, **more}))


def seen_by_python(shown: Path) -> dict[str, object]:
    """The newest event as this process sees it, all by path."""
    listed = os.listdir(shown / "events")
    rows = json.loads((shown / "events_summary.json").read_bytes())
    return {
        "events": sorted(listed),
        "latest": os.readlink(shown / "events/latest"),
        "diff": os.readlink(shown / "diff/latest") if len(listed) > 2 else None,
        "rows": len(rows),
        "row": rows[-1] == json.loads((shown / "event.json").read_bytes()),
        "size": (shown / "events_summary.json").stat().st_size == len((shown / "events_summary.json").read_bytes()),
        "files": sorted(os.listdir(shown / "files")),
        "content": (shown / "files/changing.txt").read_text(),
        "content size": (shown / "files/changing.txt").stat().st_size,
        "stdout": (shown / "stdout").read_text(),
        "of the event": (shown / "events" / str(len(rows) - 1) / "stdout").read_text(),
    }


SEEN_BY_SHELL = """
echo events/* files/*; cat files/changing.txt stdout events/latest/stdout
stat -c %s files/changing.txt; readlink events/latest
"""


def test_own_commits_are_visible_at_once(kata: Served) -> None:
    """To this process and to another, twenty times in a row, each time with everything in the kernel's caches."""
    with (kata.shown / "files/changing.txt").open("rb") as opened:
        assert opened.read() == b"0\n"
        for index in range(1, 21):
            seen_by_python(kata.shown)
            text = "x" * (index % 7) + f"{index}"
            record(kata, text)
            assert seen_by_python(kata.shown) == {
                "events": sorted(["latest", *map(str, range(index + 1))]),
                "latest": str(index),
                "diff": f"{index - 1}..{index}",
                "rows": index + 1,
                "row": True,
                "size": True,
                "files": sorted(["changing.txt", "same.txt", f"in {text}"]),
                "content": text,
                "content size": len(text),
                "stdout": text,
                "of the event": text,
            }
            result = subprocess.run(["sh", "-c", SEEN_BY_SHELL], cwd=kata.shown, capture_output=True, check=True)
            events = " ".join(sorted(["events/latest", *(f"events/{number}" for number in range(index + 1))]))
            files = f"files/changing.txt files/in {text} files/same.txt"
            assert result.stdout.decode() == f"{events} {files}\n{text * 3}{len(text)}\n{index}\n"
        assert os.pread(opened.fileno(), 10, 0) == b"0\n", "what is open stays what it was"
    assert assert_sound(kata.stored) == 20


@pytest.mark.parametrize("tag", [True, False], ids=["tagged", "not tagged"])
def test_commits_by_git_are_visible_within_a_second(kata: Served, tag: bool) -> None:
    """Also where every cache of the kernel is warm; and a row that can be seen can be read."""
    shown = kata.shown
    for _ in range(2):
        seen_by_python(shown)
        index = len(stored_rows(kata.stored))
        text = f"by git {index}\n"
        seen_by_python(shown)
        git_event(kata.stored, text, tag=tag)

        def is_visible(index: int = index, text: str = text) -> bool:
            rows = json.loads((shown / "events_summary.json").read_bytes())
            if len(rows) > index:
                assert (shown / "events" / str(index) / "stdout").read_text() == text
                assert json.loads((shown / "events" / f"{index}.json").read_bytes())["index"] == index
            return (
                len(rows) == index + 1
                and str(index) in os.listdir(shown / "events")
                and os.readlink(shown / "events/latest") == str(index)
                and "other.txt" in os.listdir(shown / "files")
                and (shown / "files/other.txt").read_text() == text
                and (shown / "stdout").read_text() == text
                and json.loads((shown / "event.json").read_bytes())["index"] == index
            )

        wait_until(is_visible, "the commit", seconds=1.0)
    record(kata, "mine")
    assert seen_by_python(shown)["content"] == "mine"


def test_two_commits_of_one_moment(kata: Served) -> None:
    """By somebody else, their rows with the same time to the microsecond."""
    for index in (1, 2, 3):
        rows = stored_rows(kata.stored)
        row = {"colour": "red", "index": index, "time": [2026, 2, 3, 4, 5, 6, 7], "type": "test"}
        changes = {"event.json": pretty_json(row), "events_summary.json": pretty_json([*rows, row])}
        assert git_commit(kata.stored, f"{index} ran tests, no prediction, got red", changes)
        wait_until(lambda: str(index) in os.listdir(kata.shown / "events"), "the event", seconds=5.0)  # noqa: B023


def test_an_option_set_by_git(kata: Served) -> None:
    theme = kata.shown / "config/theme"
    assert theme.read_text() == "light\n"
    assert git_commit(kata.stored, "set option theme to dark", {"config/theme": b"dark\n"})
    wait_until(lambda: theme.read_text() == "dark\n", "the option", seconds=1.0)
    assert theme.stat().st_size == 5
    record(kata, "one")
    assert theme.read_text() == "dark\n"
    assert kata.accepted() == 1


def test_two_mounts_of_one_store(served: Mount, kata: Served, mount: MakeMount) -> None:
    other = Served(kata.stored, mount(served.store, served.mode).kata("".join(kata.shown.parts[-3:])))
    for turn in range(1, 4):
        for here, there in ((kata, other), (other, kata)):
            seen_by_python(there.shown)
            record(here, f"{turn} {here.shown.parts[-4]}")
            expected = seen_by_python(here.shown)
            assert expected["content"] == f"{turn} {here.shown.parts[-4]}"
            wait_until(lambda: seen_by_python(there.shown) == expected, "the commit", seconds=1.0)  # noqa: B023
    assert other.accepted() == 6


# -- many clients

CLIENT = """
import json, os, sys
path, name, indexes = sys.argv[1], sys.argv[2], sys.argv[5] == "indexes"
count, size, lost = int(sys.argv[3]), int(sys.argv[4]), 0
for turn in range(1, count + 1):
    text = {"content": f"{name} {turn}"}
    summary = {"colour": "red", "by": f"{name} {turn}"}
    message = {"files": {f"{name} {turn}.txt": text}, "stdout": text, "summary": summary}
    data = json.dumps({**message, **({"index": turn} if indexes else {})}).encode()
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    try:
        for at in range(0, len(data), size):
            os.write(fd, data[at : at + size])
    except FileExistsError:
        lost += 1
    finally:
        os.close(fd)
print(lost)
"""


def run_clients(paths: Sequence[Path], count: int, sizes: Sequence[int], indexes: str = "") -> list[int]:
    """One process for each path, all at once; how many messages each was told to be late with."""
    processes: list[subprocess.Popen[str]] = []
    try:
        for number, path in enumerate(paths):
            arguments = [str(path), f"p{number}", str(count), str(sizes[number % len(sizes)]), indexes]
            command = [sys.executable, "-c", CLIENT, *arguments]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        answers = [process.communicate(timeout=patience(60)) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert all(process.returncode == 0 and not err for process, (_, err) in zip(processes, answers, strict=True)), (
        answers
    )
    return [int(out) for out, _ in answers]


def assert_all_recorded(kata: Served, clients: int, count: int) -> None:
    """Each message of each client once, in its client's order; every event is one whole message."""
    assert assert_sound(kata.stored) == clients * count
    told = [row["by"] for row in stored_rows(kata.stored)[1:]]
    for number in range(clients):
        assert [by for by in told if by.startswith(f"p{number} ")] == [f"p{number} {turn + 1}" for turn in range(count)]
    for index, by in enumerate(told, 1):
        event = kata.shown / "events" / str(index)
        assert (event / "stdout").read_text() == by
        assert {path.name: path.read_text() for path in (event / "files").iterdir()} == {f"{by}.txt": by}


def test_eight_clients_at_once(kata: Served) -> None:
    """Half of them in pieces."""
    assert run_clients([kata.ran_tests] * 8, 20, [10_000, 13, 64, 100]) == [0] * 8
    assert_all_recorded(kata, 8, 20)


def test_each_client_gets_its_own_answer(kata: Served) -> None:
    """All want the same indexes: of each one is the first, and the others hear of it."""
    late = run_clients([kata.ran_tests] * 5, 12, [10_000, 20], "indexes")
    assert sum(late) == 4 * 12
    assert assert_sound(kata.stored) == 12


def test_threads_with_a_descriptor_each(kata: Served) -> None:
    failures: list[OSError] = []

    def write(number: int) -> None:
        with kata.ran_tests.open("wb", buffering=0) as file:
            for turn in range(1, 9):
                by = f"p{number} {turn}"
                text, summary = {"content": by}, {"colour": "red", "by": by}
                data = json.dumps({"files": {f"{by}.txt": text}, "stdout": text, "summary": summary}).encode()
                try:
                    for at in range(0, len(data), 37):
                        file.write(data[at : at + 37])
                except OSError as error:
                    failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
    assert not failures
    assert_all_recorded(kata, 6, 8)


def test_two_daemons_and_git_at_once(served: Mount, kata: Served, mount: MakeMount) -> None:
    """Both mounts write to one kata while somebody sets an option by git, over and over."""
    other = mount(served.store, "slower" if served.mode == "fast" else "fast")
    elsewhere = other.kata("".join(kata.shown.parts[-3:])) / "ran_tests"
    is_over = threading.Event()
    options: list[str] = []

    def set_options() -> None:
        while not is_over.is_set():
            value = "light" if len(options) % 2 else "dark"
            if git_commit(kata.stored, f"set option theme to {value}", {"config/theme": f"{value}\n".encode()}):
                options.append(value)

    thread = threading.Thread(target=set_options)
    thread.start()
    try:
        assert run_clients([kata.ran_tests, elsewhere] * 2, 15, [10_000, 50]) == [0] * 4
    finally:
        is_over.set()
        thread.join(patience(60))
    assert len(options) > 3
    subjects = git(kata.stored, "log", "--reverse", "--format=%s", "main").decode().splitlines()
    assert [line.split()[-1] for line in subjects if line.startswith("set option")] == options
    assert git(kata.stored, "show", "main:config/theme").decode() == f"{options[-1]}\n"
    assert_all_recorded(kata, 4, 15)


def test_clients_in_a_pid_namespace_of_their_own(served: Mount, kata: Served) -> None:
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", CLIENT, str(kata.ran_tests), "p0", "3", "30", ""]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"0\n"
    assert_all_recorded(kata, 1, 3)


def test_clients_whom_the_kernel_cannot_name(
    store: Path, mount: MakeMount, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has a pid namespace of its own, and none of us is in it: a message must come in one write."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec unshare --pid --fork --kill-child -- {sys.executable} "$@"\n')
    python.chmod(0o755)
    stored = make_kata(store, "AbCdEf")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        mounted = mount(store, mode)
    try:
        kata = Served(stored, mounted.kata("AbCdEf"))
        record(kata, "whole")
        assert kata.accepted() == 1
        data = json.dumps(message()).encode()
        with kata.ran_tests.open("wb", buffering=0) as file:
            if mode == "fast":
                with pytest.raises(OSError, match="Invalid argument"):
                    file.write(data[:20])
                assert "in one write" in kata.ran_tests.read_text()
            else:
                file.write(data[:20])
                file.write(data[20:])
                assert kata.accepted() == 2
    finally:
        # unshare passes no signals on
        subprocess.run(["umount", mounted.path], check=True)


# -- long runs

BY_SHELL = """
i=0
while [ $((i += 1)) -le $2 ]; do
    echo '{"index": '$i', "stdout": {"content": "'$i'"}, "summary": {"colour": "red", "by": "'$i'"}}' > "$1" || exit
done
"""


@pytest.mark.parametrize("by", ["shell", "python"])
@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_one_run_after_another(kata: Served, by: str, count: int) -> None:
    if by == "shell":
        subprocess.run(["sh", "-c", BY_SHELL, "sh", kata.ran_tests, str(count)], check=True)
    else:
        for index in range(1, count + 1):
            with kata.ran_tests.open("w") as file:
                json.dump({**message(index=index), "stdout": {"content": str(index)}}, file)
    assert kata.accepted() == count
    for index in (1, count // 2, count):
        assert (kata.shown / "events" / str(index) / "stdout").read_text() == str(index)
