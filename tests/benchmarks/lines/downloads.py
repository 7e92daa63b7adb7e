"""Line 7: ``download.tgz`` of a kata, made and then kept, beside ``git clone`` and ``tar``."""

from __future__ import annotations

import hashlib
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from tests.benchmarks.bench import KATA, Bench
from tests.benchmarks.data import copies, make_history
from tests.benchmarks.figures import Bar, Figure
from tests.katas import git

_RELATIVE = f"{KATA[:2]}/{KATA[2:4]}/{KATA[4:]}"


def measure(bench: Bench) -> list[Figure]:
    """A kata of 100 events, loose and compacted."""
    stores = copies(make_history(bench.directory("made"), KATA, 100), bench.work / "store")
    figures = []
    for state, store in stores.items():
        times: dict[str, list[float]] = {"cold": [], "again": [], "clone": []}
        for number in range(bench.rounds):
            with bench.katafs(store) as mount:
                path = mount.path / _RELATIVE / "download.tgz"
                path.readlink()
                took, ours = timed(path)
                times["cold"].append(took)
                times["again"].append(timed(path)[0])
            took, other = _clone_and_tar(bench, store / _RELATIVE)
            times["clone"].append(took)
            if not number:
                digests = {digest_of(bench, ours), digest_of(bench, other)}
                assert len(digests) == 1, "the sides have not packed the same"
        found = {side: statistics.median(values) for side, values in times.items()}
        for name, side, most in (("cold download.tgz", "cold", 0.3), ("the same download again", "again", 0.05)):
            others = {"clone+tar": found["clone"]}
            figures.append(Figure(7, name, "ms", found[side], others, [Bar(most, "clone+tar")], state))
    return figures


def timed(path: Path) -> tuple[float, bytes]:
    """Read a file: ms, and its bytes."""
    start = time.perf_counter()
    data = path.read_bytes()
    return (time.perf_counter() - start) * 1e3, data


def _clone_and_tar(bench: Bench, path: Path) -> tuple[float, bytes]:
    """Time in ms and the archive of what git and tar make."""
    work = bench.directory("clone")
    start = time.perf_counter()
    git(work, "clone", "-q", path, "NAME")
    subprocess.run(["tar", "czf", "NAME.tgz", "NAME"], cwd=work, check=True)
    return (time.perf_counter() - start) * 1e3, (work / "NAME.tgz").read_bytes()


def digest_of(bench: Bench, archive: bytes) -> str:
    """A digest of the history and the work tree that are in an archive."""
    work = bench.directory("unpacked")
    subprocess.run(["tar", "xz"], input=archive, cwd=work, check=True)
    (top,) = work.iterdir()
    digest = hashlib.sha256(git(top, "rev-list", "--objects", "--tags", "main"))
    digest.update(git(top, "for-each-ref", "--format=%(refname) %(objectname)", "refs/tags", "refs/heads"))
    digest.update(git(top, "status", "--porcelain"))
    shutil.rmtree(work)
    return digest.hexdigest()
