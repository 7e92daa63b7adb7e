"""Who records when many write at once: other processes, which may be killed at any moment, and nobody notices."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import ExhaustedError, InvalidError, LateError
from katafs.git import Oid
from katafs.git.odb.objects import Made
from katafs.kata.model.kinds import Act, Kind
from katafs.kata.record import recorders as recorders_module
from katafs.kata.record.commit import Announce, Committed, Job, Landed, record
from katafs.kata.record.message import parse_act
from katafs.kata.record.recorders import MOST, Recorders
from katafs.owner import acting_as_owner
from katafs.process import pool as pool_module
from katafs.process import starting
from katafs.process.pool import LeftError, Pool, Say, Worker
from tests.katas import assert_sound, git, make_kata, message, stored_rows
from tests.mount.test_bounds import workers
from tests.mount.test_process import own_fork_server
from tests.mounts import MakeMount, patience, wait_until

# -- workers that stay


@pytest.fixture
def fork_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[starting.ForkServer]:
    yield from own_fork_server(monkeypatch, pool_module)


@pytest.fixture
def pool(fork_server: starting.ForkServer) -> Iterator[Pool]:
    made = Pool(2, (__name__,))
    yield made
    end_all(made)


def end_all(pool: Pool) -> None:
    """End those of a pool that have nothing to do: what collects garbage would close their files twice."""
    for worker in pool._idle:
        worker.end()


def _talk(say: Say, what: object) -> object:
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "log":
        logging.getLogger("katafs.talking").warning("number %d", 1)
    if what == "much":
        raise MemoryError
    if what == "late":
        raise LateError("somebody was first")
    if what == "bug":
        raise ZeroDivisionError("a bug")
    if isinstance(what, list):
        for number, each in enumerate(what):
            say(each, number % 2 == 0)
    return os.getpid(), what


def started(pool: Pool) -> Worker:
    worker = pool.take(20)
    assert worker is not None
    return worker


def test_one_thing_after_the_other(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    assert pool.take() is None, "nobody waits until one is there"
    worker = started(pool)
    heard: list[object] = []
    pids = set()
    for what in ("first", ["one", b"two", 3], "log"):
        answer = worker.call(heard.append, _talk, what)
        assert isinstance(answer, tuple)
        assert answer[1] == what
        pids.add(answer[0])
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert heard == ["one", b"two", 3]
    assert [(each.name, each.getMessage()) for each in caplog.records] == [("katafs.talking", "number 1")]
    pool.give_back(worker)
    assert pool.take() is worker


def test_what_goes_wrong_is_heard_of(pool: Pool) -> None:
    worker = started(pool)
    with pytest.raises(LateError, match="somebody was first"):
        worker.call(print, _talk, "late")
    # where it was, since the log is to say it
    with pytest.raises(RuntimeError, match=r"in _talk\n(.*\n)*ZeroDivisionError"):
        worker.call(print, _talk, "bug")
    assert worker.call(print, _talk, "well")
    with pytest.raises(LeftError):
        worker.call(print, _talk, "die")
    pool.give_back(worker)
    another = started(pool)
    assert another is not worker
    assert another.call(print, _talk, "well")
    # with the memory that it could not do without
    with pytest.raises(MemoryError):
        another.call(print, _talk, "much")
    assert not another.is_there


def test_one_that_could_not_be_started_is_tried_again(pool: Pool) -> None:
    """As there were no descriptors for a moment every page was refused for a minute."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        assert pool.take(20) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pool.do(None, _talk, "well")


