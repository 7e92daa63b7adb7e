"""The side of the process that has work done: the fork server is started, sent work, and ended."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from katafs.errors import ExhaustedError
from katafs.process import wire

#: without work for so many seconds the fork server is ended; it has some 40 MiB
IDLE_SECONDS = 300.0
_START_SECONDS = 30.0


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
    def start(self, modules: str, output: int | None) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A worker: the socket to it, and the one that tells of its end. It is killed afterwards, if it is still there.

        ``output`` is the descriptor of the file for its result. Raises `ExhaustedError` when none can be started.
        """
        try:
            end, its_end = socket.socketpair()
            ending, its_ending = socket.socketpair()
        except OSError as error:
            raise _cannot(error) from error
        with end, ending:
            with its_end, its_ending:
                self._send(modules, [its_end.fileno(), its_ending.fileno(), *([] if output is None else [output])])
            try:
                yield end, ending
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
                try:
                    socket.send_fds(self._control, [modules.encode()], fds)
                except OSError as error:
                    self._let_go()
                    raise _cannot(error) from error
            self._working += 1

    def _start(self) -> socket.socket:
        control, its_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # -P: the directory that the daemon happens to be in holds no modules
        command = [sys.executable, "-P", "-m", "katafs.process.fork_server"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            with its_control:
                self._process = subprocess.Popen(
                    command,
                    stdin=its_control.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    # what the terminal sends is for the daemon, with which this one ends
                    start_new_session=True,
                )
            control.settimeout(_START_SECONDS)
            code = control.recv(wire.MESSAGE)
        except OSError as error:
            control.close()
            self._let_go()
            raise _cannot(error) from error
        if code != wire.CODE:
            control.close()
            self._let_go()
        if not code:
            raise ExhaustedError("no process can be started: it ends at once", errno.EAGAIN)
        if code != wire.CODE:
            raise ExhaustedError("other code than ours is installed now: katafs reload is to be called", errno.EAGAIN)
        return control

    def _let_go(self) -> None:
        """The fork server ends when it reads the end of its socket, and its workers with it."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._ended.append(self._process)
        self._control = self._process = None


def _cannot(error: OSError) -> ExhaustedError:
    return ExhaustedError(f"no process can be started: {error.strerror}", error.errno or errno.EAGAIN)


@cache
def fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()
