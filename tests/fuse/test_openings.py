"""A message belongs to an open file, whoever writes its pieces; also where the writer may not be asked."""

from __future__ import annotations

import json
import mmap
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from katafs.kata.model.kinds import Kind
from tests.katas import Served, serve_kata, stored_rows
from tests.mounts import Mount, patience, wait_until


@pytest.fixture
def kata(served: Mount) -> Served:
    return serve_kata(served)


class Pool:
    """Threads of a pool: each does the writes that it is given."""

    def __init__(self, count: int) -> None:
        self._jobs: list[queue.Queue[Callable[[], object]]] = [queue.Queue() for _ in range(count)]
        self._answers: queue.Queue[object] = queue.Queue()
        for jobs in self._jobs:
            threading.Thread(target=self._work, args=(jobs,), daemon=True).start()

    def _work(self, jobs: queue.Queue[Callable[[], object]]) -> None:
        while True:
            job = jobs.get()
            try:
                self._answers.put(job())
            except OSError as error:
                self._answers.put(error.errno)

    def run(self, thread: int, job: Callable[[], object]) -> object:
        """What a job returns in one of the threads, or its errno."""
        self._jobs[thread].put(job)
        return self._answers.get(timeout=patience(20))


def text(who: str, size: int = 300) -> bytes:
    summary = {"colour": "red", "who": who}
    return json.dumps({"files": {"a.txt": {"content": who * size}}, "summary": summary}).encode()


def recorded(kata: Served) -> dict[str, list[str]]:
    """What was recorded, by who says that it is his."""
    events: dict[str, list[str]] = {}
    for row in stored_rows(kata.stored):
        if "who" in row:
            files = kata.shown / f"events/{row['index']}/files"
            events.setdefault(row["who"], []).append((files / "a.txt").read_text())
    return events


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["by position", "appending"])
def test_threads_that_take_turns(kata: Served, flags: int) -> None:
    """Messages on several descriptors, each piece by another thread than the one before."""
    pool = Pool(3)
    texts = {who: text(who) for who in "ABC"}
    files = {who: os.open(kata.ran_tests, os.O_WRONLY | flags) for who in texts}
    turn = 0
    for at in range(0, len(texts["A"]), 40):
        for who, data in texts.items():
            turn += 1
            piece = data[at : at + 40]
            assert pool.run(turn % 3, lambda fd=files[who], piece=piece: os.write(fd, piece)) == len(piece)  # type: ignore[misc]
    for fd in files.values():
        os.close(fd)
    assert recorded(kata) == {who: [who * 300] for who in texts}


def test_what_others_do_to_the_file_drops_nothing(kata: Served) -> None:
    """Opened with O_TRUNC, truncated by its path; and by another open file."""
    data = text("A")
    first, second = (os.open(kata.ran_tests, os.O_WRONLY) for _ in range(2))
    os.write(first, data[:100])
    os.close(os.open(kata.ran_tests, os.O_WRONLY | os.O_TRUNC))
    os.truncate(kata.ran_tests, 0)
    os.write(second, b'{"begun":')
    os.ftruncate(second, 0)
    os.write(first, data[100:])
    assert os.pwrite(second, text("B"), 0) == len(text("B"))
    os.close(first)
    os.close(second)
    assert recorded(kata) == {"A": ["A" * 300], "B": ["B" * 300]}


SHELL = (
    """exec 5> "$1"; printf '{"files":{"a.txt":' >&5; (printf '{"content":"%s"' "$2" >&5); printf %s "$3" | cat >&5"""
)

REST = '}},"summary":{"colour":"red","who":"sh"}}'


@pytest.mark.parametrize("redirection", [">", ">>"])
def test_processes_that_inherited_a_descriptor(kata: Served, redirection: str) -> None:
    command: list[str] = ["bash", "-c", SHELL.replace(">", redirection, 1), "bash", str(kata.ran_tests), "x" * 9, REST]
    assert subprocess.run(command, check=False).returncode == 0
    assert recorded(kata) == {"sh": ["x" * 9]}


def test_pages_that_are_mapped_are_no_message(served: Mount, kata: Served) -> None:
    data = text("A")
    fd = os.open(kata.ran_tests, os.O_RDWR)
    try:
        if served.mode == "fast":
            with mmap.mmap(fd, 0) as mapped:
                mapped[:] = data.ljust(len(mapped))[: len(mapped)]
                with pytest.raises(OSError, match="Invalid argument"):
                    mapped.flush()
        else:
            with pytest.raises(OSError, match="No such device"):
                mmap.mmap(fd, 0)
    finally:
        # what was written back in vain is told once more
        try:
            os.close(fd)
        except OSError:
            assert served.mode == "fast"
    assert recorded(kata) == {}


# -- where the writer may not be asked


