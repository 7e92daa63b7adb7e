"""The fork server and its workers: what they hold, what they survive, and how they end."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BufferedRandom
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from katafs import process
from katafs.errors import ExhaustedError, TooLargeError
from katafs.html.code import _USUAL, _lexer_of
from katafs.process import pool as pool_module
from katafs.process import starting, wire
from tests.katas import make_kata
from tests.mount.test_bounds import big_event, letters, lines, workers
from tests.mount.test_bounds import children as all_children
from tests.mounts import MakeMount, children, command_line, open_files, patience, wait_until


def _pid(_file: None) -> tuple[int, int]:
    return os.getpid(), os.getppid()


def _descriptors(_file: object) -> list[str]:
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in range(64) if os.path.lexists(f"/proc/self/fd/{fd}")]


def _mark_and_wait(file: BufferedRandom) -> None:
    file.write(b"begun")
    file.flush()
    signal.pause()


def _write(file: BufferedRandom) -> None:
    file.write(b"x")


def own_fork_server(monkeypatch: pytest.MonkeyPatch, where: ModuleType) -> Iterator[starting.ForkServer]:
    """One of our own, for the workers that a module starts."""
    own = starting.ForkServer()
    monkeypatch.setattr(where, "shared_fork_server", lambda: own)
    yield own
    own.end()


@pytest.fixture
def fork_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[starting.ForkServer]:
    yield from own_fork_server(monkeypatch, pool_module)


def run(work: process.Work) -> Any:
    return process.run(process.Limits(), None, work)


def pid_of(fork_server: starting.ForkServer) -> int:
    assert fork_server._pid
    return fork_server._pid


def wait_for_end(pid: int) -> None:
    wait_until(lambda: not _lives(pid), f"the end of process {pid}")


def test_a_worker_for_each_piece_of_work(fork_server: starting.ForkServer) -> None:
    found = [run(_pid) for _ in range(4)]
    assert len({worker for worker, _ in found}) == 4
    assert {parent for _, parent in found} == {pid_of(fork_server)}


def test_many_at_once(fork_server: starting.ForkServer) -> None:
    """Each gets the answer to its own question."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: process.run(process.Limits(), None, slice, number), range(200)))
    assert answers == [slice(None, number) for number in range(200)]
    wait_until(lambda: not children(pid_of(fork_server)), "the end of the workers")


def test_nothing_is_inherited(fork_server: starting.ForkServer, tmp_path: Path) -> None:
    """Descriptors of this process, not even those that are inheritable."""
    with open(tmp_path / "secret", "w+b") as secret, open(tmp_path / "out", "w+b") as out:
        os.set_inheritable(secret.fileno(), True)
        run(_pid)
        assert not any("secret" in link for link in open_files(pid_of(fork_server)))
        found = process.run(process.Limits(), out, _descriptors)
    assert isinstance(found, list)
    kinds = sorted(link.partition(":")[0] for link in found)
    assert kinds == ["/dev/null"] * 3 + [str(tmp_path / "out"), "socket"]


def test_a_daemons_descriptors_stay_its_own(store: Path, mount: MakeMount) -> None:
    """Neither the mount nor what keeps it alive reaches a process that reads what a kata holds."""
    path = make_kata(store, "AbCdEf")
    big_event(path, text=letters(1_000_000, 1))
    big_event(path, text=letters(1_000_000, 2))
    mounted = mount(store)
    reader = subprocess.Popen(["cat", str(mounted.kata("AbCdEf") / "diff/1..2")], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: workers(mounted.daemon), "a worker")
        found = [*all_children(mounted.daemon), *workers(mounted.daemon)]
        assert len(found) == 2
        # but for the objects that are read, and temporary files
        allowed = (
            "/dev/null",
            "socket:",
            "anon_inode:[eventpoll]",
            "anon_inode:[pidfd]",
            "pidfd:",
            str(path),
            os.environ["TMPDIR"],
        )

        def others() -> list[str]:
            return [link for pid in found for link in open_files(pid) if not link.startswith(allowed)]

        wait_until(lambda: not others(), "the end of what was open while it began")
        assert all(map(_lives, found))
        assert any("/dev/fuse" in link for link in open_files(mounted.daemon))
    finally:
        mounted.kill()
        reader.communicate()
    for pid in found:
        wait_for_end(pid)


