"""What one reader feels of what others do: ``python -m tests.benchmarks.blocking``.

Reads small files that were never read before, of a kata of its own, one every few milliseconds, while the daemon is
busy with something large in another kata. Each line has the latencies of open+read+close (with the lookups) in
milliseconds; the first is that of an idle daemon. Each thing is done on a mount of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.katas import (
    add_event,
    git,
    git_commit,
    make_kata,
    make_long_kata,
    message,
    pretty_json,
    row_time,
    stored_rows,
)
from tests.mounts import Mount

MIB = 1 << 20
EVENTS = 1500
_PAUSE = 0.003  # seconds between two reads
_MOST = 12.0  # seconds

#: works in a directory on a mount, until it is done
Load = Callable[[Mount], list[list[str]]]

_SLOW_FSYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
#define SLOW(name) int name(int fd) { int (*real)(int) = dlsym(RTLD_NEXT, #name); usleep(300000); return real(fd); }
SLOW(fsync)
SLOW(fdatasync)
"""


def big_event(path: Path, files: dict[str, bytes], rows: bytes | None = None) -> None:
    """Record an event with the git command."""
    known = stored_rows(path)
    row = {"colour": "amber", "index": len(known), "time": row_time(60 * len(known)), "type": "test"}
    changes = {"event.json": pretty_json(row), "events_summary.json": rows or pretty_json([*known, row])}
    assert git_commit(path, f"{len(known)} ran tests", {**changes, **{f"files/{k}": v for k, v in files.items()}})
    git(path, "update-ref", f"refs/tags/{len(known)}", "main")


class Stage:
    """The store, with a kata for each kind of work."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        self.store = directory / "store"
        self.store.mkdir()
        make_long_kata(self.store, "AbCdEf", EVENTS)
        self.megabytes = megabytes
        self._random = random.Random(1)

    def make(self) -> None:
        """Everything that is worked on."""
        large = make_kata(self.store, "DwnLad")
        git(large, "config", "core.compression", "0")
        for number in range(self.megabytes // 15):
            big_event(large, {f"data{number}": self._random.randbytes(15 * MIB)})
        git(large, "config", "--unset", "core.compression")
        diffs = make_kata(self.store, "DffDff")
        for number in range(12):
            big_event(diffs, {"text": self._lines(5_000, number), "letters": self._letters(6_000)})
        wide = make_kata(self.store, "WdeWde")
        big_event(wide, {f"{number % 97}/{number}": b"%d\n" % number for number in range(30_000)})
        rows = make_kata(self.store, "RwsRws")
        many = [
            {"index": number, "colour": "red", "time": row_time(number)} | {"x": "y" * 900} for number in range(8_000)
        ]
        big_event(rows, {}, pretty_json([*stored_rows(rows), *many[1:]]))
        for number in range(60):
            add_event(make_kata(self.store, f"Fs{number:02}Ck"), 1)
        for kata_id in ("WrtWrt", "BrcKts"):
            make_kata(self.store, kata_id)

    def _lines(self, count: int, seed: int) -> bytes:
        return b"".join(b"line %d of %d\n" % (number, seed if number % 3 else 0) for number in range(count))

    def _letters(self, count: int) -> bytes:
        return b"\n".join(bytes([letter]) for letter in self._random.choices(range(97, 123), k=count)) + b"\n"


def cat(mount: Mount, kata_id: str, *names: str) -> list[str]:
    return ["cat", *[str(mount.kata(kata_id) / name) for name in names]]


def write(mount: Mount, code: str, kata_id: str = "WrtWrt") -> list[str]:
    """A Python client of the control file of a kata; ``put(data)`` writes a message, and gives up if it is refused."""
    head = (
        "import json, os, sys\n"
        "def put(data, size=1 << 20):\n"
        "    fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC)\n"
        "    while data: data = data[os.write(fd, data[:size]):]\n"
        "    os.close(fd)\n"
    )
    return [sys.executable, "-c", head + code, str(mount.kata(kata_id) / "ran_tests")]


_SMALL = json.dumps(message({"a.txt": "a\n"}))
LOADS: dict[str, Load] = {
    "idle": lambda mount: [["sleep", "3"]],
    "a large download": lambda mount: [cat(mount, "DwnLad", "download.tgz")],
    "a large file": lambda mount: [cat(mount, "DwnLad", *[f"files/data{number}" for number in range(4)])],
    "diffs of 5,000 lines": lambda mount: [
        cat(mount, "DffDff", *[f"diff/{was}..{now}" for was in range(1, 13) for now in range(1, 13)])
    ],
    "the same as JSON": lambda mount: [cat(mount, "DffDff", *[f"diff/{was}..{was + 1}.json" for was in range(1, 12)])],
    "pages": lambda mount: [cat(mount, "AbCdEf", *[f"html/{number}..{number + 1}.html" for number in range(100)])],
    "documents of events": lambda mount: [cat(mount, "DffDff", *[f"events/{number}.json" for number in range(12)])],
    "30,000 files in a tree": lambda mount: [["sh", "-c", f"find {mount.kata('WdeWde')}/files | tail -1"]],
    "rows of 8 MB": lambda mount: [
        ["sh", "-c", f"cat {mount.kata('RwsRws')}/events_summary.json {mount.kata('RwsRws')}/history | tail -c1"]
    ],
    "a message of 12 MB": lambda mount: [
        write(
            mount,
            "put(json.dumps({'summary': {'colour': 'red'}, 'stdout': {'content': 'x\\n\\\"' * 2000000}}).encode())",
        )
    ],
    "a message of brackets": lambda mount: [
        write(
            mount,
            'try: put(b\'{"summary": {"colour": "red", "x": [\' + b\'[],\' * 1000000 + b\'[]]}}\')\n'
            "except OSError: pass",
            "BrcKts",
        )
    ],
    "commits with 300 KiB files": lambda mount: [
        write(
            mount,
            "for number in range(8):\n"
            "    text = ''.join(f'line {n} {number if n % 3 else 0}\\n' for n in range(20000))\n"
            "    put(json.dumps({'summary': {'colour': 'red'}, 'files': {'a': {'content': text}}}).encode())",
        )
    ],
    "a slow fsync": lambda mount: [
        write(mount, f"for _ in range(2): put(json.dumps({json.loads(_SMALL)}).replace('null', 'null').encode())")
    ],
    "fsck": lambda mount: [[sys.executable, "-m", "katafs", "fsck", "--quiet", str(mount.store)]],
    "git gc of its own kata": lambda mount: [["git", "-C", str(mount.store / "Ab/Cd/Ef"), "gc", "-q"]],
}


def latencies(mount: Mount, commands: list[list[str]]) -> tuple[list[float], float]:
    """Of reads while the commands run, in ms; and how long these took, in s."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    start = time.monotonic()
    running = [subprocess.Popen(command, **quiet) for command in commands]  # type: ignore[call-overload]
    taken = []
    took = 0.0
    try:
        for number in range(EVENTS):
            before = time.perf_counter()
            with open(mount.kata("AbCdEf") / f"events/{number}/stdout", "rb", buffering=0) as file:
                file.read()
            taken.append((time.perf_counter() - before) * 1e3)
            took = time.monotonic() - start
            if took > _MOST or all(process.poll() is not None for process in running):
                break
            time.sleep(_PAUSE)
    finally:
        for process in running:
            process.kill()
            said = process.communicate()[1].decode()
            # fsck has findings
            assert process.returncode in (0, 4, -9), said
    return taken, took


