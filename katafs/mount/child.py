"""A child process: started, heard, ended; and when it counts as dead."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from site import getsitepackages
from typing import Never

import katafs
from katafs.mount.runtime import stat_fields

#: bytes of what a child tells
MESSAGE = 4096
# write(2) and writev(2), in ``/proc/PID/task/TID/syscall``
_WRITES = {"x86_64": {"1", "20"}, "aarch64": {"64", "66"}}.get(platform.machine(), set())


class Child:
    """A child process. It can tell its parent one short thing."""

    def __init__(self, pid: int, reader: int | None = None) -> None:
        self.pid = pid
        #: the exit status, negative for a signal; known when it has ended
        self.status: int | None = None
        self._reader = reader
        self._heard = b""

    @classmethod
    def fork(cls, run: Callable[[int], int]) -> Child:
        """A copy of this process, which has one thread only: it calls ``run(writer)``, with the descriptor by which it
        is heard, and ends with its result."""
        reader, writer = os.pipe()
        if pid := os.fork():
            os.close(writer)
            os.set_blocking(reader, False)
            return cls(pid, reader)
        status = 1
        try:
            os.close(reader)
            status = run(writer)
        finally:
            # nothing of the parent's is to be cleaned up here
            os._exit(status)

    @classmethod
    def katafs(cls, *arguments: str) -> Child:
        """Another interpreter that runs the command line; what it writes to standard error is heard."""

        def run(writer: int) -> Never:
            os.dup2(writer, 2)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            execute_katafs(*arguments)

        return cls.fork(run)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def heard(self) -> bytes:
        if self._reader is not None:
            with contextlib.suppress(BlockingIOError):
                self._heard += os.read(self._reader, MESSAGE)
        return self._heard

    def has_ended(self) -> bool:
        """Whether it has ended, with all its threads."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.heard()
                if self._reader is not None:
                    os.close(self._reader)
                    self._reader = None
        return self.status is not None

    def is_dead(self, fd: int) -> bool:
        """Whether it was killed but cannot end, because some of its threads are telling the kernel something through
        ``fd``, and the kernel waits for an answer that only another daemon can give. They will do nothing more than
        that; no thread is doing anything else.
        """
        leader = stat_fields(self.pid)
        if not leader or leader[0] != "Z" or self.has_ended():
            return False
        try:
            threads = [entry for entry in Path(f"/proc/{self.pid}/task").iterdir() if entry.name != str(self.pid)]
            doing = [(entry / "syscall").read_text().split() for entry in threads]
        except OSError:
            return False  # they are ending
        return bool(doing) and all(what[0] in _WRITES and int(what[1], 16) == fd for what in doing)

    @property
    def cause(self) -> str:
        if self.status is None:
            return "killed"
        return signal.Signals(-self.status).name if self.status < 0 else f"exit status {self.status}"


def touch(mountpoint: Path) -> None:
    """Open and close a file of a mount, so that in the fast mode the kernel hears that it need not send FLUSH: then
    the daemon can close files of its own mount. Raises OSError."""
    os.close(os.open(mountpoint / ".katafs/version", os.O_RDONLY | os.O_CLOEXEC))


#: for when there is none
NOBODY = Child(0)
NOBODY.status = 0


def execute_katafs(*arguments: str) -> Never:
    """Become the command line, with the code that is installed now. Raises OSError."""
    root = os.fspath(Path(katafs.__file__).parent.parent)
    environment = dict(os.environ)
    if root not in getsitepackages():
        # a checkout, which was found by way of the working directory
        paths = [root, *environment.get("PYTHONPATH", root).split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    os.execve(sys.executable, [sys.executable, "-P", "-m", "katafs", *arguments], environment)  # noqa: S606
