"""Open files of other processes: which one a system call is for, and whether two descriptors are one open file.

Whoever waits for the answer to a request is still in the system call that sent it, so that ``/proc`` can be asked which
descriptor that is about. The kernel answers for processes that we might trace: our own user's, or everybody's for root.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re

# numbers of system calls, and which of their arguments is the descriptor that is written to: write, pwrite64, writev,
# pwritev, pwritev2, sendfile, ftruncate; splice, copy_file_range
_X86 = dict.fromkeys((1, 18, 20, 296, 328, 40, 77), 0) | dict.fromkeys((275, 326), 2)
_ARM = dict.fromkeys((64, 68, 66, 70, 287, 71, 46), 0) | dict.fromkeys((76, 285), 2)
_CALLS, _KCMP = {"x86_64": (_X86, 312), "aarch64": (_ARM, 272)}.get(platform.machine(), ({}, 0))
_PIDFD_GETFD = 438
_KCMP_FILE = 0
_PIDFD_THREAD = os.O_EXCL  # Linux 6.9

# that does not let go of the GIL: these calls do not wait, and to get it back may take longer than they do
_SYSCALL = ctypes.PyDLL(None, use_errno=True).syscall

#: the thread has not yet come to rest in its call: ask again
MOVING = -2


def written_to(thread: int, inode: int, flags: int | None) -> int | None:
    """The descriptor that a thread, which waits in a system call, writes to: one of the file ``inode``, opened with
    these flags if any are given. `MOVING`: ask again; None: it cannot be told."""
    said = _read(f"/proc/{thread}/syscall").split()
    if said == [b"running"]:
        return MOVING
    argument = _CALLS.get(int(said[0])) if len(said) > 3 else None
    if argument is None:
        return None
    descriptor = int(said[1 + argument], 16) & 0xFFFFFFFF
    about = dict(re.findall(rb"^(ino|flags):\s*(\d+)$", _read(f"/proc/{thread}/fdinfo/{descriptor}"), re.MULTILINE))
    if int(about.get(b"ino", b"0")) != inode:
        return None
    # with O_DIRECT it may be at another call by now
    if flags is not None and ((int(about.get(b"flags", b"0"), 8) ^ flags) & os.O_APPEND or flags & os.O_DIRECT):
        return None
    return descriptor


def process_of(thread: int) -> int:
    """The process that a thread belongs to; 0 where that cannot be told."""
    found = re.search(rb"^Tgid:\s*(\d+)$", _read(f"/proc/{thread}/status"), re.MULTILINE)
    return int(found[1]) if found is not None else 0


def take(thread: int, descriptor: int) -> int | None:
    """A descriptor of our own for the open file that another thread has; None if we may not. Not to be closed in the
    event loop: the kernel may ask it something then."""
    try:
        try:
            pidfd = os.pidfd_open(thread, _PIDFD_THREAD)
        except OSError:
            pidfd = os.pidfd_open(process_of(thread) or thread)
    except OSError:
        return None
    try:
        taken = _SYSCALL(_PIDFD_GETFD, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)
    return int(taken) if taken >= 0 else None


def is_same(own: int, thread: int, descriptor: int) -> bool:
    """Whether a descriptor of another thread's is the open file that ``own`` is."""
    return bool(_SYSCALL(_KCMP, os.getpid(), thread, _KCMP_FILE, own, descriptor) == 0)


def is_open_elsewhere(own: int, seen: tuple[int, int]) -> bool:
    """Whether another process may have the open file that ``own`` is; ``seen`` is a thread that had it, and as what.
    Takes some milliseconds, for a worker thread."""
    if is_same(own, *seen):
        return True
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            descriptors = os.listdir(f"/proc/{entry}/fd")
        except PermissionError:
            return True
        except OSError:
            continue
        if any(is_same(own, int(entry), int(descriptor)) for descriptor in descriptors):
            return True
    return False


def _read(path: str) -> bytes:
    """A small file of ``/proc``; nothing where it cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)
    except OSError:
        return b""
