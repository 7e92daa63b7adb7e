"""Death at a system call: a process is stopped at the entry of each, by ptrace(2), and killed at the n-th.

All its threads are followed, and their calls are counted as one sequence. (strace's fault injection counts those of
each thread for itself.)
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
import threading
from collections.abc import Callable

from tests.conftest import unavailable
from tests.mounts import DEADLINE, patience, wait_until

# <sys/ptrace.h>, <linux/wait.h>
_SYSCALL, _SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 24, 0x4206, 0x4207, 0x420E
_SYSGOOD, _CLONE = 1, 1 << 3
_ENTRY = 1
_WALL, _WNOTHREAD = 0x40000000, 0x20000000

#: What changes something that outlives a process, a request being taken from the kernel included. A death before any
#: other call is a death before the next of these.
CHANGING = frozenset((
    "read", "readv", "write", "writev", "pwrite64", "pwritev", "pwritev2", "sendmsg", "sendto", "fsync",
    "fdatasync", "sync", "syncfs", "fallocate", "copy_file_range", "sendfile", "splice", "rename", "renameat",
    "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "symlink", "symlinkat",
    "mknod", "mknodat", "truncate", "ftruncate", "chmod", "fchmod", "fchmodat", "chown", "fchown", "fchownat",
    "utimensat", "setxattr", "fsetxattr", "flock",
))  # fmt: skip
#: these, if they may make or empty a file: where their flags are
_OPENING = {"open": 1, "openat": 2, "creat": None}


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, at an entry."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("arch", ctypes.c_uint32),
        ("ip", ctypes.c_uint64),
        ("sp", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long


@functools.cache
def _names() -> dict[int, str]:
    """The system calls of this architecture, by number."""
    command = ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", os.devnull]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    words = [line.split() for line in lines if line.startswith("#define __NR_")]
    return {int(number): name.removeprefix("__NR_") for _, name, number in words if number.isdigit()}


def _ptrace(request: int, thread: int, address: int, data: object) -> int:
    result: int = _LIBC.ptrace(request, thread, address, data)
    return result


class Killer:
    """Kills a process before the n-th call by which it changes something; used by the thread that makes it do so.

    ``wake`` makes the process call something. Skips the test where nobody may be traced.
    """

    def __init__(self, pid: int, at: int, wake: Callable[[], object]) -> None:
        self._pid, self._left, self._wake = pid, at, wake
        #: the calls that were seen, the last one only begun if the process was killed
        self.seen: list[str] = []
        self.has_killed = False
        self._is_over = False
        self._failure = ""
        _names()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Killer:
        self._thread.start()
        assert self._ready.wait(patience(DEADLINE))
        if self._failure:
            self._thread.join()
            unavailable(self._failure)
        return self

    def __exit__(self, *error: object) -> None:
        # the end of the thread lets go of all that it traces
        self._is_over = True
        if not self.has_killed:
            self._wake()
        wait_until(lambda: not self._thread.is_alive(), "the end of the tracer")

    def _run(self) -> None:
        try:
            self._seize()
        finally:
            self._ready.set()
        while not self._failure and not self._is_over:
            try:
                thread, status = os.waitpid(-1, _WALL | _WNOTHREAD)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                self._stopped(thread, status)

    def _seize(self) -> None:
        """Stop all threads, also those that begin meanwhile."""
        known: set[int] = set()
        while more := set(map(int, os.listdir(f"/proc/{self._pid}/task"))) - known:
            known |= more
            for thread in more:
                if _ptrace(_SEIZE, thread, 0, _SYSGOOD | _CLONE) == 0:
                    _ptrace(_INTERRUPT, thread, 0, None)
                elif not self._traced(thread):
                    self._failure = f"no process can be traced here (ptrace): {os.strerror(ctypes.get_errno())}"
                    return

    def _traced(self, thread: int) -> bool:
        """Whether one that could not be seized is ours already, since it was begun by one that is, or has ended."""
        try:
            with open(f"/proc/{thread}/status") as status:
                return f"TracerPid:\t{threading.get_native_id()}\n" in status.read()
        except FileNotFoundError:
            return True

    def _stopped(self, thread: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if number == signal.SIGTRAP | 0x80 and self._is_due(thread):
            os.kill(self._pid, signal.SIGKILL)
            self.has_killed = True
        # a signal of its own goes on to it
        is_own = not event and number not in (signal.SIGTRAP, signal.SIGTRAP | 0x80)
        _ptrace(_SYSCALL, thread, 0, number if is_own else 0)

    def _is_due(self, thread: int) -> bool:
        info = _Info()
        _ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.addressof(info))
        name = _names().get(info.number, "") if info.op == _ENTRY else ""
        if name in _OPENING:
            place = _OPENING[name]
            flags = os.O_CREAT if place is None else info.arguments[place]
            if not flags & (os.O_CREAT | os.O_TRUNC | os.O_TMPFILE & ~os.O_DIRECTORY):
                return False
        elif name not in CHANGING:
            return False
        self.seen.append(name)
        self._left -= 1
        return self._left == 0
