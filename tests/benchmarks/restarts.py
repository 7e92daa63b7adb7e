"""``python -m tests.benchmarks.restarts``: what clients notice when the daemon is killed, again and again.

``soak``: 4 clients write and 4 read and compare while the daemon is killed at random moments. Afterwards every event
that was acknowledged is there, once; every repository is sound, and can be written to. Meanwhile git packs, collects
and prunes the repositories, and katafs compacts and mends them, the mount on its own and a process beside it
(`tests.benchmarks.beside`). After kills, writers and that process are held, and git and katafs look at all of it.
``pause``: how long a client waits that was served while the daemon was killed; with 1 and with 64 katas in use.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from katafs.kata.model.ids import kata_path
from tests.katas import assert_sound, git, make_kata, message, stored_rows
from tests.mounts import Mount, children, katafs, patience, wait_until

WRITERS, READERS = 4, 4

WRITER = """
import json, os, random, sys, time
name, acknowledged, *katas = sys.argv[1:]
chance, count = random.Random(name), 0
fds = [os.open(f"{kata}/ran_tests", os.O_WRONLY) for kata in katas]
log = open(acknowledged, "w", buffering=1)
while not os.path.exists(acknowledged + ".stop"):
    text = f"{name}-{count}"
    size = chance.choice([10, 10, 100, 1000, 1000, 10_000, 50_000 if count % 5 else 120_000])
    files = {f"{name}.txt": {"content": f"{text} " * size}}
    data = json.dumps({"files": files, "stdout": {"content": text}, "summary": {"colour": "red"}}).encode()
    data = data[: 1 << 20] if len(data) <= 1 << 20 else json.dumps(
        {"files": {f"{name}.txt": {"content": f"{text} " * 10}}, "stdout": {"content": text},
         "summary": {"colour": "red"}}).encode()
    which = chance.randrange(len(fds))
    try:
        done = os.pwrite(fds[which], data, 0)
        print("ok" if done == len(data) else f"short {done}/{len(data)}", which, text, file=log)
    except OSError as error:
        print("error", which, text, error, file=log)
    count += 1
    if count % 40 == 0:
        # so that a kata is left alone now and then
        time.sleep(chance.random())
