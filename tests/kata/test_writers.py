"""Many writers, two daemons, and somebody who writes with git; a disk that they fill to the brim."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SHARED
from tests.katas import assert_sound, git, git_commit, make_kata, message, pretty_json, stored_rows, unpack
from tests.mounts import MakeMount, Mount, wait_until

# What one client does: everything that can be recorded, each thing with an identity of its own. It prints what was
# acknowledged (kata, kind, tab_seq), and every errno that it got.
CLIENT = """
import errno, json, os, random, sys
name, count, size, patience, *katas = sys.argv[1:]
laptop, dice, told = f"{int(name):064x}", random.Random(name), []
failures = 0

def act(kata, turn):
    others = ["predicted_right", "reverted", "file_create", "file_edit", "config/predict"]
    kind = dice.choice(["ran_tests"] * 4 + others)
    if kind.startswith("config/"):
        return kind, dice.choice(["on", "off"])
    message = {"laptop_id": laptop, "tab_seq": turn}
    if kind == "file_create":
        message["filename"] = f"new {name}/{turn}.txt"
    else:
        text = "".join(dice.choices("abcdef\\n", k=dice.randrange(int(size))))
        message["files"] = {f"of {name}.txt": {"content": text}, "shared.txt": {"content": f"{name} {turn}"}}
    if not kind.startswith("file_"):
        message["summary"] = {"colour": "red", "revert": ["AbCdEf", 0]}
        message["stdout"] = {"content": f"{name} {turn}"}
    if kind == "ran_tests" and dice.random() < 0.3:
        message["index"] = int(os.readlink(f"{kata}/events/latest")) + 1
    return kind, json.dumps(message)

turn = 0
while turn < int(count) and failures < int(patience):
    turn += 1
    kata = dice.choice(katas)
    kind, text = act(kata, turn)
    path = f"{kata}/{kind}" if kind.startswith("config/") else f"{kata}/control/{kind}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        told.append([kata[-8:], errno.errorcode[error.errno], turn])
        failures += error.errno != errno.EEXIST
    else:
        told.append([kata[-8:], kind, turn])
