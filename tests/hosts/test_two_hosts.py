"""One store on two hosts, a katafs on each: what is acknowledged is there, once, and is seen on the other soon."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from katafs.kata.model.ids import kata_path
from tests.hosts.host import Host, two_hosts
from tests.katas import assert_sound, git, make_kata, message, stored_rows
from tests.legacy.test_mount_services import assert_sound_with_outages, event_of, ran_tests
from tests.mounts import Mount, katafs, patience, wait_until
from tests.plain_katas import make_plain_kata

IDS = ("AbCdEf", "GhJkMn", "PqRsTu", "VwXyZa")
# seconds: how old what a host says of a directory may be, and how soon katafs shows what it could know
STALE, SEEN = 1.0, 1.0

Hosts = tuple[Host, Host]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Two hosts with their mounts."""
    with two_hosts(tmp_path_factory.mktemp("hosts")) as (one, other), one.mount, other.mount:
        # an error that somebody sees is in the tests; that a message came late is told, too
        one.mount.expected_log = other.mount.expected_log = "was left behind"
        yield one, other


class Reader:
    """Reads a kata all the time: what fails, and what it was late to see."""

    def __init__(self, host: Host, kata_id: str) -> None:
        self._kata = host.mount.kata(kata_id)
        self.failures: Counter[str] = Counter()
        self.seen: dict[int, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _read(self) -> None:
        # the processors are for those who are read from
        while not self._is_over.wait(0.005):
            where = "events_summary.json"
            try:
                rows = json.loads((self._kata / where).read_bytes())
                last = len(rows) - 1
                for where in (f"events/{last}/files/a.txt", "files/a.txt", "event.json", f"events/{last}/stdout"):
                    text = (self._kata / where).read_text()
                    if where.endswith("stdout") and last and text != f"{rows[last].get('tab_seq', last)}\n":
                        self.failures[f"{where}: {text!r}"] += 1
                self.seen.setdefault(last, time.monotonic())
            except (OSError, ValueError) as error:
                self.failures[f"{where}: {error}"] += 1

    def when(self, index: int) -> float:
        """When an event was first read, or a later one."""
        return min((when for known, when in self.seen.items() if known >= index), default=float("inf"))


def see(hosts: Hosts, kata_id: str) -> None:
    """Wait until a new kata is there on both hosts."""
    for host in hosts:
        wait_until((host.mount.kata(kata_id) / "events/latest").is_symlink, f"kata {kata_id}", STALE + SEEN)


def send(host: Host, kata_id: str, text: dict[str, Any]) -> str:
    """Write a message: the name of the errno, or nothing."""
    try:
        (host.mount.kata(kata_id) / "control/ran_tests").write_text(json.dumps(text))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def test_what_one_writes_the_other_reads(hosts: Hosts) -> None:
    """Soon, and without an error, however often."""
    one, other = hosts
    make_kata(one.store, IDS[0], {"a.txt": "0\n"})
    see(hosts, IDS[0])
    sent = {}
    with Reader(other, IDS[0]) as reader:
        for index in range(1, 9):
            text = {"content": f"{index}\n"}
            assert not send(one, IDS[0], message({"a.txt": f"{index}\n"}, index=index, stdout=text))
            sent[index] = time.monotonic()
            time.sleep(0.05 * (index % 4))
        wait_until(lambda: max(reader.seen, default=0) == 8, "the last event", STALE + SEEN)
    assert not reader.failures
    # twice what is promised: what a loaded machine takes decides no test
    assert max(reader.when(index) - when for index, when in sent.items()) < patience(2 * (STALE + SEEN))


class Writer:
    """Records events in all katas, half of them with an index: what it was told."""

    def __init__(self, host: Host, number: int, count: int) -> None:
        self._host, self._laptop, self._count = host, f"{number:064x}", count
        self._random = random.Random(number)
        self.told: Counter[str] = Counter()
        #: by kata
        self.acknowledged: list[tuple[str, str, int]] = []

    def write(self) -> None:
        turn = 0
        while turn < self._count:
            turn += 1
            kata_id = self._random.choice(IDS)
            text = message({"a.txt": f"{self._laptop} {turn}"}, laptop_id=self._laptop, tab_seq=turn)
            text["stdout"] = {"content": f"{turn}\n"}
            if turn % 2:
                text["index"] = int(os.readlink(self._host.mount.kata(kata_id) / "events/latest")) + 1
            told = send(self._host, kata_id, text)
            self.told[told] += 1
            if not told:
                self.acknowledged.append((kata_id, self._laptop, turn))


def test_writers_on_both(hosts: Hosts, request: pytest.FixtureRequest) -> None:
    """All that was acknowledged is there, once each; nobody hears of an error but that somebody was first."""
    one, other = hosts
    for kata_id in IDS:
        if not kata_path(one.store, kata_id).exists():
            make_kata(one.store, kata_id, {"a.txt": "0\n"})
        see(hosts, kata_id)
    count = 100 if request.config.getoption("--slow") else 5
    writers = [Writer(hosts[number % 2], number, count) for number in range(8)]
    with ThreadPoolExecutor(8) as pool, Reader(other, IDS[1]) as reader:
        for written in [pool.submit(writer.write) for writer in writers]:
            written.result()
    assert not reader.failures
    assert not {told for writer in writers for told in writer.told} - {"", "EEXIST"}
    recorded: Counter[tuple[str, str, int]] = Counter()
    for kata_id in IDS:
        path = kata_path(one.shared, kata_id)
        rows = [row for row in stored_rows(path) if row.get("colour") == "red" and "tab_seq" in row]
        recorded.update((kata_id, row["laptop_id"], row["tab_seq"]) for row in rows)
        assert assert_sound(path) == len(stored_rows(path)) - 1
    assert recorded == Counter(sent for writer in writers for sent in writer.acknowledged)


def test_an_index_is_won_once(hosts: Hosts) -> None:
    one, other = hosts
    make_kata(one.store, "Wun234", {"a.txt": "0\n"})
    see(hosts, "Wun234")
    for index in range(1, 4):
        barrier = threading.Barrier(2)

        def write(host: Host, barrier: threading.Barrier = barrier, index: int = index) -> str:
            barrier.wait()
            return send(host, "Wun234", message({"a.txt": host.store.parent.name}, index=index))

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(write, (one, other))) == ["", "EEXIST"]
    assert assert_sound(kata_path(one.shared, "Wun234")) == 3


