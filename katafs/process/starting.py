"""The side of the process that has work done: the fork server is started, sent work, and ended."""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from typing import Never

from katafs.errors import ExhaustedError
from katafs.process import wire

# until it is there; and until a worker takes what it is sent, or sends the rest of what it has begun: else EAGAIN
_START_SECONDS = 30.0
_TIMEOUT = struct.pack("@ll", 30, 0)  # struct timeval


class ForkServer:
    """The fork server of this process. Any thread may call its methods."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._control: socket.socket | None = None
        # whether it has said that it is there
        self._is_there = False

    def fork(self, modules: str) -> None:
        """Start it ahead of need, as a fork of this process, which has one thread: nothing has to be loaded twice. It
        loads the ``modules`` that work needs while this process goes on."""
        with suppress(OSError):
            control, its_control = self._sockets()
            with its_control:
                if not (pid := os.fork()):
                    _become_fork_server(its_control.fileno(), modules)
            self._control, self._pid = control, pid

    @contextmanager
    def start(self, modules: str, output: int | None) -> Iterator[tuple[Connection, socket.socket]]:
        """A worker: what it is sent work by, and what tells of its end. It is killed afterwards, if it is still there.

        ``output`` is the descriptor of the file for its result. Raises `ExhaustedError` when none can be started.
        """
        with _starting(), ExitStack() as failed:
            end, its_end = map(failed.enter_context, socket.socketpair())
            ending, its_ending = map(failed.enter_context, socket.socketpair())
            failed.pop_all()
        for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            end.setsockopt(socket.SOL_SOCKET, which, _TIMEOUT)
        with Connection(end.detach()) as connection, ending:
            with its_end, its_ending:
                self._send(modules, [its_end.fileno(), its_ending.fileno(), *([] if output is None else [output])])
            yield connection, ending

    def end(self) -> None:
        """Have it gone when this returns, with its workers: nobody will have work for it."""
        with self._lock:
            self._let_go()

    def _send(self, modules: str, fds: list[int]) -> None:
        with self._lock:
            try:
                self._send_to_it(modules, fds)
            except OSError:
                # it is not there, was killed meanwhile, or has found that its code is old
                self._let_go()
                with _starting():
                    self._start(modules)
                    self._send_to_it(modules, fds)

    def _send_to_it(self, modules: str, fds: list[int]) -> None:
        if self._control is None:
            raise BrokenPipeError
        if not self._is_there:
            code = self._control.recv(wire.MESSAGE)
            if not code:
                raise ChildProcessError(errno.ECHILD, "it ends at once")
            if code != wire.CODE:
                self._let_go()
                raise ExhaustedError(
                    "other code than ours is installed now: katafs reload is to be called", errno.EAGAIN
                )
            self._is_there = True
        socket.send_fds(self._control, [modules.encode()], fds)

    def _start(self, modules: str) -> None:
        control, its_control = self._sockets()
        with its_control:
            self._pid = python("katafs.process.fork_server", modules, stdin=its_control.fileno())
        self._control = control

    def _sockets(self) -> tuple[socket.socket, socket.socket]:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(_START_SECONDS)
        return ours, its

    def _let_go(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._control, self._pid, self._is_there = None, 0, False


def _become_fork_server(control: int, modules: str) -> Never:
    """In a fork: nothing of its parent's is left but the socket to it."""
    try:
        os.setsid()
        os.dup2(control, 0)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        # not before: where it is the program it would be there twice
        from katafs.process.fork_server import serve  # noqa: PLC0415

        serve(modules)
    finally:
        os._exit(0)


def python(module: str, *arguments: str, stdin: int = subprocess.DEVNULL, directory: str | None = None) -> int:
    """Start another Python that runs a module: its process id, whose end is to be waited for. What the terminal sends
    is for us alone. Raises OSError."""
    # -P: the directory that we happen to be in holds no modules
    command = [sys.executable, "-P", "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    null = subprocess.DEVNULL
    process = subprocess.Popen(
        command, stdin=stdin, stdout=null, stderr=null, cwd=directory, env=environment, start_new_session=True
    )
    # lest it is waited for there
    process.returncode = 0
    return process.pid


@contextmanager
def _starting() -> Iterator[None]:
    """Raises `ExhaustedError` for an OSError."""
    try:
        yield
    except OSError as error:
        raise ExhaustedError(f"no process can be started: {error.strerror}", error.errno or errno.EAGAIN) from error


@cache
def shared_fork_server() -> ForkServer:
    """The one of this process."""
    return ForkServer()