def _lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def test_a_nursery_that_is_killed_is_replaced(fork_server: starting.ForkServer) -> None:
    run(_pid)
    first = pid_of(fork_server)
    os.kill(first, signal.SIGKILL)
    assert run(_pid)[1] != first


def test_work_is_begun_again_when_its_nursery_dies(fork_server: starting.ForkServer, tmp_path: Path) -> None:
    """And what its worker had written is gone; the worker too."""
    run(_pid)
    with open(tmp_path / "out", "w+b") as out, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(process.run, process.Limits(seconds=10), out, _once)
        wait_until(lambda: (tmp_path / "out").read_bytes() == b"begun", "the work")
        (worker,) = children(pid_of(fork_server))
        (tmp_path / "out.again").touch()
        os.kill(pid_of(fork_server), signal.SIGKILL)
        waiting.result(patience(20))
        wait_for_end(worker)
    assert (tmp_path / "out").read_bytes() == b"x"


def _once(file: BufferedRandom) -> None:
    name = os.readlink(f"/proc/self/fd/{file.fileno()}")
    (_write if os.path.exists(name + ".again") else _mark_and_wait)(file)


def test_who_gives_up_waiting_leaves_nobody(fork_server: starting.ForkServer, tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as out, pytest.raises(TooLargeError):
        process.run(process.Limits(seconds=0.3), out, _mark_and_wait)
    wait_until(lambda: not children(pid_of(fork_server)), "the end of the worker")


def test_an_answer_without_end(fork_server: starting.ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is stopped in the middle of it keeps nobody for ever."""
    monkeypatch.setattr(starting, "_TIMEOUT", struct.pack("@ll", 0, 200_000))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(run, _half_an_answer)
        try:
            with pytest.raises(TooLargeError):
                answer.result(patience(10))
        finally:
            fork_server._let_go()


def _half_an_answer(_file: object) -> None:
    (task,) = [
        fd for fd in range(3, 64) if os.path.exists(f"/proc/self/fd/{fd}") and stat.S_ISSOCK(os.fstat(fd).st_mode)
    ]
    os.write(task, bytes(2))
    signal.pause()


def _has_jinja2(_file: None) -> bool:
    return "jinja2" in sys.modules


def test_a_fork_has_what_pages_need() -> None:
    """Before its first work, though what it was forked from had the module, and had not prepared it."""
    script = (
        "from katafs.html import process\n"
        "from katafs.process.starting import shared_fork_server\n"
        "shared_fork_server().fork(process.__name__)\n"
        "import sys\n"
        "from tests.mount.test_process import _has_jinja2, run\n"
        "assert 'jinja2' not in sys.modules\n"
        "print(run(_has_jinja2))\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert said.stdout == "True\n", said.stderr


def test_each_daemon_has_one_before_there_is_work(store: Path, mount: MakeMount) -> None:
    """Where there is a processor for it: its own child, which ends with it; as the daemon is its keeper's only one."""
    make_kata(store, "AbCdEf")
    mounted = mount(store)
    if len(os.sched_getaffinity(0)) == 1:
        pytest.skip("there is one processor")
    for _ in range(2):
        daemon = mounted.daemon
        wait_until(lambda: len(all_children(daemon)) == 1, "the end of what has touched the mount")  # noqa: B023
        (begun,) = all_children(daemon)
        assert (mounted.kata("AbCdEf") / "html/0..0.html").read_bytes()
        assert all_children(daemon) == [begun]
        if daemon == mounted.pid:
            return
        assert all_children(mounted.pid) == [daemon]
        mounted.expected_log = "another takes over"
        os.kill(daemon, signal.SIGKILL)
        wait_for_end(begun)
        wait_until(lambda: mounted.daemon not in (0, daemon), "another daemon")  # noqa: B023


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_it_ends_with_whoever_started_it(number: signal.Signals) -> None:
    """Also when the thread that did has ended long before."""
    script = (
        "import threading, signal\n"
        "from tests.mount.test_process import _pid, run\n"
        "def work(): print(*run(_pid), flush=True)\n"
        "for _ in range(2):\n"
        "    thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        found = [started.stdout.readline().split() for _ in range(2)]
        assert found[0][1] == found[1][1], "it outlives the thread that started it"
        fork_server = int(found[0][1])
        assert _lives(fork_server)
        started.send_signal(number)
        started.wait(patience(20))
    wait_for_end(fork_server)


def test_no_work_by_other_code(fork_server: starting.ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon that an upgrade has passed by does not have its work done by the new code, nor by half of each."""
    monkeypatch.setattr(wire, "CODE", b"another")
    with pytest.raises(ExhaustedError, match="katafs reload"):
        run(_pid)


def test_an_upgrade_under_a_living_daemon(fuse: None) -> None:
    """Large work waits for the reload, and is then done by the new code."""
    with command_line() as cli:
        package = cli.directory / "katafs"
        shutil.copytree(Path(process.__file__).parent.parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        cli.environment["PYTHONPATH"] = str(cli.directory)
        path = make_kata(cli.directory / "store", "AbCdEf")
        big_event(path, text=lines(60_000))
        cli.mount("store", "mnt")
        diff = cli.directory / "mnt/Ab/Cd/Ef/diff/0..1"
        module = package / "kata/views/diff.py"
        module.write_text(module.read_text().replace('b"diff --git ', 'b"diff --new '))
        with pytest.raises(BlockingIOError):
            diff.read_bytes()
        assert cli.done("reload", "mnt") == ""
        assert b"diff --new " in diff.read_bytes()


def _languages(_file: None) -> int:
    return _lexer_of.cache_info().currsize


def test_idle_memory(fork_server: starting.ForkServer) -> None:
    """What is stated of the fork server: with all modules that a daemon has work done by, some 40 MiB."""
    names = ("tree.made", "tree.dirs.contents", "kata.views.download", "kata.views.diff", "html.process")
    modules = ",".join(f"katafs.{name}" for name in names)
    with fork_server.start(modules, None):
        pass
    pid = pid_of(fork_server)
    wait_until(lambda: run(_languages) >= len(_USUAL), "the preparations")
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 80 << 20


@pytest.mark.thorough
def test_it_prepares_beside_a_worker_that_stays(fork_server: starting.ForkServer) -> None:
    """Where something is recorded at all times there always is one."""
    stays = pool_module.Worker("katafs.html.process", process.Limits(), stays=True)
    try:
        # asked all the time it would come to nothing else
        wait_until(lambda: threading.Event().wait(1) or run(_languages) >= len(_USUAL), "the preparations", 60)
    finally:
        stays.end()


def _wait_for_worker(done: Future[bytes], daemon: int) -> None:
    wait_until(lambda: done.done() or workers(daemon), "a worker")


@pytest.mark.thorough
def test_pages_while_fork_servers_are_killed(store: Path, mount: MakeMount) -> None:
    """Whoever reads notices nothing."""
    kata_id = "AbCdEf"
    path = make_kata(store, kata_id)
    for number in range(4):
        big_event(path, text=lines(100 + number))
    mounted = mount(store)
    kata = mounted.kata(kata_id)
    for was in range(5):
        with ThreadPoolExecutor(1) as pool:
            page = pool.submit((kata / f"html/{was}..4.html").read_bytes)
            _wait_for_worker(page, mounted.daemon)
            for fork_server in all_children(mounted.daemon):
                os.kill(fork_server, signal.SIGKILL)
            assert b"</html>" in page.result(patience(20))