# writes as user 65534: (descriptor, text) after text, a new descriptor opened with the flags when it is first named
CLIENT = """
import json, os, sys, threading
path, flags, steps = json.loads(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
files, said = {}, []
def step(name, text):
    if name not in files:
        files[name] = os.open(path, os.O_WRONLY | flags)
    try:
        said.append(os.write(files[name], text.encode()))
    except OSError as error:
        said.append(error.strerror)
for one in steps:
    thread = threading.Thread(target=step, args=one)
    thread.start()
    thread.join()
print(json.dumps(said))
"""


def client(kata: Served, steps: list[tuple[str, str]], flags: int = 0) -> list[Any]:
    """What a process of threads hears, each step by a thread of its own."""
    arguments = json.dumps([str(kata.ran_tests), flags, steps])
    command = [sys.executable, "-c", CLIENT, arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    said: list[Any] = json.loads(result.stdout)
    return said


@pytest.mark.parametrize("flags", [0, os.O_APPEND], ids=["by position", "appending"])
def test_a_lone_sender_need_not_be_asked(unasked: Served, flags: int) -> None:
    texts = [text(who).decode() for who in "AB"]
    steps = [(data[20], piece) for data in texts for piece in (data[:60], data[60:200], data[200:])]
    assert client(unasked, steps, flags) == [len(piece) for _, piece in steps]
    assert recorded(unasked) == {who: [who * 300] for who in "AB"}


def test_what_cannot_be_told_apart_is_refused_to_all(unasked: Served) -> None:
    a, b = (text(who).decode() for who in "AB")
    said = client(unasked, [("a", a[:60]), ("b", b[:60]), ("a", a[60:]), ("b", b[60:])])
    assert said == [60, 60, "Invalid argument", "Invalid argument"]
    assert "one write" in unasked.outcome()["message"]
    assert recorded(unasked) == {}


def test_messages_that_are_at_different_places(unasked: Served) -> None:
    a, b = (text(who).decode() for who in "AB")
    steps = [("a", a[:60]), ("b", b[:50]), ("a", a[60:]), ("b", b[50:])]
    assert client(unasked, steps) == [len(piece) for _, piece in steps]
    assert recorded(unasked) == {who: [who * 300] for who in "AB"}


def test_what_may_be_the_next_message_of_another(unasked: Served) -> None:
    """It begins like one, where one of that process has ended."""
    whole = text("W").decode()
    begun = text("A", len(whole)).decode()[: len(whole)]
    said = client(unasked, [("w", whole), ("a", begun), ("w", text("X").decode()), ("a", "…")])
    assert said == [len(whole), len(begun), "Invalid argument", "Invalid argument"]
    assert recorded(unasked) == {"W": ["W" * 300]}


def test_processes_of_a_shell_that_are_not_asked(unasked: Served) -> None:
    """By their place, where a single message ends."""
    command: list[str] = ["bash", "-c", SHELL, "bash", str(unasked.ran_tests), "x" * 9, REST]
    assert subprocess.run(command, user=65534, group=65534, extra_groups=[], check=False).returncode == 0
    assert recorded(unasked) == {"sh": ["x" * 9]}


def test_each_control_file_has_its_own(kata: Served) -> None:
    files = [os.open(kata.shown / "control" / kind.value, os.O_WRONLY) for kind in list(Kind)[:3]]
    data = text("A")
    for piece in (data[:40], data[40:]):
        for fd in files:
            os.write(fd, piece)
    for fd in files:
        os.close(fd)
    wait_until(lambda: recorded(kata) == {"A": ["A" * 300] * 3}, "three events")


# -- what the kernel cuts off


def write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def test_zeros_that_are_the_writers_own_are_refused(kata: Served) -> None:
    """Wherever they stand."""
    data = text("A")
    for at in (20, len(kata.ran_tests.read_bytes()), len(data) - 5):
        wrong = data[:at] + b"\0" * 50 + data[at:]
        with kata.ran_tests.open("wb", buffering=0) as file, pytest.raises(OSError, match="Invalid argument"):
            write_all(file.fileno(), wrong)
    assert recorded(kata) == {}


def test_a_page_that_was_cut_off_at_a_size_that_was_told(served: Mount, kata: Served) -> None:
    """As the kernel does it when others ask for the size meanwhile: the rest is sent again by whoever writes."""
    told = len(kata.ran_tests.read_bytes())
    data = text("A", 5000)
    cut = data[:told] + bytes(4096 - told) + data[4096:]
    fd = os.open(kata.ran_tests, os.O_WRONLY)
    if served.mode == "fast":
        done = os.write(fd, cut)
        assert done == told
        assert os.write(fd, data[done:]) == len(data) - done
        assert recorded(kata) == {"A": ["A" * 5000]}
    else:
        with pytest.raises(OSError, match="Invalid argument"):
            os.write(fd, cut)
    os.close(fd)
