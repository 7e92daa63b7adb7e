"""Line 10: a class: 64 people who run their tests once a second, and 64 who look at what the others do."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

from katafs.kata.model.ids import from_number, kata_path
from tests.benchmarks.bench import Bench
from tests.benchmarks.data import compact, make_history
from tests.benchmarks.figures import Bar, Figure
from tests.katas import message

_PEOPLE, _EVENTS, _READS = 64, 30, 20
# seconds in which all begin at once
_BEGIN = 10
_NAMES = ("files/file0.py", "files/file1.py", "files/src/file4.py", "stdout", "status", "event.json")

#: what one of them does in a second: number, second, random numbers → the time of each operation in ms
Turn = Callable[[int, int, random.Random], list[float]]


def measure(bench: Bench) -> list[Figure]:
    """A mount of 64 katas of 30 events, for a minute."""
    template = make_history(bench.directory("made"), "AbCdEf", _EVENTS)
    compact(template)
    store = bench.directory("store")
    katas = [from_number(number * 1_000_003) for number in range(_PEOPLE)]
    for kata_id in katas:
        shutil.copytree(template, kata_path(store, kata_id))
    seconds = bench.choose(60, 10)
    with bench.katafs(store) as mount:
        paths = [mount.kata(kata_id) for kata_id in katas]
        begin = time.time() + 0.5
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        turns: list[tuple[str, Turn]] = [("commit", _writer(paths)), ("read", _reader(paths))]
        processes = [
            context.Process(target=_people, args=(name, turn, begin, seconds, results)) for name, turn in turns
        ]
        for process in processes:
            process.start()
        found = dict(results.get(timeout=seconds + 60) for _ in processes)
        for process in processes:
            process.join()
        last = {int(os.readlink(path / "events" / "latest")) for path in paths}
        assert last == {_EVENTS + seconds}, f"not all events are there: {last}"
    return [figure for name, most in (("read", 10), ("commit", 100)) for figure in _figures(name, most, *found[name])]


def _figures(name: str, most: float, taken: list[tuple[int, float]], errors: list[str]) -> list[Figure]:
    times = [took for _, took in taken]
    ranks = statistics.quantiles(times, n=100)
    # when all katas have been opened
    last = max(second for second, _ in taken)
    later = statistics.quantiles([took for second, took in taken if second > last // 2], n=100)
    begins = statistics.quantiles([took for second, took in taken if second < _BEGIN], n=100)
    others = {"median": ranks[49], "worst": max(times), "p99 of the second half": later[98]}
    return [
        Figure(10, f"class: p99 of a {name} in the first {_BEGIN} s", "ms", begins[98], {}, [Bar(most)]),
        Figure(10, f"class: errors of {len(times)} {name}s", "", len(errors), {}, [Bar(0)]),
        Figure(10, f"class: p99 of a {name}", "ms", ranks[98], others, [Bar(most)]),
    ]


def _people(
    name: str,
    turn: Turn,
    begin: float,
    seconds: int,
    results: multiprocessing.Queue[tuple[str, tuple[list[tuple[int, float]], list[str]]]],
) -> None:
    """A thread for each; they take turns within each second."""
    times: list[tuple[int, float]] = []
    errors: list[str] = []

    def person(number: int) -> None:
        chance = random.Random(number)
        for second in range(seconds):
            time.sleep(max(begin + second + number / _PEOPLE - time.time(), 0))
            try:
                times.extend((second, took) for took in turn(number, second, chance))
            except OSError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=person, args=(number,)) for number in range(_PEOPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((name, (times, errors)))


def _writer(paths: list[Path]) -> Turn:
    def turn(number: int, second: int, chance: random.Random) -> list[float]:
        index = _EVENTS + 1 + second
        files = {f"file{name}.py": f"# {number}\n" + f"line {name}\n" * 150 for name in range(4)}
        files["file4.py"] = f"# {index} {chance.random()}\n" * 60
        data = json.dumps(message(files, index=index, stdout={"content": f"run {index}\n" * 20})).encode()
        fd = os.open(paths[number] / "ran_tests", os.O_WRONLY | os.O_TRUNC)
        try:
            start = time.perf_counter()
            os.write(fd, data)
            return [(time.perf_counter() - start) * 1e3]
        finally:
            os.close(fd)

    return turn


def _reader(paths: list[Path]) -> Turn:
    def turn(_number: int, _second: int, chance: random.Random) -> list[float]:
        times = []
        for _ in range(_READS):
            path = f"{chance.choice(paths)}/events/{chance.randrange(1, _EVENTS + 1)}/{chance.choice(_NAMES)}"
            start = time.perf_counter()
            fd = os.open(path, os.O_RDONLY)
            try:
                os.read(fd, 1 << 20)
            finally:
                os.close(fd)
            times.append((time.perf_counter() - start) * 1e3)
        return times

    return turn
