"""Child processes: one that is started, heard, ended, and when it counts as dead; and one in the background, whose
caller returns when it is ready."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
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

    def end(self) -> None:
        """Kill it, and wait for its end."""
        self.send(signal.SIGKILL)
        if not self.has_ended():
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self.has_ended()

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
        return "killed" if self.status is None else _cause(self.status)


def _cause(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


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


_READY = b"ready"


def start(run: Callable[[Callable[[], None]], None]) -> str | None:
    """Run ``run(ready)`` in a new session, detached from the terminal and from every file that is open.

    Returns None, in the parent, when the child calls ``ready``; or why it ended before that: the text of the exception
    it ended with. The child never returns. ``ready`` raises BrokenPipeError when the parent has gone. Must be called
    before any thread or event loop is started.
    """
    open_standard_streams()
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read()
        if told == _READY:
            return None
        if told:
            # it has nothing more to do than to end
            os.waitpid(child, 0)
            return told.decode("utf-8", "surrogateescape")
        # the pipe is closed and nothing was said: it has ended
        return f"the daemon ended before it was ready ({_cause(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))})"
    status = 1
    # our parent, which waits to be told one thing
    parent = io.FileIO(writer, "w")

    def tell(what: bytes) -> None:
        if not parent.closed:
            with parent:
                parent.write(what)

    # whoever we fork is not to keep it open: our parent waits for its end
    os.register_at_fork(after_in_child=parent.close)
    try:
        os.setsid()
        os.chdir("/")
        _detach(writer)
        run(partial(tell, _READY))
        status = 0
    except BaseException as error:  # noqa: BLE001 - the process ends here; its parent is told why
        tell((str(error) or type(error).__name__).encode("utf-8", "surrogateescape"))
    finally:
        os._exit(status)


def open_standard_streams() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed: no other file may get a number that output goes to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _detach(kept: int) -> None:
    """Let go of what the caller has open, its pipes and locks as well; standard streams become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != kept:
            # the listing's own is closed already
            with contextlib.suppress(OSError):
                os.close(fd)


def tell_supervisor(state: str) -> None:
    """Tell systemd, or whoever started us and listens, such as ``READY=1``: one datagram to the socket that
    ``NOTIFY_SOCKET`` names (sd_notify(3)). Nothing happens when nobody listens."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name[:1] not in ("/", "@"):
        return
    # @: a name in the abstract name space
    address = os.fsencode(name) if name[0] == "/" else b"\0" + os.fsencode(name[1:])
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(state.encode(), socket.MSG_DONTWAIT, address)