print(json.dumps(told))
"""


def run_clients(
    mounts: Sequence[Mount], each: int, count: int, size: int, ids: Sequence[str], patience: int = 1
) -> dict[str, list[list[Any]]]:
    """What every client of each mount was told, by its laptop_id. All run at once."""
    processes: dict[str, subprocess.Popen[str]] = {}
    try:
        for number in range(each * len(mounts)):
            katas = [str(mounts[number % len(mounts)].kata(kata_id)) for kata_id in ids]
            command = [sys.executable, "-c", CLIENT, f"{number}", f"{count}", f"{size}", f"{patience}", *katas]
            processes[f"{number:064x}"] = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        answers = {laptop: process.communicate(timeout=1800) for laptop, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert not any(err for _, err in answers.values()), answers
    return {laptop: json.loads(out) for laptop, (out, _) in answers.items()}


def assert_all_there(path: Path, told: dict[str, list[list[Any]]]) -> int:
    """Every acknowledged event is in the kata once, and what was refused is not. The number of its events."""
    last = assert_sound(path)
    assert_recorded(path, told)
    return last


def assert_recorded(path: Path, told: dict[str, list[list[Any]]]) -> None:
    """The same, whether there was room for the tags or not: those follow with the next event."""
    git(path, "fsck", "--strict", "--full")
    rows = stored_rows(path)
    recorded: Counter[tuple[str, int]] = Counter()
    for row in rows:
        # an edit that was recorded before something shares its identity
        if "laptop_id" in row and not is_edit_before(rows, row):
            recorded[row["laptop_id"], row["tab_seq"]] += 1
    kata = "/".join(path.parts[-3:])
    mine = [(laptop, *what) for laptop, answers in told.items() for where, *what in answers if where == kata]
    acknowledged = {(laptop, turn) for laptop, what, turn in mine if what[0] in "pr" or what.startswith("file_create")}
    edits = {(laptop, turn) for laptop, what, turn in mine if what == "file_edit"}
    assert all(count == 1 for count in recorded.values())
    # an edit of nothing is acknowledged, and not recorded
    assert acknowledged <= recorded.keys() <= acknowledged | edits


def is_edit_before(rows: list[dict[str, Any]], row: dict[str, Any]) -> bool:
    following = rows[row["index"] + 1] if row["index"] + 1 < len(rows) else {}
    identity = [(one.get("laptop_id"), one.get("tab_seq")) for one in (row, following)]
    return row["colour"] == "file_edit" and identity[0] == identity[1]


def write_with_git(path: Path, is_over: threading.Event, recorded: list[str]) -> None:
    """Record events of a kata as saver did with the git command, over and over."""
    while not is_over.is_set():
        base = git(path, "rev-parse", "main").decode().strip()
        rows = stored_rows(path, base)
        is_native = "event.json" in git(path, "ls-tree", "--name-only", base).decode().split()
        text = f"by git {len(recorded)}"
        row = {"colour": "amber", "by": text, "index": len(rows), "time": [2026, 1, 2, 3, 4, 5, 6]}
        changes = {"stdout": text.encode(), "files/of git.txt": text.encode()}
        if is_native:
            row["type"] = "test"
            changes |= {"event.json": pretty_json(row), "events_summary.json": pretty_json([*rows, row])}
        else:
            changes["events.json"] = pretty_json([*rows, row])[:-1]
        if git_commit(path, f"{len(rows)} ran tests, no prediction, got amber", changes, base):
            # the branch may be further by now
            commits = git(path, "log", "--format=%s %H", "main").decode().splitlines()
            oid = next(line.split()[-1] for line in commits if line.startswith(f"{len(rows)} "))
            git(path, "update-ref", f"refs/tags/{len(rows)}", oid)
            recorded.append(text)
        # its own process costs more than a commit of katafs: without a pause it would have the machine to itself
        is_over.wait(0.1)


@pytest.mark.parametrize(("each", "count"), [(3, 10), pytest.param(8, 500, marks=pytest.mark.slow)])
def test_two_daemons_and_git(fuse: None, store: Path, mount: MakeMount, each: int, count: int) -> None:
    """On the same four katas, of both layouts. Each index is won once, and nothing that was acknowledged is lost."""
    ids = ["AbCdE1", "AbCdE2", "AbCdE3", "AbCdE4"]
    for kata_id in ids[:3]:
        make_kata(store, kata_id)
    if (SHARED / "saver-v2-rG63fy.tgz").exists():
        unpack(SHARED / "saver-v2-rG63fy.tgz", store)
        # whoever writes with git is its owner
        subprocess.run(["chown", "-R", f"{os.getuid()}:{os.getgid()}", store / "rG"], check=True)
        ids[3] = "rG63fy"
    else:
        make_kata(store, ids[3])
    mounts = [mount(store, "fast"), mount(store, "slower")]
    paths = [store / kata_id[:2] / kata_id[2:4] / kata_id[4:] for kata_id in ids]
    before = {path: len(stored_rows(path)) for path in paths}
    is_over = threading.Event()
    by_git: dict[Path, list[str]] = {path: [] for path in paths}
    # in one of each layout
    threads = [threading.Thread(target=write_with_git, args=(path, is_over, by_git[path])) for path in paths[2:]]
    for thread in threads:
        thread.start()
    try:
        told = run_clients(mounts, each, count, 400, ids)
        # who writes with git is slower, and may not have been first even once
        wait_until(lambda: all(by_git[path] for path in paths[2:]), "an event of each that writes with git")
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    refused = Counter(what for answers in told.values() for _, what, _ in answers if what.isupper())
    assert set(refused) <= {"EEXIST"}
    assert sum(len(answers) for answers in told.values()) == 2 * each * count
    for path in paths:
        assert assert_all_there(path, told) >= before[path]
        assert [row["by"] for row in stored_rows(path) if "by" in row] == by_git[path]
        for daemon in mounts:
            shown = daemon.path / path.relative_to(store)
            assert json.loads((shown / "events_summary.json").read_bytes())[-1]["index"] == len(stored_rows(path)) - 1
    assert all(by_git[path] for path in paths[2:])


@pytest.mark.parametrize("small_store", ["3m"], indirect=True)
def test_compaction_on_a_full_disk(fuse: None, small_store: Path, mount: MakeMount) -> None:
    """All stays as it was, one line says so, and it is tried again when the kata was written to again."""
    kata = make_kata(small_store, "AbCdE1")
    recorder = mount(small_store, "fast")
    ran_tests = recorder.path / kata.relative_to(small_store) / "ran_tests"
    for index in range(1, 9):
        content = os.urandom(30_000).hex() + "\n"
        ran_tests.write_text(json.dumps(message({"a.txt": content, "cyber-dojo.sh": "pytest\n"}, index=index)))
    recorder.stop()
    daemon = mount(small_store, "fast", ("--compact-after", "0.5"))
    daemon.expected_log = "No space left"
    ran_tests = daemon.path / kata.relative_to(small_store) / "ran_tests"
    filler = small_store / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False)
    before = {path: path.read_bytes() for path in kata.glob(".git/objects/*/*") if path.is_file()}
    # room for an event, and not for all of them
    os.truncate(filler, filler.stat().st_size - 100_000)
    ran_tests.write_text('{"summary": {"colour": "red"}}')
    wait_until(lambda: "is not compacted" in daemon.log_text(), "the failure", seconds=20)
    assert {path: path.read_bytes() for path in before} == before
    # what must not happen takes time: some six times what it would take to do it again
    time.sleep(3)
    lines = [line for line in daemon.log_text().splitlines() if "not compacted" in line]
    assert len(lines) == 1, lines
    assert re.search(r"kata AbCdE1: it is not compacted: .*: No space left on device$", lines[0])
    filler.unlink()
    attempts = daemon.log_text().count(": compacted")
    ran_tests.write_text('{"summary": {"colour": "green"}}')
    wait_until(lambda: daemon.log_text().count(": compacted") > attempts, "another attempt", seconds=20)
    assert assert_sound(kata) == 10


@pytest.mark.thorough
@pytest.mark.parametrize("small_store", ["3m"], indirect=True)
def test_a_disk_that_is_filled(fuse: None, small_store: Path, mount: MakeMount, tmp_path: Path) -> None:
    """Every error is ENOSPC, and every acknowledged event is there afterwards; with room again all goes on."""
    ids = ["AbCdE1", "AbCdE2"]
    paths = [make_kata(small_store, kata_id) for kata_id in ids]
    daemon = mount(small_store, "fast")
    daemon.expected_log = "No space left"
    told = run_clients([daemon], 4, 10_000, 30_000, ids, patience=25)
    answers = [what for answers in told.values() for _, what, _ in answers]
    errors = Counter(what for what in answers if what.isupper() and what != "EEXIST")
    assert errors == {"ENOSPC": 4 * 25}
    assert len(answers) > 4 * 25 + 20
    for path in paths:
        assert_recorded(path, told)
        shown = daemon.path / path.relative_to(small_store)
        assert (shown / "events/latest/status").read_text() == "0"
    # the same katas where there is room
    shutil.copytree(small_store, tmp_path / "store")
    roomy = mount(tmp_path / "store", "fast")
    for path in paths:
        relative = path.relative_to(small_store)
        last = len(stored_rows(path))
        (roomy.path / relative / "ran_tests").write_text('{"summary": {"colour": "green"}}')
        assert assert_sound(tmp_path / "store" / relative) == last
    # and where it is made
    subprocess.run(["mount", "-o", "remount,size=9m", small_store], check=True)
    for path in paths:
        (daemon.path / path.relative_to(small_store) / "ran_tests").write_text('{"summary": {"colour": "green"}}')
        assert_all_there(path, told)
