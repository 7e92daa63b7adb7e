"""A katafs mount in a process of its own, and the means to be sure that it is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import katafs as katafs_package
from tests import template

DEADLINE = 20.0
#: what a mount is forked for and not started, as long as nobody sets another in `Mount.katafs` or `sys.executable`
_USUAL = [sys.executable, "-m", "katafs"]

#: the fixture ``mount``: (store, mode="fast", options=()) → a mount that ends with the test
MakeMount = Callable[..., "Mount"]


def patience(seconds: float) -> float:
    """How long to wait for what takes so many seconds at most on a machine of our own: longer where others want its
    processors, too. What a test run itself wants of them, up to twice what there are, makes no difference."""
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return seconds * max(1.0, max(os.getloadavg()[0], running) / (os.cpu_count() or 1) - 1)


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Poll until ``condition()`` is true; fails the test when that takes too long."""
    start = begun = time.monotonic()
    while not condition():
        now = time.monotonic()
        assert now < start + patience(seconds), f"{what}: not within {patience(seconds)} s"
        # to look through /proc takes as long as that, and what is waited for needs the processor
        time.sleep(min(max(0.005, 2 * (now - begun)), 0.1))
        begun = time.monotonic()


def katafs(*arguments: object, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run the command line."""
    command = [sys.executable, "-m", "katafs", *map(str, arguments)]
    if command[: len(_USUAL)] == _USUAL and template.is_usable():
        result = template.run(command[len(_USUAL) :], stdin, patience(60))
    else:
        result = subprocess.run(command, input=stdin, capture_output=True, timeout=patience(60), check=False)
    assert not check or result.returncode == 0, result.stderr.decode()
    return result


class Mount:
    """``katafs mount --foreground`` of a store. ``path`` is where the tree is."""

    def __init__(self, store: Path, path: Path, mode: str, options: tuple[str, ...]) -> None:
        self.store, self.path, self.mode, self.options = store, path, mode, options
        self.log = path.with_suffix(".log")
        self.katafs = [sys.executable, "-m", "katafs"]
        self.process: subprocess.Popen[bytes] | template.Forked | None = None
        self._is_kept = False
        #: set by a test that provokes errors on purpose: what may stand in the log
        self.expected_log = ""

    def __enter__(self) -> Self:
        """Start it; at the end nothing is to have been wrong with it."""
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        problems = self.stop()
        assert failed or not problems, problems

    def start(self) -> None:
        """Mount, and wait until the tree can be read in the mode that was asked for."""
        self.path.mkdir(exist_ok=True)
        arguments = ["mount", "--foreground", "--log-file", self.log, *self.options]
        if self.mode != "fast":
            arguments.append("--no-fast-open")
        command = [*self.katafs, *map(str, arguments), str(self.store), str(self.path)]
        if self.katafs == _USUAL and template.is_usable():
            self.process = template.start(command[len(_USUAL) :])
        else:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_until(lambda: self.is_ready() or self.process is None or self.process.poll() is not None, "the mount")
        assert self.process.poll() is None, f"{command}: {self._output()}"
        assert f"mode: {self.mode}" in self.log_text(), self.log_text()
        self._is_kept = is_keeper(self.pid)

    def is_ready(self) -> bool:
        """Whether the daemon has said so."""
        return " is mounted on " in self.log_text()

    def log_text(self) -> str:
        """All that the daemon has logged."""
        return self.log.read_text() if self.log.exists() else ""

    def kata(self, kata_id: str) -> Path:
        """A kata's directory in the mount."""
        return self.path / kata_id[:2] / kata_id[2:4] / kata_id[4:]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def daemon(self) -> int:
        """Who answers requests: the process itself, or the child of it that it keeps alive; 0 while there is none."""
        if not self._is_kept:
            return self.pid
        return next((child for child in children(self.pid) if not _is_zombie(child)), 0)

    def kill(self) -> None:
        """End the daemon as a crash would, and whoever would start another; the mount stays, dead."""
        assert self.process is not None
        daemon = self.daemon
        self.process.kill()
        # at once: it would log that it has been left alone
        kill_orphan(daemon)
        self.process.wait(patience(DEADLINE))

    def stop(self) -> str:
        """Unmount and end the daemon by all means; what was wrong with it, if anything."""
        if self.process is None:
            return ""
        problems = []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience(DEADLINE))
        except subprocess.TimeoutExpired:
            problems.append(f"{self.path}: the daemon did not end at SIGTERM")
            self._abort()
            self.process.kill()
            self.process.wait(patience(DEADLINE))
        if self.process.stdout is not None:
            self.process.stdout.close()
        while _is_mounted(self.path):
            if subprocess.run(["umount", "-l", self.path], check=False, capture_output=True).returncode:
                problems.append(f"{self.path} could not be unmounted")
                break
        problems += self._unexpected_log()
        return "\n".join(problems)

    def _unexpected_log(self) -> list[str]:
        # each with its traceback
        lines = re.split(r"\n(?=\d{4}-\d\d-\d\d )", self.log_text())
        wrong = [line for line in lines if re.search(r" (WARNING|ERROR|CRITICAL) ", line)]
        if self.expected_log:
            wrong = [line for line in wrong if not re.search(self.expected_log, line)]
        return [f"the daemon logged: {line}" for line in wrong]

    def _abort(self) -> None:
        """Cut the connection, so that a daemon that waits for itself can be ended."""
        device = os.minor(self.path.parent.stat().st_dev)
        for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
            fields = line.split(" ")
            if fields[4] == str(self.path):
                device = int(fields[2].split(":")[1])
                Path(f"/sys/fs/fuse/connections/{device}/abort").write_text("1")

    def _output(self) -> str:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()


