"""Line 8: a store of a million katas: how soon it is mounted, in how much memory, and how soon a kata is read.

A thousand katas are git repositories, the others plain ones of version 1; all are hard links to a few files. The store
takes two inodes for each plain kata, some ten minutes to make and to remove.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import time
from pathlib import Path

from katafs.kata.model.ids import ID_COUNT, from_number, kata_path
from tests.benchmarks.bench import Bench, resident
from tests.benchmarks.data import compact, make_history
from tests.benchmarks.figures import Bar, Figure
from tests.plain_katas import make_plain_kata

_MOST_LINKS = 60_000  # ext4 has 65,000
_SAMPLE = 25
_GIT_NAME, _PLAIN_NAME = "events/2/files/file0.py", "events/1/stdout"


class Many:
    """A store of many katas, and the ids of some of either kind."""

    def __init__(self, bench: Bench, name: str, katas: int, git_katas: int) -> None:
        self.store = bench.directory(name)
        chance = random.Random(katas)
        ids = [from_number(number) for number in chance.sample(range(ID_COUNT), katas)]
        # names like .git/refs need no links for each kata: directories cannot be linked
        self.git, self.plain = ids[:git_katas], ids[git_katas:]
        started = time.monotonic()
        template = make_history(bench.directory(f"{name}-git"), "AbCdEf", 10)
        compact(template)
        for kata_id in self.git:
            shutil.copytree(template, kata_path(self.store, kata_id), copy_function=os.link)
        for number in range(0, len(self.plain), _MOST_LINKS):
            self._link(bench.directory(f"{name}-plain{number}"), self.plain[number : number + _MOST_LINKS])
            bench.say(f"{name}: {number + git_katas} of {katas} katas after {time.monotonic() - started:.0f} s")

    def _link(self, directory: Path, ids: list[str]) -> None:
        template = make_plain_kata(directory, "AbCdEf", 1, 1, 2).path
        names = [(f"{template}/{name}", name) for name in os.listdir(template)]
        top = str(self.store)
        for kata_id in ids:
            path = f"{top}/{kata_id[:2]}/{kata_id[2:4]}"
            os.makedirs(path, exist_ok=True)
            path = f"{path}/{kata_id[4:]}"
            os.mkdir(path)
            for source, name in names:
                os.link(source, f"{path}/{name}")

    def touch(self, ids: list[str]) -> None:
        """Have the kernel read the directories of katas from disk: that is not what is measured."""
        for kata_id in ids:
            for directory, _, names in os.walk(kata_path(self.store, kata_id)):
                for name in names:
                    Path(directory, name).read_bytes()


def measure(bench: Bench) -> list[Figure]:
    """The large store beside a small one."""
    katas = bench.choose(1_000_000, 20_000)
    stores = {
        "many": Many(bench, "many", katas, bench.choose(1000, 50)),
        "few": Many(bench, "few", 1000, 50),
    }
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(bench.rounds):
        chance = random.Random(number)
        for name, many in stores.items():
            samples = {kind: chance.sample(getattr(many, kind), _SAMPLE) for kind in ("git", "plain")}
            many.touch([kata_id for ids in samples.values() for kata_id in ids])
            started = time.perf_counter()
            with bench.katafs(many.store) as mount:
                times.setdefault((name, "mount"), []).append(time.perf_counter() - started)
                times.setdefault((name, "memory"), []).append(resident(mount.daemon))
                for kind, file in (("git", _GIT_NAME), ("plain", _PLAIN_NAME)):
                    took = [_first_read(mount.kata(kata_id) / file) for kata_id in samples[kind]]
                    times.setdefault((name, kind), []).append(statistics.median(took))
    found = {key: statistics.median(values) for key, values in times.items()}
    of = f"{katas} katas"
    return [
        _figure(f"mounting {of}", "s", found, "mount", Bar(1.0)),
        _figure(f"resident memory with {of}", "MB", found, "memory", Bar(60)),
        _figure(f"first read of a git kata, {of}", "ms", found, "git", Bar(1.5, "1000 katas")),
        _figure(f"first read of a plain kata, {of}", "ms", found, "plain", Bar(1.5, "1000 katas")),
    ]


def _figure(name: str, unit: str, found: dict[tuple[str, str], float], what: str, bar: Bar) -> Figure:
    return Figure(8, name, unit, found["many", what], {"1000 katas": found["few", what]}, [bar])


def _first_read(path: Path) -> float:
    start = time.perf_counter()
    fd = os.open(path, os.O_RDONLY)
    os.read(fd, 1 << 20)
    os.close(fd)
    return (time.perf_counter() - start) * 1e3
