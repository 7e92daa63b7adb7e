"""One request that takes long keeps nobody else waiting; and what is read elsewhere for it comes out the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from katafs.errors import InvalidError, TooLargeError
from katafs.kata.model.kinds import Kind
from katafs.kata.record.message import MAX_ROW, parse_act
from katafs.mount.runtime import stat_fields
from tests.fuse.test_mount_write import write_all
from tests.katas import assert_sound, git, git_commit, make_kata, message, pretty_json, row_time, stored_rows
from tests.mount.test_bounds import big_event
from tests.mounts import MakeMount, patience, wait_until

# -- a disk that takes its time

# While there is a file "held", fsync number N tells so by a file "N", and returns when that is gone.
_HELD_FSYNC = """
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
static int count;
static int held(long number, int fd) {
    char name[4096], *gate = getenv("TEST_GATE");
    snprintf(name, sizeof name, "%s/held", gate ? gate : "");
    if (gate && access(name, F_OK) == 0) {
        snprintf(name, sizeof name, "%s/%d", gate, __sync_fetch_and_add(&count, 1));
        close(open(name, O_CREAT | O_WRONLY, 0666));
        while (access(name, F_OK) == 0) usleep(1000);
    }
    return syscall(number, fd);
}
int fsync(int fd) { return held(SYS_fsync, fd); }
int fdatasync(int fd) { return held(SYS_fdatasync, fd); }
"""


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory by which every fsync of a mount can be held."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "held.c", tmp_path / "held.so"
    source.write_text(_HELD_FSYNC)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    path = tmp_path / "gate"
    path.mkdir()
    path.chmod(0o777)
    monkeypatch.setenv("LD_PRELOAD", str(library))
    monkeypatch.setenv("TEST_GATE", str(path))
    return path


@pytest.mark.parametrize("what", ["ran_tests", "config/theme"])
def test_a_slow_fsync(gate: Path, store: Path, mount: MakeMount, mode: str, what: str) -> None:
    """Each in turn is held, of objects, of ``main``, of logs, of tags: a reader of what was never read is answered."""
    writing, other = make_kata(store, "AbCdEf"), make_kata(store, "GhJkLm")
    for index in range(1, 31):
        big_event(other, text=b"%d\n" % index)
    mounted = mount(store, mode)
    data = json.dumps(message({"a.txt": "a\n"})).encode() if what == "ran_tests" else b"dark"
    held = 0
    (gate / "held").touch()
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit((mounted.kata("AbCdEf") / what).write_bytes, data)
        try:
            while True:
                wait_until(lambda: written.done() or (gate / str(held)).exists(), "an fsync")  # noqa: B023
                if written.done():
                    break
                path = mounted.kata("GhJkLm") / f"events/{held + 1}/files/text"
                command = ["timeout", f"{patience(20)}", "cat", str(path)]
                said = subprocess.run(command, check=False, capture_output=True)
                assert said.stdout == b"%d\n" % (held + 1), "a reader of another kata waits for an fsync"
                (gate / str(held)).unlink()
                held += 1
        finally:
            (gate / "held").unlink()
            for waiting in gate.iterdir():
                waiting.unlink()
        written.result(patience(20))
    assert held >= 3
    assert assert_sound(writing) == (1 if what == "ran_tests" else 0)


def test_a_listing_beside_a_write(gate: Path, store: Path, mount: MakeMount, mode: str) -> None:
    """A write holds its file's page, and a listing that tells of a change of that file waits for the page, with the
    directory held: the write must not wait for the directory."""
    make_kata(store, "AbCdEf")
    kata = mount(store, mode).kata("AbCdEf")
    (kata / "ran_tests").write_text(json.dumps(message({"a.txt": "a\n"})))
    assert json.loads((kata / "ran_tests").read_bytes())["ok"]
    (gate / "held").touch()
    # processes, since a thread that the kernel never lets go cannot be left behind
    write = [sys.executable, "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"]
    writing = subprocess.Popen([*write, kata / "ran_tests", json.dumps(message({"a.txt": "b\n"}))])
    listing = None
    try:
        wait_until((gate / "0").exists, "an fsync")
        listing = subprocess.Popen(["ls", "-l", kata], stdout=subprocess.DEVNULL)
        wait_until(lambda: listing.poll() is not None or is_waiting(listing.pid), "the listing")
    finally:
        (gate / "held").unlink()
        for waiting in gate.iterdir():
            waiting.unlink()
    assert writing.wait(patience(20)) == 0
    assert listing.wait(patience(20)) == 0
    assert (kata / "files/a.txt").read_text() == "b\n"


def is_waiting(pid: int) -> bool:
    """Whether a process waits for something in the kernel that nothing interrupts."""
    return stat_fields(pid)[:1] == ["D"]


# -- what is large


def large_rows(path: Path, count: int) -> list[dict[str, object]]:
    """Have a kata ``count`` more events, outages all of them, with large rows."""
    rows = stored_rows(path)
    for index in range(len(rows), len(rows) + count):
        rows.append({"index": index, "colour": "red", "time": row_time(index), "x": "y" * 2_000, "type": "test"})
    last = len(rows) - 1
    changes = {"event.json": pretty_json(rows[-1]), "events_summary.json": pretty_json(rows)}
    assert git_commit(path, f"{last} ran tests, no prediction, got red", changes)
    git(path, "update-ref", f"refs/tags/{last}", "main")
    return rows


def test_large_rows_and_trees(store: Path, mount: MakeMount, mode: str) -> None:
    """Right at the first try, for many who ask at once, and after commits by anybody."""
    path = make_kata(store, "AbCdEf")
    files = {f"d{number % 50}/{number}.txt": b"%d\n" % number for number in range(3_000)}
    big_event(path, **files)
    rows = large_rows(path, 200)
    mounted = mount(store, mode)
    kata = mounted.kata("AbCdEf")

    def look(number: int) -> None:
        assert os.readlink(kata / "events/latest") == str(len(rows) - 1)
        assert (kata / f"files/d{number % 50}/{number}.txt").read_bytes() == b"%d\n" % number
        assert len(json.loads((kata / "events_summary.json").read_bytes())) == len(rows)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(look, range(0, 3_000, 90)))
    (kata / "ran_tests").write_text(json.dumps(message(index=len(rows))))
    assert os.readlink(kata / "events/latest") == str(len(rows))
    assert len(os.listdir(kata / "events")) == len(rows) + 2
    rows = large_rows(path, 2)
    wait_until(lambda: os.readlink(kata / "events/latest") == str(len(rows) - 1), "the commit by git", 2)
    history = (kata / "history").read_text().splitlines()
    assert len(history) == len(rows) + 1


# -- messages


def test_a_message_that_is_parsed_elsewhere() -> None:
    """The same act, the same refusals."""
    files = {f"d/{number}.txt": {"content": f"{number},\n"} for number in range(9_000)}
    good = {"summary": {"colour": "red"}, "files": files, "stdout": {"content": "ü" * 99}}
    act = parse_act(Kind.RAN_TESTS, json.dumps(good).encode())
    assert act.files is not None
    assert len(act.files) == 9_000
    assert act.files[b"d/8999.txt"].content == b"8999,\n"
    assert act.stdout.content == ("ü" * 99).encode()
    for bad in ({**good, "other": 1}, {**good, "status": []}):
        with pytest.raises(InvalidError):
            parse_act(Kind.RAN_TESTS, json.dumps(bad).encode())
    with pytest.raises(InvalidError, match="not JSON"):
        parse_act(Kind.RAN_TESTS, json.dumps(good).encode()[:-1])


@pytest.mark.parametrize("summary", [{"x": "y" * MAX_ROW}, {"x": [[]] * 400_000}], ids=["text", "brackets"])
def test_a_row_that_is_too_large(store: Path, mount: MakeMount, mode: str, summary: dict[str, object]) -> None:
    """It would be read with every later event: EFBIG, and the outcome says it; one that just fits is recorded."""
    path = make_kata(store, "AbCdEf")
    kata = mount(store, mode).kata("AbCdEf")
    data = json.dumps({"summary": {"colour": "red", **summary}}).encode()
    with (kata / "ran_tests").open("wb", buffering=0) as file, pytest.raises(OSError, match="File too large"):
        write_all(file.fileno(), data)
    assert "64 KiB" in json.loads((kata / "ran_tests").read_text())["message"]
    (kata / "ran_tests").write_text(json.dumps({"summary": {"colour": "red", "x": "y" * (MAX_ROW - 100)}}))
    assert assert_sound(path) == 1


def test_no_such_messages_in_memory() -> None:
    with pytest.raises(TooLargeError):
        parse_act(Kind.RAN_TESTS, json.dumps({"summary": {"colour": "red", "x": [1] * 500_000}}).encode())
