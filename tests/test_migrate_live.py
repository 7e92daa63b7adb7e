"""Migration beside a serving daemon, its readers and its writers."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.katas import assert_sound, fast_directory, stored_rows
from tests.mounts import MakeMount
from tests.plain_katas import Written, comparable, make_plain_kata


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory() or tmp_path) as directory:
        yield Path(directory)


def write(katas: list[Path], number: int, count: int) -> None:
    """Record events in each kata through the mount."""
    for turn in range(count):
        for kata in katas:
            summary = {"colour": "green", "duration": number + turn / 1000}
            data = json.dumps({"summary": summary, "stdout": {"content": f"{number} {turn}"}})
            with open(kata / "ran_tests", "w") as file:
                file.write(data)


def read(kata: Path, written: Written, stop: float) -> None:
    """Read on the plain paths until then: each time what was written."""
    while time.monotonic() < stop:
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


def together(processes: list[multiprocessing.Process]) -> None:
    """Run processes to their end; all must succeed."""
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
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
    assert command.wait(60) == 0
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
    stop = time.monotonic() + 4
    readers = [
        multiprocessing.Process(target=read, args=(mounted.kata(written.kata_id), written, stop)) for written in made
    ]
    command = multiprocessing.Process(target=later, args=(store,))
    together([*readers, command])
    assert all((written.path / ".git").is_dir() for written in made)


def later(store: Path) -> None:
    """Migrate when the others have begun."""
    time.sleep(1)  # whichever way it falls out, it is right; so there is nothing to be waited for
    subprocess.run([sys.executable, "-m", "katafs", "migrate", store], check=True, stdout=subprocess.DEVNULL)