@contextlib.contextmanager
def environment(**values: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def slow_fsync(directory: Path) -> Path | None:
    """A library with which each fsync takes 0.3 s longer; None without a compiler."""
    source, library = directory / "slow.c", directory / "slow.so"
    source.write_text(_SLOW_FSYNC)
    command = ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    if shutil.which("cc") is None or subprocess.run(command, check=False).returncode:
        return None
    return library


def measure(directory: Path, stage: Stage, name: str) -> dict[str, float]:
    """One line of the table."""
    preload = {}
    if name == "a slow fsync" and (library := slow_fsync(directory)) is not None:
        preload["LD_PRELOAD"] = str(library)
    with environment(**preload):
        mount = Mount(stage.store, directory / "mnt", "fast", ())
        mount.log.unlink(missing_ok=True)
        mount.expected_log = "."
        mount.start()
    try:
        # the first page of a kata's rows is no part of this
        (mount.kata("AbCdEf") / "status").read_bytes()
        taken, took = latencies(mount, LOADS[name](mount))
    finally:
        mount.stop()
    taken.sort()
    return {
        "reads": len(taken),
        "p50": statistics.median(taken),
        "p99": taken[int(len(taken) * 0.99)],
        "max": taken[-1],
        "seconds": took,
    }


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.blocking", description=__doc__)
    parser.add_argument("--only", action="append", metavar="WORDS", help="only what has these words in its name")
    parser.add_argument("--megabytes", type=int, default=300, help="of the download")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    names = [name for name in LOADS if not arguments.only or any(words in name for words in arguments.only)]
    table = {}
    with tempfile.TemporaryDirectory(prefix="katafs-blocking-") as work:
        stage = Stage(Path(work), arguments.megabytes)
        stage.make()
        if not arguments.json:
            say(f"{'':28} {'reads':>6} {'p50':>8} {'p99':>8} {'max':>8}  ms; the work took")
        for name in names:
            table[name] = line = measure(Path(work), stage, name)
            if not arguments.json:
                figures = f"{line['reads']:6} {line['p50']:8.2f} {line['p99']:8.2f} {line['max']:8.2f}"
                say(f"{name:28} {figures}  {line['seconds']:.1f} s")
    if arguments.json:
        say(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
