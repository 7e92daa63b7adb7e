"""Line 9: the daemon's memory after 100,000 files were walked, and when the kernel has forgotten them."""

from __future__ import annotations

import ctypes
import os
import shutil
import time
from pathlib import Path

from katafs.kata.model.ids import from_number, kata_path
from tests.benchmarks.bench import Bench, resident, stat_walk
from tests.benchmarks.data import compact, make_history
from tests.benchmarks.figures import Bar, Figure

_EVENTS = 100
# <sys/mount.h>: as katafs mounts, and once more
_MS_NOSUID, _MS_NODEV, _MS_REMOUNT, _MS_NOATIME = 2, 4, 32, 1024


def measure(bench: Bench) -> list[Figure]:
    """One mount; other katas than those of a class, as many as have 100,000 files in ``events/``."""
    template = make_history(bench.directory("made"), "AbCdEf", _EVENTS)
    compact(template)
    store = bench.directory("store")
    katas = [from_number(number * 1_000_003) for number in range(bench.choose(43, 5))]
    for kata_id in katas:
        shutil.copytree(template, kata_path(store, kata_id))
    with bench.katafs(store) as mount:
        before = resident(mount.daemon)
        files = 0
        for kata_id in katas:
            files += int(stat_walk(mount.kata(kata_id) / "events")[1].split()[0])
        after = resident(mount.daemon)
        _forget(mount.path)
        end = time.monotonic() + 10
        while (now := resident(mount.daemon)) > 80 and time.monotonic() < end:
            time.sleep(0.1)
    others = {"when mounted": before}
    return [
        Figure(9, f"resident memory after {files} files", "MB", after, others, [Bar(150)], "compacted"),
        Figure(9, "the same when the kernel has forgotten them", "MB", now, others, [Bar(80)], "compacted"),
    ]


def _forget(path: Path) -> None:
    """Have the kernel forget all names of a mount that nobody uses: a remount drops them, and FUSE its inodes."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_REMOUNT | _MS_NOSUID | _MS_NODEV | _MS_NOATIME
    if libc.mount(None, os.fsencode(path), None, ctypes.c_ulong(flags), None):
        raise OSError(ctypes.get_errno(), "remounting")
