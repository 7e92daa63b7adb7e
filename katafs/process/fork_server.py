"""The fork server: a small process with one thread that has loaded what work needs, and forks a worker for each piece.

``python -m katafs.process.fork_server MODULE,…``, or a fork of a daemon that begins, which does the same
(`katafs.process.starting`), with a socket to who has work as its standard input. A fork of a process with one thread is
safe, and takes some milliseconds, where a new Python takes some hundred. It never sees anything of a kata; a worker
does its work, one piece or more, under its limits, and ends.

It ends when its socket is closed, which the kernel does however its parent ends. (PR_SET_PDEATHSIG would not do: that
is the end of the thread that started it.) The workers get SIGKILL from the kernel when the fork server ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Never

from katafs.process import wire, worker

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PAUSE_SECONDS = 0.2
_PRCTL = ctypes.CDLL(None).prctl


class _ForkServer:
    def __init__(self) -> None:
        self._pid = os.getpid()
        self._control = control = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)
        # by the number of the worker: the socket of who waits for it
        self._waiting: dict[int, socket.socket] = {}
        # modules that work needs; who has forked us may have had them, but not prepared
        self._loaded: set[str] = set()
        self._preparing: list[Iterator[None]] = []

    def run(self, modules: str) -> None:
        """Until nobody can send work any more; the first will need these modules."""
        self._control.send(wire.CODE)
        if not self._load(modules.split(",")):
            return
        while True:
            # while nobody wants anything; beside workers, of which some stay, more slowly: they share the processors
            if self._preparing and not self._selector.select(_PAUSE_SECONDS if self._waiting else 0):
                self._prepare()
                continue
            for key, _ in self._selector.select():
                if key.fileobj is self._control:
                    if not self._take():
                        return
                elif isinstance(key.fileobj, int):
                    self._reap(key.fileobj, key.data)
                elif key.data in self._waiting:
                    # he has closed his end
                    self._forget(key.data)
                    os.kill(key.data, signal.SIGKILL)

    def _take(self) -> bool:
        """Start a worker; False when there will be no more work, or the code on disk is not what was loaded."""
        message, fds, _, _ = socket.recv_fds(self._control, wire.MESSAGE, 3, socket.MSG_CMSG_CLOEXEC)
        if not message or not self._load(message.decode().split(",")):
            return False
        task, waiting, *output = fds
        try:
            pid = os.fork()
        except OSError as error:
            os.write(waiting, wire.ENDED.pack(wire.NOT_STARTED, error.errno or 0))
            pid = -1
        if pid == 0:
            self._be_worker(task, output)
        for fd in (task, *output):
            os.close(fd)
        if pid < 0:
            os.close(waiting)
        else:
            self._waiting[pid] = socket.socket(fileno=waiting)
            for end in (self._waiting[pid], os.pidfd_open(pid)):
                self._selector.register(end, selectors.EVENT_READ, pid)
        return True

    def _load(self, modules: list[str]) -> bool:
        """Import what work needs, once for all workers; False when that would mix two versions of katafs."""
        new = [name for name in modules if name not in self._loaded]
        if not new:
            return True
        if wire.state_of_code() != wire.CODE:
            return False
        self._loaded.update(new)
        for name in new:
            # a worker will say what is wrong with it
            with contextlib.suppress(Exception):
                prepare = getattr(importlib.import_module(name), "preload", None)
                if prepare is not None:
                    self._preparing.append(prepare())
                    # each worker would do that again
                    next(self._preparing[-1])
        _share()
        return True

    def _prepare(self) -> None:
        """Go one step on with what makes later work quicker: a module's ``preload()`` is an iterator of steps, first of
        what all its work needs, then of some milliseconds."""
        try:
            next(self._preparing[0])
        except Exception:  # noqa: BLE001 - StopIteration, or a worker will say
            del self._preparing[0]
            _share()

    def _reap(self, end: int, pid: int) -> None:
        self._selector.unregister(end)
        os.close(end)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if pid in self._waiting:
            with contextlib.suppress(OSError):
                self._waiting[pid].send(wire.ENDED.pack(wire.EXITED, status))
            self._forget(pid)

    def _forget(self, pid: int) -> None:
        waiting = self._waiting.pop(pid)
        self._selector.unregister(waiting)
        waiting.close()

    def _be_worker(self, task: int, output: list[int]) -> Never:
        """In the new process: nothing of the fork server's is left, then the work."""
        status = 1
        try:
            _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == self._pid:
                _close_all_but(task, *output)
                worker.serve(task, *output)
                status = 0
        finally:
            os._exit(status)


def _share() -> None:
    """What is shared with the workers is not to be copied because their collectors look at it."""
    gc.collect()
    gc.freeze()


def _close_all_but(*kept: int) -> None:
    """Close everything from 3 on that is not in ``kept``."""
    first = 3
    for fd in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        # of an empty range Python closes more than nothing
        if first < fd:
            os.closerange(first, fd)
        first = fd + 1


def serve(modules: str) -> None:
    """Be the fork server, with these modules to begin with; the control socket is standard input."""
    # of the thread that started us
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    gc.enable()
    _ForkServer().run(modules)


if __name__ == "__main__":
    serve(sys.argv[1])