"""
READER = """
import json, os, random, sys
name, found, *katas = sys.argv[1:]
chance, count = random.Random(name), 0
log = open(found, "w", buffering=1)
while not os.path.exists(found + ".stop"):
    kata = chance.choice(katas)
    try:
        events = [int(name) for name in os.listdir(f"{kata}/events") if name != "latest"]
        assert sorted(events) == list(range(len(events))), events
        index = chance.choice(events)
        # an edit, which is recorded before the test run, has the files of that and the output of the one before
        if index and json.load(open(f"{kata}/events/{index}/event.json"))["type"] == "test":
            text = open(f"{kata}/events/{index}/stdout").read()
            shown = f"{kata}/events/{index}/files/{text.split('-')[0]}.txt"
            content = open(shown).read()
            assert content and content == f"{text} " * (len(content) // len(f"{text} ")), (shown, len(content))
            assert os.stat(shown).st_size == len(content), shown
        rows = json.load(open(f"{kata}/events_summary.json"))
        assert [row["index"] for row in rows] == list(range(len(rows)))
        assert not os.path.exists(f"{kata}/nothing{count}")
        open(f"{kata}/diff/latest").read() if count % 20 == 0 and max(events) else None
        count += 1
    except (OSError, AssertionError, ValueError) as error:
        print("error", kata, repr(error), file=log)
print("reads", count, file=log)
"""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def running(commands: list[list[str]]) -> Iterator[list[subprocess.Popen[bytes]]]:
    processes = [subprocess.Popen([sys.executable, *command]) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


@contextlib.contextmanager
def mounted(work: Path, katas: int, *options: str) -> Iterator[tuple[Mount, list[str]]]:
    """A mount of so many new katas, and their ids."""
    store = work / "store"
    store.mkdir()
    ids = [f"{number:06}" for number in range(katas)]
    for kata_id in ids:
        make_kata(store, kata_id)
    mount = Mount(store, work / "mnt", "fast", options)
    mount.expected_log = "has died|was left behind"
    mount.start()
    try:
        yield mount, ids
    finally:
        say(mount.stop() or "nothing unexpected in the log of the daemon")


def kill(mount: Mount) -> None:
    """kill -9 to the daemon that serves at this moment."""
    while not (daemon := mount.daemon):
        time.sleep(0.0005)
    with contextlib.suppress(ProcessLookupError):
        os.kill(daemon, signal.SIGKILL)


def soak(work: Path, kills: int, compact_after: float, check_every: int) -> bool:
    """Returns whether all is as it should be."""
    unsound = 0
    with mounted(work, 4, "--compact-after", str(compact_after)) as (mount, ids):
        shown = [str(mount.kata(kata_id)) for kata_id in ids]
        logs = [work / f"{kind}{number}" for kind, most in (("w", WRITERS), ("r", READERS)) for number in range(most)]
        commands = [["-c", WRITER if log.name[0] == "w" else READER, log.name, str(log), *shown] for log in logs]
        logs.append(work / "beside")
        commands.append(["-m", "tests.benchmarks.beside", str(logs[-1]), str(mount.store), *ids])
        with running(commands) as processes:
            for number in range(1, kills + 1):
                time.sleep(random.uniform(0.4, 1.0))
                kill(mount)
                if not number % check_every:
                    with held([*processes[:WRITERS], processes[-1]]):
                        unsound += sum(not is_clean(mount.store, kata_id) for kata_id in ids)
                if not number % 10:
                    say(f"{number} kills, {unsound} times unsound")
            for log in logs:
                log.with_name(f"{log.name}.stop").touch()
            for process in processes:
                process.wait(patience(60))
        for kata in shown:
            Path(kata, "ran_tests").write_bytes(json.dumps(message()).encode())
    return not unsound + judge(mount, ids, logs)


@contextlib.contextmanager
def held(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Let processes go on with nothing, and what they have started come to its end."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    for process in processes:
        wait_until(lambda process=process: is_at_rest(process.pid), "the end of a request", 60)  # type: ignore[misc]
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def is_at_rest(pid: int) -> bool:
    """Whether a process is stopped, and all that it has started has ended."""
    states = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0] for each in (pid, *children(pid))]
    return states[0] == "T" and set(states[1:]) <= {"Z"}


def is_clean(store: Path, kata_id: str) -> bool:
    """Whether git and katafs find nothing wrong with a kata in which nobody writes; else a copy of it is kept.

    The mount may compact it at this moment, and what git misses of a pack that it saw is there when it looks again.
    """
    path, problem = kata_path(store, kata_id), ""
    for _ in range(4):
        try:
            assert_sound(path)
            found = katafs("fsck", "-q", store, kata_id, check=False)
            assert found.returncode == 0, (found.stdout + found.stderr).decode()
            if problem:
                say(f"  {kata_id} is sound again: {problem}")
            return True
        except AssertionError as error:
            problem = str(error)
    kept = tempfile.mkdtemp(prefix="katafs-unsound-")
    shutil.copytree(path, kept, dirs_exist_ok=True, symlinks=True)
    say(f"NOT SOUND, a copy is in {kept}: {problem}")
    return False


def judge(mount: Mount, ids: list[str], logs: list[Path]) -> int:
    """Print what became of it; how much is wrong."""
    lines = [(log.name, line) for log in logs for line in log.read_text().splitlines()]
    read = sum(int(line.split()[1]) for _, line in lines if line.startswith("reads"))
    beside = Counter(line for name, line in lines if name == "beside")
    bad = [line for line in lines if line[0] != "beside" and not line[1].startswith(("ok ", "reads "))]
    acknowledged = [(int(line.split()[1]), line.split()[2]) for name, line in lines if line.startswith("ok ")]
    lost = doubled = unsound = events = 0
    for which, kata_id in enumerate(ids):
        path = kata_path(mount.store, kata_id)
        unsound += not is_clean(mount.store, kata_id)
        rows = stored_rows(path)
        events += len(rows) - 1
        tests = [row["index"] for row in rows if row["type"] == "test"]
        recorded = Counter(git(path, "show", f"{index}:stdout").decode() for index in tests)
        doubled += sum(count > 1 for count in recorded.values())
        lost += sum(recorded[text] == 0 for kata, text in acknowledged if kata == which)
    answered = mount.log_text().count("was recorded already")
    say(
        f"{mount.log_text().count('has died')} deaths; {read} rounds of reading, {len(acknowledged)} messages "
        f"acknowledged, {events} events; {answered} were answered for by the next daemon"
    )
    wrong = sum(count for line, count in beside.items() if line.startswith("WRONG"))
    say(f"{mount.log_text().count(': compacted')} compactions by the mount; beside it, and {wrong} wrong:")
    say("\n".join(f"  {count} x {line}" for line, count in sorted(beside.items())))
    say(f"lost {lost}, doubled {doubled}, errors seen by clients {len(bad)}, unsound at the end {unsound}")
    say("\n".join(f"  {name}: {line}" for name, line in bad[:20]))
    return lost + doubled + unsound + len(bad) + wrong


PROBE = """
import os, sys, time
katas, count = sys.argv[1:], 0
while True:
    begin = time.monotonic()
    os.path.exists(f"{katas[count % len(katas)]}/nothing{count}")
    end = time.monotonic()
    if end - begin > 0.002:
        sys.stdout.write(f"{begin} {end}\\n"); sys.stdout.flush()
    count += 1
"""


def pause(work: Path, katas: int, kills: int) -> None:
    """Print the median and the worst of so many kills: how long the request took that waited across it."""
    pauses = []
    with mounted(work, katas) as (mount, ids):
        command = [sys.executable, "-c", PROBE, *(str(mount.kata(kata_id)) for kata_id in ids)]
        with open(work / "probe", "wb") as said, subprocess.Popen(command, stdout=said) as probe:
            moments = []
            for _ in range(kills):
                time.sleep(random.uniform(0.6, 0.9))
                moments.append(time.monotonic())
                kill(mount)
            time.sleep(1)
            probe.kill()
        waits = [tuple(map(float, line.split())) for line in (work / "probe").read_text().splitlines()]
        for moment in moments:
            # begun before the daemon was gone, or while there was none
            seen = [end - begin for begin, end in waits if begin < moment + 0.05 and end > moment]
            pauses.append(max(seen, default=0.0))
    say(
        f"{katas} katas in use, {kills} kills: pause median {statistics.median(pauses) * 1000:.0f} ms, "
        f"worst {max(pauses) * 1000:.0f} ms",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["soak", "pause"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--compact-after", type=float, default=0.2, help="seconds, for the soak")
    parser.add_argument("--check-every", type=int, default=1, metavar="N", help="look at all katas after N kills")
    parser.add_argument("--directory", type=Path, help="where to make the store")
    arguments = parser.parse_args()
    good = True
    for katas in (1, 64) if arguments.what == "pause" else (0,):
        with tempfile.TemporaryDirectory(prefix="katafs-restarts-", dir=arguments.directory) as name:
            if arguments.what == "soak":
                good = soak(Path(name), arguments.kills, arguments.compact_after, arguments.check_every)
            else:
                pause(Path(name), katas, arguments.kills)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