def test_a_message_that_is_repeated_at_the_other_host(hosts: Hosts) -> None:
    """As of a client whose host has died."""
    one, other = hosts
    make_kata(one.store, "Rep234", {"a.txt": "0\n"})
    see(hosts, "Rep234")
    for turn in range(1, 4):
        text = message({"a.txt": f"{turn}\n"}, laptop_id="a" * 64, tab_seq=turn)
        assert [send(host, "Rep234", text) for host in (one, other, one)] == ["", "", ""]
    rows = stored_rows(kata_path(one.shared, "Rep234"))
    # what was edited is recorded first
    assert [row["tab_seq"] for row in rows if row.get("colour") == "red"] == [1, 2, 3]
    told = json.loads((other.mount.kata("Rep234") / "control/ran_tests").read_text())
    assert (told["ok"], told["recorded"], told["index"]) == (True, False, len(rows) - 1)


def _is_link_to(path: Path, target: str) -> bool:
    return os.readlink(path) == target


@pytest.mark.parametrize("version", [0, 1])
def test_services_that_write_plain_paths(hosts: Hosts, version: int) -> None:
    """In turn, each with the next index; and both with the same one."""
    one, _ = hosts
    kata_id = f"Pan{version}23"
    make_plain_kata(one.shared, kata_id, version, 3, events=3)
    path = kata_path(one.shared, kata_id)
    see(hosts, kata_id)
    for index in range(3, 6):
        host = hosts[index % 2]
        latest, before = host.mount.kata(kata_id) / "events/latest", str(index - 1)
        wait_until(partial(_is_link_to, latest, before), "the event before")
        assert ran_tests(host.mount.kata(kata_id), index, version)
    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(lambda host: ran_tests(host.mount.kata(kata_id), 6, version), hosts))
    assert sorted(won) == [False, True]
    assert assert_sound_with_outages(path) == 6
    row = event_of(5, version)[1]
    assert [known["colour"] for known in stored_rows(path)[3:]] == [row["colour"]] * 4


