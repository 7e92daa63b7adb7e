"""Two hosts on one store, a katafs on each. JuiceFS with ``--engines``, and in CI; the others with ``--slow``, too."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from katafs.kata.model.ids import kata_path
from tests.benchmarks.restarts import say
from tests.engines.client import Client, Hosts
from tests.engines.writers import send
from tests.kata.test_writers import write_with_git
from tests.katas import assert_sound, make_kata, message, stored_rows
from tests.legacy.test_mount_services import assert_sound_with_outages, ran_tests
from tests.mounts import MakeMount, Mount, katafs, patience, wait_until
from tests.plain_katas import make_plain_kata

IDS = ("AbCdEf", "GhJkMn", "PqRsTu", "VwXyZa")
SEEN = 1.0  # seconds until a commit is seen on the other host


def test_a_probe_finds_nothing_that_is_lost(hosts: Hosts) -> None:
    told = json.loads(katafs("probe", "--json", hosts[0].store, hosts[1].store).stdout)
    assert not [trial for trial in told["trials"] if trial["grade"] == "loses events"]
    wait_until(lambda: not (hosts[1].store / ".katafs-probe").exists(), "its end")


def _write(host: Client, number: int, count: int) -> list[tuple[str, str, str, int]]:
    """Record events in turn in all katas, half of them with an index: each with what was said."""
    laptop, told = f"{number:064x}", []
    for turn in range(1, count + 1):
        kata_id = IDS[(number + turn) % len(IDS)]
        text = message({"a.txt": f"{laptop} {turn}"}, laptop_id=laptop, tab_seq=turn)
        if turn % 2:
            text["index"] = int(os.readlink(host.mount.kata(kata_id) / "events/latest")) + 1
        told.append((send(host.mount, kata_id, text), kata_id, laptop, turn))
    return told


def test_writers_on_both_and_git(hosts: Hosts, request: pytest.FixtureRequest) -> None:
    """What was acknowledged is there, once each; nobody hears of an error but that somebody was first."""
    for kata_id in IDS:
        make_kata(hosts[0].store, kata_id, {"a.txt": "0\n"})
    count = 25 if request.config.getoption("--slow") else 4
    is_over, by_git, begin = threading.Event(), list[str](), time.monotonic()
    with ThreadPoolExecutor(9) as pool:
        git = pool.submit(write_with_git, kata_path(hosts[1].store, IDS[0]), is_over, by_git)
        writers = [pool.submit(_write, hosts[number % 2], number, count) for number in range(8)]
        told = [one for writer in writers for one in writer.result()]
        took = time.monotonic() - begin
        is_over.set()
        git.result()
    said = Counter(word for word, *_ in told)
    say(f"{len(told)} messages in {took:.1f} s, {len(by_git)} events by git: {said}")
    assert not said.keys() - {"", "EEXIST"}
    recorded: Counter[tuple[str, str, int]] = Counter()
    for kata_id in IDS:
        path = kata_path(hosts[1].store, kata_id)
        rows = stored_rows(path)
        recorded.update((kata_id, row["laptop_id"], row["tab_seq"]) for row in rows if row.get("colour") == "red")
        assert kata_id != IDS[0] or [row["by"] for row in rows if "by" in row] == by_git
        assert assert_sound(path) == len(rows) - 1
    assert recorded == Counter((kata_id, laptop, turn) for word, kata_id, laptop, turn in told if not word)


def _at_once(do: Callable[[Client], Any], hosts: Hosts) -> list[Any]:
    barrier = threading.Barrier(2)

    def run(host: Client) -> Any:
        barrier.wait()
        return do(host)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, hosts))


def test_an_index_is_won_once(hosts: Hosts) -> None:
    make_kata(hosts[0].store, "Wun234", {"a.txt": "0\n"})
    for index in range(1, 6):
        said = _at_once(lambda host: send(host.mount, "Wun234", message({"a.txt": host.path.name}, index=index)), hosts)  # noqa: B023
        assert sorted(said) == ["", "EEXIST"]
    assert assert_sound(kata_path(hosts[1].store, "Wun234")) == 5


def test_seen_on_the_other_host(hosts: Hosts, request: pytest.FixtureRequest) -> None:
    """By somebody who reads all the time."""
    count = 200 if request.config.getoption("--slow") else 10
    make_kata(hosts[0].store, "Seen23", {"a.txt": "0\n"})
    seen = hosts[1].mount.kata("Seen23")
    took = []
    for index in range(1, count + 1):
        assert not send(hosts[0].mount, "Seen23", message({"a.txt": f"{index}\n"}, index=index))
        begin = time.monotonic()
        wait_until(lambda: os.readlink(seen / "events/latest") == f"{index}", "the event")  # noqa: B023
        took.append(time.monotonic() - begin)
        assert (seen / f"events/{index}/files/a.txt").read_text() == f"{index}\n"
        assert len(json.loads((seen / "events_summary.json").read_bytes())) == index + 1
    say(f"seen after p99 {sorted(took)[int(count * 0.99) - 1]:.3f} s, at worst {max(took):.3f} s, of {count}")
    assert max(took) < patience(SEEN + hosts[1].stale)


def test_upkeep_on_both_beside_a_writer(hosts: Hosts) -> None:
    """Compaction, fsck from two hosts, a migration; the writer hears of none."""
    make_kata(hosts[0].store, "Keep23", {"a.txt": "0\n"})
    make_plain_kata(hosts[0].store, "Mave23", 1, 3, events=5)
    is_over = threading.Event()

    def write() -> int:
        index = 0
        while not is_over.is_set():
            index += 1
            assert not send(hosts[1].mount, "Keep23", message({"a.txt": f"{index}\n"}, index=index))
        return index

    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(write)
        try:
            katafs("compact", hosts[0].store, "Keep23")
            checked = _at_once(lambda host: katafs("fsck", host.store, "Keep23").stderr, hosts)
            assert checked == [b"", b""]
            katafs("migrate", hosts[0].store, "Mave23")
        finally:
            is_over.set()
    assert assert_sound(kata_path(hosts[0].store, "Keep23")) == written.result()
    assert (hosts[1].mount.kata("Mave23") / "events/4/files").is_dir()


@pytest.mark.parametrize("version", [0, 1])
def test_services_that_write_plain_paths(hosts: Hosts, version: int) -> None:
    """In turn, and both the same index."""
    kata_id = f"Pan{version}23"
    make_plain_kata(hosts[0].store, kata_id, version, 3, events=3)
    for index in (3, 4):
        host = hosts[index % 2].mount.kata(kata_id)
        wait_until(lambda: os.readlink(host / "events/latest") == f"{index - 1}", "the event before")  # noqa: B023
        assert ran_tests(host, index, version)
    won = _at_once(lambda host: ran_tests(host.mount.kata(kata_id), 5, version), hosts)
    assert sorted(won) == [False, True]
    assert assert_sound_with_outages(kata_path(hosts[0].store, kata_id)) == 5


def _rate(mount: Mount) -> float:
    """Events a second, of one writer."""
    make_kata(mount.store, "Rate23", {"a.txt": "0\n"})
    wait_until((mount.kata("Rate23") / "control").is_dir, "the kata")
    begin = time.monotonic()
    for index in range(1, 21):
        assert not send(mount, "Rate23", message({"a.txt": f"{index}\n"}, index=index))
    return 20 / (time.monotonic() - begin)


def test_the_rate_beside_a_local_file_system(hosts: Hosts, store: Path, mount: MakeMount) -> None:
    there, local = _rate(hosts[0].mount), _rate(mount(store, "fast"))
    say(f"{there:.1f} events a second, {local:.1f} on a local disk: {there / local:.2f} of that")
