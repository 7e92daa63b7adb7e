"""``python -m tests.benchmarks``: katafs beside plain ext4, a bare pyfuse3 mount, pygit2 and the git command.

Each figure is the median of some rounds; the sides of a comparison take turns, and both must have read the same bytes.
Run it from the root of the checkout in the tests' environment: ``.venv-test/bin/python -m tests.benchmarks``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import commits
from tests.katas import make_long_kata
from tests.mounts import Mount, wait_until

Measure = Callable[[Path], tuple[float, str]]
Starter = Callable[[], tuple[Path, Callable[[], object]]]


def files_below(root: Path) -> list[str]:
    """All regular files below a directory, in the order of a walk."""
    found = []
    for directory, inside, names in os.walk(root):
        inside.sort()
        found += [os.path.join(directory, name) for name in sorted(names) if name != "latest"]
    return found


def read_all(root: Path) -> tuple[float, str]:
    """Open, read and close every file: µs a file, and a digest of the bytes."""
    files = files_below(root)
    digest = hashlib.sha256()
    seconds = 0.0
    for path in files:
        start = time.perf_counter()
        fd = os.open(path, os.O_RDONLY)
        data = os.read(fd, 1 << 20)
        os.close(fd)
        seconds += time.perf_counter() - start
        digest.update(data)
    return seconds / len(files) * 1e6, digest.hexdigest()


def stat_all(root: Path) -> tuple[float, str]:
    """Walk and stat: µs a file, and the number of files and bytes."""
    start = time.perf_counter()
    sizes = [os.stat(path).st_size for path in files_below(root)]
    return (time.perf_counter() - start) / len(sizes) * 1e6, f"{len(sizes)} {sum(sizes)}"


def shell(command: str) -> Measure:
    """A command over the tree, with its output for a check: µs a file."""

    def run(root: Path) -> tuple[float, str]:
        count = len(files_below(root))
        start = time.perf_counter()
        result = subprocess.run(command, shell=True, cwd=root, capture_output=True, check=False)
        return (time.perf_counter() - start) / count * 1e6, hashlib.sha256(result.stdout).hexdigest()

    return run


WARM: dict[str, Measure] = {
    "open+read+close": read_all,
    "stat walk": stat_all,
    "find | xargs cat": shell("find . -type f -print0 | sort -z | xargs -0 cat"),
    "grep -r": shell("grep -r 'line 7 of' . | sort"),
    "ls -lR": shell("ls -lR --time-style=+ . | awk '$6 != \"latest\" && /^-/ {print $5, $6}'"),
}


def warm(roots: dict[str, Path], rounds: int) -> dict[str, dict[str, float]]:
    """Everything in the kernel's caches: µs a file by test and side."""
    table: dict[str, dict[str, float]] = {}
    for test, measure in WARM.items():
        times: dict[str, list[float]] = {side: [] for side in roots}
        for number in range(rounds + 1):
            seen = set()
            for side, root in roots.items():
                took, digest = measure(root)
                seen.add(digest)
                if number:  # the first round fills the caches
                    times[side].append(took)
            assert len(seen) == 1, f"{test}: the sides have not read the same"
        table[f"warm {test}"] = {side: statistics.median(values) for side, values in times.items()}
    return table


def cold(mounts: dict[str, Starter], rounds: int) -> dict[str, dict[str, float]]:
    """A fresh mount for each measurement: µs a file by test and side."""
    table: dict[str, dict[str, float]] = {}
    for test, measure in (("stat walk", stat_all), ("walk+open+read+close", read_all), ("grep -r", WARM["grep -r"])):
        times: dict[str, list[float]] = {side: [] for side in mounts}
        for _ in range(rounds):
            seen = set()
            for side, start in mounts.items():
                root, end = start()
                try:
                    took, digest = measure(root)
                finally:
                    end()
                times[side].append(took)
                seen.add(digest)
            assert len(seen) == 1, f"{test}: the sides have not read the same"
        table[f"cold {test}"] = {side: statistics.median(values) for side, values in times.items()}
    return table


class Bench:
    """The mounts and the plain copy that are compared."""

    def __init__(self, work: Path, events: int) -> None:
        self.work = work
        self.store = work / "store"
        self.store.mkdir()
        make_long_kata(self.store, "AbCdEf", events)
        self.plain = work / "plain"
        root, end = self.katafs()
        shutil.copytree(root, self.plain, symlinks=True)
        (self.plain / "latest").unlink()
        end()

    def katafs(self) -> tuple[Path, Callable[[], object]]:
        """A fresh katafs mount: the events of the kata."""
        mount = Mount(self.store, self.work / "mnt", "fast", ())
        mount.log.unlink(missing_ok=True)
        mount.start()
        return mount.kata("AbCdEf") / "events", mount.stop

    def bare(self) -> tuple[Path, Callable[[], object]]:
        """A fresh bare mount of the plain copy."""
        path = self.work / "bare"
        path.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.benchmarks.bare", str(self.plain), str(path)]
        process = subprocess.Popen(command)
        wait_until(lambda: os.path.ismount(path), "the bare mount")

        def end() -> None:
            process.terminate()
            process.wait(20)

        return path, end


def main() -> None:
    """Measure and print a table; with ``--json`` the figures too."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--events", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="katafs-bench-") as directory:
        bench = Bench(Path(directory), options.events)
        root, end = bench.katafs()
        try:
            table = warm({"katafs": root, "ext4": bench.plain}, options.rounds)
        finally:
            end()
        table |= cold({"katafs": bench.katafs, "bare": bench.bare}, options.rounds)
        table |= commits.measure(Path(directory), options.events, options.rounds)
    show = json.dumps(table, indent=2) if options.json else "\n".join(lines(table))
    sys.stdout.write(show + "\n")


def lines(table: dict[str, dict[str, float]]) -> list[str]:
    """The table as text: the figure of each side, and ours as a ratio to each other's."""
    found = []
    for test, sides in table.items():
        ours = sides["katafs"]
        rivals = {side: value for side, value in sides.items() if side != "katafs"}
        others = "  ".join(f"{side} {value:9.1f} ({ours / value:5.2f}x)" for side, value in rivals.items())
        found.append(f"{test:28} katafs {ours:9.1f} µs   {others}")
    return found


if __name__ == "__main__":
    main()
