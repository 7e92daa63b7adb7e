"""``python -m tests.benchmarks.services``: services that write by plain paths, all at once, and readers beside them.

16 processes write events to 4 katas, each at the index after the last that it sees; 2 read ``events.json`` of all. Of
each index one is first, every event is there once, as its writer wrote it, and no read is torn. With ``--kills`` the
daemon is killed now and then meanwhile; then nobody may be late after himself: of an index that nobody has somebody is
first. One more makes new katas, sets an option in each and writes an event: all of it is answered with success, once.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks.restarts import kill, say
from tests.katas import assert_sound, git, stored_rows
from tests.legacy.test_mount_services import create_kata, event_of, file_append, file_create, ran_tests
from tests.mounts import Mount, patience
from tests.plain_katas import make_plain_kata
from tests.scratch import fast_directory

WRITERS, READERS, KATAS, FIRST = 16, 2, 4, 3
PAUSE = 0.05  # seconds


def write_event(kata: Path, index: int, version: int, text: str) -> str:
    """What a service does: what came of it. One that hears EIO of a row sends it again."""
    event, row = event_of(index, version, text)
    name = f"{index}.event.json" if version else f"{index}/event.json"
    try:
        if not version:
            os.mkdir(kata / str(index))
        fd = os.open(kata / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return "late"
    data = json.dumps(event).encode()
    assert os.write(fd, data) == len(data)
    os.close(fd)
    line = json.dumps(row, separators=(",", ":"))
    data = (",\n" + line if version else line + "\n").encode()
    for _ in range(5):
        fd = os.open(kata / "events.json", os.O_WRONLY | os.O_APPEND)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.write(fd, data) == len(data):
                return "won"
        except OSError as error:
            if error.errno != errno.EIO:
                raise
        finally:
            os.close(fd)
    return "no row"


def writer(katas: list[Path], version: int, number: int, stop: float, said: Any) -> None:
    outcomes: Counter[str] = Counter()
    won = []
    for turn in range(1 << 30):
        if time.monotonic() > stop:
            break
        kata = katas[(number + turn) % len(katas)]
        index = 1 + int(os.readlink(kata / "events/latest"))
        try:
            outcome = write_event(kata, index, version, f"{number} {turn}\n")
        except OSError as error:
            outcome = f"{error.strerror} at {Path(error.filename or 'a write').suffix or 'a directory'}"
        outcomes[outcome] += 1
        # what its client takes to have something new to say
        time.sleep(PAUSE)
        if outcome == "won":
            won.append((kata.name, f"{number} {turn}\n"))
    said.put(("writer", outcomes, won))


def maker(mount: Path, version: int, stop: float, said: Any) -> None:
    outcomes: Counter[str] = Counter()
    ids = []
    for turn in range(1 << 30):
        if time.monotonic() > stop:
            break
        kata_id = f"Py{turn:04}"
        kata = mount.joinpath(kata_id[:2], kata_id[2:4], kata_id[4:])
        option = kata / "predict"
        try:
            said_yes = [create_kata(kata, version), file_create(option, "\non"), file_append(option, "\non")]
            said_yes += [ran_tests(kata, 1, version)]
            said_no = [create_kata(kata, version), file_create(option, "\non"), ran_tests(kata, 1, version)]
            outcomes["made" if all(said_yes) and not any(said_no) else f"answered {said_yes}, {said_no}"] += 1
        except (AssertionError, OSError) as error:
            outcomes[f"making: {error!r}"] += 1
        ids.append(kata_id)
        time.sleep(PAUSE)
    said.put(("maker", outcomes, ids))


def reader(katas: list[Path], stop: float, most: int, said: Any) -> None:
    """Whole rows at every moment, and never fewer, until then and so many times."""
    reads = torn = fewer = 0
    seen = dict.fromkeys(katas, 0)
    while time.monotonic() < stop or reads < most:
        for kata in katas:
            # as services read: nobody appends meanwhile; all that fstat(2) says there is, to the end
            fd = os.open(kata / "events.json", os.O_RDONLY)
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            data = os.read(fd, size)
            # it may have grown
            while more := os.read(fd, 8192):
                data += more
            os.close(fd)
            rows = data.count(b'"time"')
            is_whole = data.rstrip().endswith(b"}") and data.count(b"{") == data.count(b"}") == rows
            if not is_whole:
                torn += 1
                say(f"torn: {size} bytes were there, {len(data)} were read, at the end {data[-200:]!r}")
            fewer += rows < seen[kata]
            seen[kata] = rows
            reads += 1
    said.put(("reader", reads, torn, fewer))


def judge(mount: Mount, ids: list[str], said: list[Any]) -> int:
    """Print what became of it; how much is wrong."""
    outcomes: Counter[str] = Counter()
    made: list[str] = []
    expected: Counter[tuple[str, str]] = Counter()
    reads = torn = fewer = 0
    for what, *told in said:
        if what == "writer":
            outcomes += told[0]
            expected.update(told[1])
        elif what == "maker":
            outcomes += told[0]
            made = told[1]
        else:
            reads, torn, fewer = reads + told[0], torn + told[1], fewer + told[2]
    wrong = torn + fewer + sum(count for what, count in outcomes.items() if what not in ("won", "late", "made"))
    events = 0
    for kata_id in made:
        path = mount.store.joinpath(kata_id[:2], kata_id[2:4], kata_id[4:])
        wrong += assert_sound(path) != 1 or git(path, "show", "main:config/predict") != b"on\n"
    for kata_id in ids:
        path = mount.store.joinpath(kata_id[:2], kata_id[2:4], kata_id[4:])
        last = assert_sound(path)
        events += last - FIRST + 1
        found = Counter(git(path, "show", f"{index}:files/a.py").decode() for index in range(FIRST, last + 1))
        wrong += sum(count > 1 for count in found.values())
        wrong += sum(not found[text] for kata, text in expected if kata == kata_id[4:])
        wrong += sum(row["type"] == "outage" for row in stored_rows(path))
    say(f"{dict(outcomes)}; {events} events recorded, {reads} reads: {torn} torn, {fewer} that went back")
    unanswered = events - outcomes["won"]
    say(f"{mount.log_text().count('has died')} deaths; {unanswered} events whose writer did not hear of success")
    return wrong + abs(unanswered)


def run(work: Path, version: int, seconds: int, kills: int, reads: int) -> int:
    ids = [f"AbCd{number:02}" for number in range(KATAS)]
    (work / "store").mkdir()
    for kata_id in ids:
        make_plain_kata(work / "store", kata_id, version, 3, events=FIRST)
    mount = Mount(work / "store", work / "mnt", "fast", ())
    mount.expected_log = "has died|was left behind|the daemon died while"
    mount.start()
    said: Any = multiprocessing.Queue()
    stop = time.monotonic() + seconds
    katas = [mount.kata(kata_id) for kata_id in ids]
    processes = [
        multiprocessing.Process(target=maker, args=(mount.path, version, stop, said)),
        *(multiprocessing.Process(target=writer, args=(katas, version, each, stop, said)) for each in range(WRITERS)),
        *(multiprocessing.Process(target=reader, args=(katas, stop, reads // READERS, said)) for _ in range(READERS)),
    ]
    try:
        for process in processes:
            process.start()
        for _ in range(kills):
            time.sleep(random.uniform(0.5, 2 * seconds / kills - 0.5))
            if time.monotonic() < stop:
                kill(mount)
        told = [said.get(timeout=patience(seconds + 120 + reads / 100)) for _ in processes]
        wrong = judge(mount, ids, told)
    finally:
        for process in processes:
            process.kill()
        problems = mount.stop()
        say(f"{problems}\n{mount.log_text()}" if problems else "nothing unexpected in the log of the daemon")
    return wrong + bool(problems)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.services", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--reads", type=int, default=0, help="go on with reading until there are so many")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--version", type=int, default=1, choices=[0, 1])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="katafs-services-", dir=fast_directory()) as directory:
        wrong = run(Path(directory), options.version, options.seconds, options.kills, options.reads)
    say(f"wrong: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