@pytest.mark.thorough
def test_upkeep_on_one_beside_a_writer_on_the_other(hosts: Hosts) -> None:
    one, other = hosts
    make_kata(one.store, "Keep23", {"a.txt": "0\n"})
    make_plain_kata(one.shared, "Mave23", 1, 3, events=5)
    see(hosts, "Keep23")
    see(hosts, "Mave23")
    is_over = threading.Event()

    def write() -> int:
        index = 0
        while not is_over.is_set() or index < 12:
            index += 1
            text = message({"a.txt": f"{index}\n"}, index=index, stdout={"content": f"{index}\n"})
            assert not send(other, "Keep23", text)
        return index

    with ThreadPoolExecutor(2) as pool, Reader(other, "Keep23") as reader, Reader(one, "Keep23") as near:
        written = pool.submit(write)
        try:
            for _ in range(1):
                katafs("compact", one.store, "Keep23")
                assert not katafs("fsck", one.store, "Keep23").stderr
            katafs("migrate", one.store, "Mave23")
        finally:
            is_over.set()
        last = written.result()
    assert not reader.failures + near.failures
    assert assert_sound(kata_path(one.shared, "Keep23")) == last
    assert (other.mount.kata("Mave23") / "events/4/files").is_dir()
    katafs("fsck", one.store)


def test_git_reads_by_the_mount(hosts: Hosts, tmp_path: Path) -> None:
    """All of it, beside a writer on the other host."""
    one, other = hosts
    make_kata(one.store, "Gyt234", {"a.txt": "0\n"})
    see(hosts, "Gyt234")
    for index in range(1, 4):
        assert not send(one, "Gyt234", message({"a.txt": f"{index}\n"}, index=index))
        clone = tmp_path / str(index)
        git(tmp_path, "-c", "safe.directory=*", "clone", "-q", other.mount.kata("Gyt234"), clone)
        assert git(clone, "fsck", "--strict") == b""
        assert (clone / "files/a.txt").read_text() in (f"{index - 1}\n", f"{index}\n")


@pytest.mark.parametrize("name", [".git", "main"])
def test_what_cannot_be_read_may_be_there(hosts: Hosts, name: str) -> None:
    """Who reads hears EIO, and reads again when it can be read."""
    one, other = hosts
    kata_id = f"Err23{name[-1]}"
    make_kata(one.store, kata_id, {"a.txt": "0\n"})
    see(hosts, kata_id)
    file = other.mount.kata(kata_id) / "events/0/files/a.txt"
    other.mount.expected_log = "."
    other.say("break", name)
    try:
        with pytest.raises(OSError, match="Input/output error"):
            file.read_text()
        assert send(other, kata_id, message({"a.txt": "1\n"}, index=1)) == "EIO"
    finally:
        other.say("break")
    assert file.read_text() == "0\n"
    assert not send(other, kata_id, message({"a.txt": "1\n"}, index=1))


def test_a_hung_engine_stops_only_who_needs_it(hosts: Hosts) -> None:
    one, _ = hosts
    make_kata(one.store, "Hung23", {"a.txt": "0\n"})
    with ThreadPoolExecutor(2) as pool:
        one.say("hang")
        try:
            waits = pool.submit((one.mount.kata("Hung23") / "files/a.txt").read_text)
            about = pool.submit((one.mount.path / ".katafs/stats").read_text)
            assert "katafs_requests" in about.result(patience(5))
            assert not waits.done()
        finally:
            one.say("go")
        assert waits.result(patience(20)) == "0\n"


def test_groups_that_hang_stop_only_who_needs_them(hosts: Hosts, tmp_path: Path) -> None:
    """Groups on a network file system, of a store that is on none."""
    one, _ = hosts
    (tmp_path / "store").mkdir()
    make_kata(tmp_path / "store", "Mem234", {"a.txt": "0\n"})
    groups = one.store / "groups"
    place = kata_path(groups, "Gr0up5")
    place.mkdir(parents=True)
    (place / "katas.txt").write_text("Mem234 7\n")
    mount = Mount(tmp_path / "store", tmp_path / "mnt", "fast", (f"--groups={groups}",))
    with mount, ThreadPoolExecutor(2) as pool:
        shown = mount.path / ".katafs/groups/Gr0up5"
        assert sorted(os.listdir(shown)) == ["07-Mem234", "events.csv", "history", "index.html"]
        assert os.path.samefile(shown / "07-Mem234", mount.kata("Mem234"))
        assert (shown / "events.csv").read_text().count("\n") == 2
        assert not (shown.parent / "N0ne99").exists()
        assert os.listdir(shown.parent) == []
        one.say("hang")
        try:
            waits = pool.submit(os.listdir, shown.parent / "Gr0up6")
            about = pool.submit((mount.path / ".katafs/stats").read_text)
            assert "katafs_requests" in about.result(patience(5))
            assert "groups" in os.listdir(mount.path / ".katafs")
            assert not waits.done()
        finally:
            one.say("go")
        with pytest.raises(FileNotFoundError):
            waits.result(patience(20))