def test_who_has_work_waits_for_the_next(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was killed as it began is nobody's reason to be refused."""
    begin, left = pool_module.Worker, [EOFError("killed"), OSError("killed")]

    def start(*arguments: Any, **more: Any) -> Worker:
        if left:
            raise left.pop()
        return begin(*arguments, **more)

    monkeypatch.setattr(pool_module, "Worker", start)
    assert pool.do(None, _talk, "well")
    assert not left


def test_killed_when_it_has_nothing_to_do(pool: Pool) -> None:
    """Nobody is sent to it any more."""
    worker = started(pool)
    answer = worker.call(print, _talk, "who")
    assert isinstance(answer, tuple)
    pool.give_back(worker)
    os.kill(answer[0], signal.SIGKILL)
    wait_until(worker.is_gone, "its end")
    another = started(pool)
    assert another is not worker
    assert another.call(print, _talk, "well")
    pool.give_back(another)
    assert pool.take() is another


def test_who_cannot_be_told_does_not_go_on(pool: Pool) -> None:
    """What it says is refused here: it must not take that for an answer."""

    def refuse(_what: object) -> None:
        raise InvalidError("not this")

    worker = started(pool)
    with pytest.raises(InvalidError, match="not this"):
        worker.call(refuse, _talk, ["one"])
    assert not worker.is_there


def test_they_rest(pool: Pool, fork_server: starting.ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {*workers(os.getpid())}
    first, second = started(pool), started(pool)
    assert pool.take() is None, "there are no more than two"
    pool.give_back(first)
    pool.reap_idle()
    assert pool.take() is first, "not at once"
    pool.give_back(first)
    monkeypatch.setattr(pool_module, "_IDLE_SECONDS", 0.0)
    pool.reap_idle()
    assert [first.is_there, second.is_there] == [False, True], "one has work"
    pool.give_back(second)
    pool.reap_idle()
    assert fork_server._pid
    wait_until(lambda: others.issuperset(workers(os.getpid())), "their end")
    assert started(pool).call(print, _talk, "well"), "others come"


def test_where_none_can_be_hired(pool: Pool, fork_server: starting.ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for one does so no longer."""
    tries: list[str] = []

    def fail(modules: str, fds: list[int]) -> None:
        tries.append(modules)
        raise OSError("no more processes")

    monkeypatch.setattr(fork_server, "_send", fail)
    for _ in range(3):
        assert pool.take(20) is None
    with pytest.raises(ExhaustedError):
        pool.do(None, _talk, "well")
    assert len(tries) == 6


def _death_signals(_say: Say, path: Path) -> list[int]:
    """What this process gets when its parent ends, while it acts as somebody else and after that."""
    found = []
    signal_number = ctypes.c_int(0)
    with acting_as_owner(path):
        ctypes.CDLL(None).prctl(2, ctypes.byref(signal_number))  # PR_GET_PDEATHSIG
        found.append(signal_number.value)
    ctypes.CDLL(None).prctl(2, ctypes.byref(signal_number))
    return [*found, signal_number.value]


def test_it_ends_with_its_parent_whoever_it_acts_as(pool: Pool, tmp_path: Path) -> None:
    """The kernel forgets that when a process changes its identity."""
    os.chown(tmp_path, 12345, 12345)
    assert started(pool).call(print, _death_signals, tmp_path) == [signal.SIGKILL] * 2


@pytest.mark.parametrize("is_crowded", [True, False])
def test_success_that_was_heard_is_success(
    recorders: Recorders, store: Path, caplog: pytest.LogCaptureFixture, is_crowded: bool
) -> None:
    """Whatever goes wrong after that."""
    path = make_kata(store, "AbCdEf")
    recorders = in_a_crowd(recorders) if is_crowded else recorders
    committed = _Told().do(recorders, Job(path, "AbCdEf", _record_and_fail, ()))
    assert committed is not None
    assert committed.index == 1
    assert "after it was recorded" in caplog.text
    assert assert_sound(path) == 1


def _record_and_fail(path: Path, kata_id: str, **told: Any) -> Any:
    record(path, kata_id, act(1), **told)
    raise ZeroDivisionError("a bug")


# -- recording


@pytest.fixture
def recorders(fork_server: starting.ForkServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorders]:
    """With a process that is ready. On a machine with too much to do a crowd is one that takes longer."""
    monkeypatch.setattr(recorders_module, "_SECOND", patience(1))
    made = Recorders()
    worker = started(made.pool)
    made.pool.give_back(worker)
    yield made
    end_all(made.pool)


def act(index: int) -> Act:
    text = json.dumps(message({"a.txt": f"{index}\n"}, index=index))
    return parse_act(Kind.RAN_TESTS, text.encode())


class _Told:
    """What is called in the course of recording."""

    def __init__(self) -> None:
        self.announced: list[Oid] = []
        self.landed: list[Committed] = []
        self.made: list[Made] = []

    def do(self, recorders: Recorders, job: Job) -> Committed | None:
        return recorders.do(job, self.announced.append, self._land)

    def _land(self, committed: Committed, made: Made) -> None:
        self.landed.append(committed)
        self.made.append(made)


def in_a_crowd(recorders: Recorders) -> Recorders:
    while not recorders._is_crowded():
        pass
    return recorders


def _record_and_say(path: Path, kata_id: str, where: Path, index: int, **told: Any) -> Any:
    with where.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return record(path, kata_id, act(index), **told)


def test_alone_and_in_a_crowd(recorders: Recorders, store: Path, tmp_path: Path) -> None:
    path = make_kata(store, "AbCdEf")
    told = _Told()
    for index in range(1, 9):
        committed = told.do(recorders, Job(path, "AbCdEf", _record_and_say, (tmp_path / "pids", index)))
        assert committed == Committed(index, told.announced[-1])
        assert told.landed[-1] == committed
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert pids[:2] == [os.getpid()] * 2
    assert os.getpid() not in pids[2:]
    assert len(told.announced) == len(told.landed) == 8
    assert assert_sound(path) == 8


def test_late_in_another_process(recorders: Recorders, store: Path) -> None:
    path = make_kata(store, "AbCdEf")
    told = _Told()
    told.do(in_a_crowd(recorders), Job(path, "AbCdEf", record, (act(1),)))
    with pytest.raises(LateError):
        told.do(in_a_crowd(recorders), Job(path, "AbCdEf", record, (act(1),)))
    assert len(told.landed) == 1
    assert assert_sound(path) == 1


def _record_and_die(path: Path, kata_id: str, mark: Path, when: str, *, announce: Announce, landed: Landed) -> Any:
    """The first time: killed at one of three moments."""
    is_first = not mark.exists()
    mark.touch()

    def die() -> None:
        if is_first:
            os.kill(os.getpid(), signal.SIGKILL)

    if when == "before":
        die()

    def announce_and_die(commit: Oid) -> None:
        announce(commit)
        if when == "announced":
            die()

    def land_and_die(committed: Committed, made: Made) -> None:
        if when == "landed":
            die()
        landed(committed, made)

    return record(path, kata_id, act(1), announce=announce_and_die, landed=land_and_die)


def test_killed_while_it_waits_to_be_heard(recorders: Recorders, store: Path) -> None:
    """The answer that it waits for reaches nobody."""
    path = make_kata(store, "AbCdEf")
    killed: list[int] = []

    def kill(_commit: Oid) -> None:
        for pid in workers(os.getpid()) if not killed else ():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
        wait_until(lambda: not workers(os.getpid()), "the end of those who record")

    committed = in_a_crowd(recorders).do(Job(path, "AbCdEf", record, (act(1),)), kill, lambda *_: None)
    assert killed
    assert committed is not None
    assert assert_sound(path) == committed.index == 1


@pytest.mark.parametrize("when", ["before", "announced", "landed"])
def test_killed(recorders: Recorders, store: Path, tmp_path: Path, when: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is recorded once, and with its tag."""
    path = make_kata(store, "AbCdEf")
    job = Job(path, "AbCdEf", _record_and_die, (tmp_path / "mark", when))
    committed = _Told().do(in_a_crowd(recorders), job)
    assert committed is not None
    assert committed.index == 1
    assert "who recorded has ended" in caplog.text
    # where it was killed before there was one the next writer makes the tag
    record(path, "AbCdEf", act(2))
    assert git(path, "rev-parse", "refs/tags/1").decode().strip() == committed.commit.hex()
    assert assert_sound(path) == 2


# -- behind a mount


def write(path: Path, index: int) -> None:
    (path / "ran_tests").write_text(json.dumps(message({"a.txt": f"{index}\n"}, index=index)))
    assert (path / f"events/{index}/files/a.txt").read_text() == f"{index}\n"


def all_at_once(katas: list[Path], begin: int, end: int, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Write so many events to each of the katas, a thread for each."""

    def write_all(path: Path) -> None:
        for index in range(begin, end):
            write(path, index)

    with ThreadPoolExecutor(len(katas)) as pool:
        writing = [pool.submit(write_all, path) for path in katas]
        while wait(writing, 0.005).not_done:
            meanwhile()
        for each in writing:
            each.result()


def test_a_class_and_a_killer(store: Path, mount: MakeMount, mode: str) -> None:
    ids = [f"AbCd{letter}f" for letter in "ABCDEF"]
    stored = [make_kata(store, kata_id) for kata_id in ids]
    mounted = mount(store, mode)
    mounted.expected_log = "who recorded has ended|was left behind"
    katas = [mounted.kata(kata_id) for kata_id in ids]
    all_at_once(katas, 1, 6)
    wait_until(lambda: workers(mounted.daemon), "others who record")
    assert len(workers(mounted.daemon)) <= MOST
    killed: set[int] = set()

    def kill() -> None:
        # threads of the daemon come and go
        with suppress(FileNotFoundError, ProcessLookupError):
            for pid in workers(mounted.daemon):
                if pid not in killed and len(killed) < 20:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)

    all_at_once(katas, 6, 30, kill)
    assert killed
    for path in stored:
        assert assert_sound(path) == 29
        assert len(stored_rows(path)) == 30
