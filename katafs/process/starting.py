"""The side of the process that has work done: the fork server is started, sent work, and ended."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing.connection import Connection

from katafs.errors import ExhaustedError
from katafs.process import wire

#: without work for so many seconds the fork server is ended; it has some 40 MiB
IDLE_SECONDS = 300.0
# until it is there; and until a worker takes what it is sent, or sends the rest of what it has begun: else EAGAIN
_START_SECONDS = 30.0
_TIMEOUT = struct.pack("@ll", 30, 0)  # struct timeval


class Gone(Exception):  # noqa: N818 - what has become of the fork server
    """The fork server has ended, and the worker with it."""


class ForkServer:
    """The fork server of this process. Any thread may call its methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        # those that were told to end, until they have
        self._ended: list[subprocess.Popen[bytes]] = []
        self._working = 0
        self._last_used = time.monotonic()

    @contextmanager
    def start(self, modules: str, output: int | None) -> Iterator[tuple[Connection, socket.socket]]:
        """A worker: what it is sent work by, and what tells of its end. It is killed afterwards, if it is still there.

        ``output`` is the descriptor of the file for its result. Raises `ExhaustedError` when none can be started.
        """
        with _starting():
            end, its_end = socket.socketpair()
            ending, its_ending = socket.socketpair()
        for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            end.setsockopt(socket.SOL_SOCKET, which, _TIMEOUT)
        with Connection(end.detach()) as connection, ending:
            with its_end, its_ending:
                self._send(modules, [its_end.fileno(), its_ending.fileno(), *([] if output is None else [output])])
            try:
                yield connection, ending
            finally:
                with self._lock:
                    self._working -= 1
                    self._last_used = time.monotonic()

    def reap_idle(self) -> None:
        """End the fork server when it has had no work for some time; reap those that have ended. Waits for nothing."""
        # whoever has the lock may be starting a fork server, which takes its time
        if not self._lock.acquire(blocking=False):
            return
        try:
            is_idle = not self._working and time.monotonic() - self._last_used > IDLE_SECONDS
            if self._control is not None and is_idle:
                self._let_go()
            self._ended = [process for process in self._ended if process.poll() is None]
        finally:
            self._lock.release()

    def _send(self, modules: str, fds: list[int]) -> None:
        with self._lock:
            if self._control is not None:
                try:
                    socket.send_fds(self._control, [modules.encode()], fds)
                except OSError:
                    # it was killed meanwhile, or has found that its code is old
                    self._let_go()
            if self._control is None:
                self._control = self._start()
                with _starting():
                    socket.send_fds(self._control, [modules.encode()], fds)
            self._working += 1

    def _start(self) -> socket.socket:
        control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ExitStack() as failed:
            failed.callback(self._let_go)
            failed.callback(control.close)
            with _starting():
                with its_control:
                    self._process = python("katafs.process.fork_server", stdin=its_control.fileno())
                control.settimeout(_START_SECONDS)
                code = control.recv(wire.MESSAGE)
            if code != wire.CODE:
                other = "other code than ours is installed now: katafs reload is to be called"
                raise ExhaustedError(other if code else "no process can be started: it ends at once", errno.EAGAIN)
            failed.pop_all()
        return control

    def _let_go(self) -> None:
        """The fork server ends when it reads the end of its socket, and its workers with it."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._ended.append(self._process)
        self._control = self._process = None


def python(
    module: str, *arguments: str, stdin: int = subprocess.DEVNULL, directory: str | None = None
) -> subprocess.Popen[bytes]:
    """Another Python that runs a module. What the terminal sends is for us alone. Raises OSError."""
    # -P: the directory that we happen to be in holds no modules
    command = [sys.executable, "-P", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    null = subprocess.DEVNULL
    return subprocess.Popen(
        command, stdin=stdin, stdout=null, stderr=null, cwd=directory, env=environment, start_new_session=True
    )


@contextmanager
def _starting() -> Iterator[None]:
    """Raises `ExhaustedError` for an OSError."""
    try:
        yield
    except OSError as error:
        raise ExhaustedError(f"no process can be started: {error.strerror}", error.errno or errno.EAGAIN) from error


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()