def children(pid: int) -> list[int]:
    """The processes that a process has forked and not waited for."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_keeper(pid: int) -> bool:
    """Whether a katafs does not serve, but keeps alive who does: it holds the journal and has one thread."""
    links = open_files(pid)
    return any("katafs-journal" in link for link in links) and not any("eventpoll" in link for link in links)


def daemon_of(pid: int) -> int:
    """Who serves the mount of a katafs process; 0 while nobody does."""
    if not is_keeper(pid):
        return pid
    return next((child for child in children(pid) if not _is_zombie(child)), 0)


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process are, but for those that it closes this moment."""
    found = []
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(entry))
    return found


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def kill_orphan(pid: int) -> None:
    """End a process as a crash would, that is no child of ours, and wait for its end."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: _is_zombie(pid), "the end of the daemon")


def _is_mounted(path: Path) -> bool:
    # others may have mounts with any bytes in their names
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    return any(line.split(" ")[4] == str(path) for line in lines)


#: a user who owns nothing
OTHER = 65534
AS_OTHER = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups"]
# Python and katafs may be in a directory of root's: the other user may read all files, but write none.
READING_AS_OTHER = [*AS_OTHER, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
#: root without the power to pass by owners and modes
WEAK_ROOT = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


class CommandLine:
    """The ``katafs`` command as a person uses it, in ``directory``; its mounts stay in the background.

    All that it starts has the directory in its environment, by which a daemon is found, and ended if it is left over.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(Path(katafs_package.__file__).parent.parent),
            "KATAFS_TEST": str(directory),
        }
        #: in front of every command: another user, another namespace
        self.before: list[str] = []

    def within_namespace(self, script: str, *, user: bool = False) -> None:
        """From now on run commands, as another user if so wished, each in a mount namespace of its own after a script
        in which ``$1`` is the directory."""
        start = f'set -e; {script}; shift; exec "$@"'
        self.before = ["unshare", "--mount", "sh", "-c", start, "sh", str(self.directory)]
        self.before += READING_AS_OTHER if user else []

    def as_other(self, *command: object) -> subprocess.CompletedProcess[str]:
        """Run a program, not katafs, as a user who owns nothing."""
        return self._run([*AS_OTHER, *map(str, command)])

    def command(self, *arguments: object) -> list[str]:
        """The command line, for the operating system."""
        return [*self.before, sys.executable, "-m", "katafs", *map(str, arguments)]

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script that uses ``katafs``, to the end of what it and its children print."""
        function = f'katafs() {{ {sys.executable} -m katafs "$@"; }}; '
        return self._run([*self.before, "sh", "-c", function + script])

    def python(self, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a Python script that uses the package."""
        return self._run([*self.before, sys.executable, "-c", script, *map(str, arguments)])

    def run(self, *arguments: object, stdin: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command, to the end of what it and its children print."""
        return self._run(self.command(*arguments), stdin, **environment)

    def on_terminal(self, *arguments: object) -> tuple[str, str]:
        """Run a command that succeeds: what it printed, and what it told on a terminal meanwhile."""
        leader, follower = pty.openpty()
        with open(leader, "rb", buffering=0) as terminal:
            run = subprocess.Popen(
                self.command(*arguments),
                cwd=self.directory,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=follower,
            )
            os.close(follower)
            output, _ = run.communicate(timeout=patience(DEADLINE * 3))
            seen = b""
            # EIO is how Linux says that the other side is closed
            with contextlib.suppress(OSError):
                while data := terminal.read(4096):
                    seen += data
        assert run.returncode == 0, seen
        return output.decode(), seen.decode()

    def _run(self, command: list[str], stdin: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=patience(60),
            check=False,
            cwd=self.directory,
            env=self.environment,
        )
        return subprocess.CompletedProcess(
            command, result.returncode, os.fsdecode(result.stdout), os.fsdecode(result.stderr)
        )

    def done(self, *arguments: object, stdin: str | bytes = "") -> str:
        """Run the command; it must succeed, and say nothing on standard error but how far it is. What it printed,
        without the mount namespaces that a mount goes on in."""
        result = self.run(*arguments, stdin=stdin)
        said = re.sub(r"^[0-9]+ of [0-9]+ katas, .* left\n", "", result.stderr, flags=re.MULTILINE)
        assert (result.returncode, said) == (0, ""), result
        # other tests make mount namespaces meanwhile, and then have a copy of each mount
        return re.sub(r"^.* is unmounted here, but goes on at .*\n", "", result.stdout, flags=re.MULTILINE)

    def refused(self, *arguments: object, stdin: str | bytes = "", status: int = 1, alive: int = 0) -> str:
        """Run the command; it must fail in one sentence, which is returned. `alive` daemons are there afterwards."""
        return self.one_sentence(self.run(*arguments, stdin=stdin), status, alive)

    def one_sentence(self, result: subprocess.CompletedProcess[str], status: int = 1, alive: int = 0) -> str:
        """The one sentence that a command failed with."""
        assert (result.returncode, result.stdout) == (status, ""), result
        assert re.fullmatch(r"katafs: [^\n]+\n", result.stderr), result.stderr
        wait_until(lambda: len(self.daemons()) == alive, "the end of the daemon")
        return result.stderr.removeprefix("katafs: ").rstrip("\n")

    def mount(self, *arguments: object) -> int:
        """``katafs mount ARGUMENT…`` in the background: the number of the daemon."""
        before = set(self.daemons())
        assert self.done("mount", *arguments) == ""
        (pid,) = set(self.daemons()) - before
        return pid

    @contextlib.contextmanager
    def foreground(self, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
        """``katafs mount --foreground ARGUMENT…``, once the tree is ready; killed at the end if it lives."""
        command = self.command("mount", "--foreground", *arguments)
        with subprocess.Popen(
            command, cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                assert process.stderr is not None
                assert any(b" is mounted on " in line for line in iter(process.stderr.readline, b""))
                yield process
            finally:
                process.kill()

    def kill(self, pid: int) -> None:
        """End a daemon as a crash would, and whoever would start another."""
        daemon = daemon_of(pid)
        os.kill(pid, signal.SIGKILL)
        kill_orphan(daemon)
        # who has no memory any more is not found by what is in it, and is still there
        kill_orphan(pid)

    def daemons(self) -> list[int]:
        """The processes that are left of what was started here; of those that keep another alive, only they."""
        marker = f"KATAFS_TEST={self.directory}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and marker in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended
        return [pid for pid in found if not any(pid in children(other) for other in found)]

    def mounts(self) -> list[str]:
        """The mount points below the directory, the newest first."""
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
        paths = [re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), line.split(" ")[4]) for line in lines]
        return [path for path in reversed(paths) if path.startswith(f"{self.directory}/")]

    def end(self) -> None:
        """End what is left: the mounts, which ends their daemons, or else the daemons; then the test has failed."""
        for path in self.mounts():
            subprocess.run(["umount", "-l", "--", path], check=False, capture_output=True)
        try:
            wait_until(lambda: not self.daemons(), "the end of all daemons after the test", 10)
        finally:
            for pid in self.daemons():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert not self.mounts()


@contextlib.contextmanager
def command_line() -> Iterator[CommandLine]:
    """The command line in a directory that every user can reach, with the empty directories ``store`` and ``mnt``."""
    with tempfile.TemporaryDirectory(prefix="katafs-test-") as name:
        started = CommandLine(Path(name).resolve())
        started.directory.chmod(0o755)
        for part in ("mnt", "store"):
            (started.directory / part).mkdir()
        try:
            yield started
        finally:
            started.end()
