"""What all benchmarks share: a directory to work in, mounts that begin afresh, and plain files beside them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.mounts import Mount, wait_until

KATA = "AbCdEf"


@dataclass(frozen=True)
class Bench:
    """A run: its directory for temporary files, and how much is measured."""

    work: Path
    quick: bool = False
    rounds: int = 5
    say: Callable[[str], object] = lambda text: None

    def directory(self, name: str) -> Path:
        """An empty directory of that name."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path

    def choose(self, full: int, quick: int) -> int:
        """How many, in a full run and in a quick one."""
        return quick if self.quick else full

    @contextlib.contextmanager
    def katafs(self, store: Path, *options: str, command: list[str] | None = None) -> Iterator[Mount]:
        """A fresh mount of a store, in the fast mode; by another katafs than ours where its command is given."""
        mount = Mount(store, self.work / "mnt", "fast", options)
        mount.katafs = command or mount.katafs
        mount.log.unlink(missing_ok=True)
        with mount:
            yield mount

    @contextlib.contextmanager
    def bare(self, plain: Path) -> Iterator[Path]:
        """A fresh bare mount (`tests.benchmarks.bare`) of plain files."""
        path = self.work / "bare"
        path.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "tests.benchmarks.bare", str(plain), str(path)]
        with subprocess.Popen(command) as process:
            try:
                wait_until(lambda: os.path.ismount(path), "the bare mount")
                yield path
            finally:
                process.terminate()

    def expand(self, store: Path, relative: str) -> Path:
        """Plain files with the bytes that katafs shows in a directory of a store; without ``latest``."""
        plain = self.work / "plain"
        shutil.rmtree(plain, ignore_errors=True)
        with self.katafs(store) as mount:
            shutil.copytree(mount.path / relative, plain, symlinks=True)
        (plain / "latest").unlink(missing_ok=True)
        return plain


def files_below(root: Path) -> list[str]:
    """All regular files below a directory, relative to it, in the order of a sorted walk."""
    found = []
    for directory, inside, names in os.walk(root):
        inside.sort()
        found += [os.path.relpath(os.path.join(directory, name), root) for name in sorted(names) if name != "latest"]
    return found


def read_all(root: Path, names: list[str]) -> tuple[float, str]:
    """Open, read and close files: µs a file, and a digest of their bytes."""
    digest = hashlib.sha256()
    seconds = 0.0
    for path in [f"{root}/{name}" for name in names]:
        start = time.perf_counter()
        fd = os.open(path, os.O_RDONLY)
        data = os.read(fd, 1 << 20)
        os.close(fd)
        seconds += time.perf_counter() - start
        digest.update(data)
    return seconds / len(names) * 1e6, digest.hexdigest()


def stat_walk(root: Path) -> tuple[float, str]:
    """Walk a directory and stat every file: µs a file, and the number of files and bytes."""
    count = size = 0
    start = time.perf_counter()
    for directory, _, names in os.walk(root):
        for name in names:
            if name != "latest":
                size += os.stat(f"{directory}/{name}").st_size
                count += 1
    return (time.perf_counter() - start) / count * 1e6, f"{count} {size}"


def shell(root: Path, command: str, count: int) -> tuple[float, str]:
    """A shell command in a directory: µs for each of ``count`` files, and a digest of its output."""
    start = time.perf_counter()
    result = subprocess.run(command, shell=True, cwd=root, capture_output=True, check=False)
    took = time.perf_counter() - start
    assert not result.stderr, result.stderr
    return took / count * 1e6, hashlib.sha256(result.stdout).hexdigest()


def resident(pid: int) -> float:
    """The resident memory of a process in MB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
