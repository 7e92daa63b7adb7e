"""Migration beside a serving daemon, its readers and its writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.synchronize import Event, Semaphore
from pathlib import Path

import pytest

from tests.katas import assert_sound, stored_rows
from tests.mounts import MakeMount, patience, wait_until
from tests.plain_katas import Written, comparable, make_plain_kata
from tests.scratch import fast_directory


@pytest.fixture
def store() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as directory:
        yield Path(directory)


def write(katas: list[Path], number: int, count: int) -> None:
    """Record events in each kata through the mount."""
    for turn in range(count):
        for kata in katas:
            summary = {"colour": "green", "duration": number + turn / 1000}
            data = json.dumps({"summary": summary, "stdout": {"content": f"{number} {turn}"}})
            with open(kata / "ran_tests", "w") as file:
                file.write(data)


def read(kata: Path, written: Written, has_read: Semaphore, is_over: Event) -> None:
    """Read on the plain paths until it is over, and once more: each time what was written."""
    is_last = False
    while not is_last:
        is_last = is_over.is_set()
        for index in written.events:
            document = json.loads((kata / written.name(index)).read_bytes())
            assert comparable(document) == written.document(index), index
            texts = written.texts(index)
            found = {
                str(path.relative_to(kata / f"events/{index}/files"))
                for path in (kata / f"events/{index}/files").rglob("*")
                if path.is_file()
            }
            assert found == set(texts)
            for name, text in texts.items():
                assert (kata / f"events/{index}/files/{name}").read_bytes().decode() == text
        has_read.release()


def together(processes: list[multiprocessing.Process]) -> None:
    """Run processes to their end; all must succeed."""
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(patience(120))
        assert [process.exitcode for process in processes] == [0] * len(processes)
    finally:
        for process in processes:
            process.kill()


def test_writers_migrate_and_nothing_is_lost(store: Path, mount: MakeMount) -> None:
    """Eight writers and the command at once on plain katas: every event is recorded once."""
    made = [make_plain_kata(store, f"AbCd{number:02}", number % 2, 3, events=3) for number in range(4)]
    mounted = mount(store)
    katas = [mounted.kata(written.kata_id) for written in made]
    command = subprocess.Popen([sys.executable, "-m", "katafs", "migrate", store], stdout=subprocess.DEVNULL)
    together([multiprocessing.Process(target=write, args=(katas, number, 3)) for number in range(8)])
    assert command.wait(patience(60)) == 0
    for written in made:
        assert assert_sound(written.path) == 2 + 8 * 3
        recorded = {row["duration"] for row in stored_rows(written.path)[3:]}
        assert recorded == {number + turn / 1000 for number in range(8) for turn in range(3)}
        assert sorted(os.listdir(written.path)) == [".git", "manifest.json"]


@pytest.mark.parametrize("version", [0, 1])
def test_readers_see_nothing_of_it(store: Path, mount: MakeMount, version: int) -> None:
    """Readers of all katas while they are migrated: every read is right, before, at, and after the moment."""
    made = [make_plain_kata(store, f"AbCd{number:02}", version, number, events=4) for number in range(6)]
    mounted = mount(store)
    has_read, is_over = multiprocessing.Semaphore(0), multiprocessing.Event()
    katas = [mounted.kata(written.kata_id) for written in made]
    readers = [
        multiprocessing.Process(target=read, args=(kata, written, has_read, is_over))
        for kata, written in zip(katas, made, strict=True)
    ]
    command = multiprocessing.Process(target=later, args=(store, katas, has_read, is_over))
    together([*readers, command])
    assert all((written.path / ".git").is_dir() for written in made)


def later(store: Path, katas: list[Path], has_read: Semaphore, is_over: Event) -> None:
    """Migrate when the others have begun; it is over when all katas are shown from git."""
    try:
        plain = [(kata / "manifest.json").read_bytes() for kata in katas]
        for _ in katas:
            assert has_read.acquire(timeout=patience(60))
        subprocess.run([sys.executable, "-m", "katafs", "migrate", store], check=True, stdout=subprocess.DEVNULL)
        for kata, manifest in zip(katas, plain, strict=True):
            # it gets another shape
            wait_until(lambda: (kata / "manifest.json").read_bytes() != manifest, "the migrated kata")  # noqa: B023
    finally:
        is_over.set()
