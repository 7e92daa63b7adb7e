"""A mount without libfuse's help: ``/dev/fuse``, mount(2), the first request, and the end.

Whoever holds the descriptor holds the mount: the kernel ends the connection when the last copy of it is closed, not
when a process that answers requests ends. The numbers are those of ``<linux/fuse.h>``.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import stat
import struct
from dataclasses import dataclass
from typing import NamedTuple

from katafs.mount import runtime
from katafs.mount.mounting import ALWAYS, DEVICE, FILE_SYSTEM, LIBC, MS_RDONLY, MountOptions, detach, device_of

# struct fuse_in_header: len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding
_IN_HEADER = struct.Struct("=IIQQIIIHH")
# struct fuse_init_in: major, minor, max_readahead, flags; since 7.36 flags2, the upper half
_INIT_IN = struct.Struct("=12xII")
_INIT = 26
_INIT_EXT = 1 << 30
_NO_OPEN_SUPPORT, _NO_OPENDIR_SUPPORT = 1 << 17, 1 << 24
_HAS_RESEND = 1 << 39  # Linux 6.9
_READ_BUFFER = 1 << 16  # at least 8 KiB
_INIT_SECONDS = 10.0

# struct fuse_out_header: len, error, unique; a notification has its code in error, and no unique
_OUT_HEADER = struct.Struct("=IiQ")
_NOTIFY_RESEND = 7


class UnsuitableError(Exception):
    """This mount cannot be kept alive; the message says why."""


class Held(NamedTuple):
    """A mount that we hold: its descriptor, its device number as in ``mountinfo``, and its FUSE_INIT request."""

    fd: int
    device: str
    init: bytes


@dataclass(frozen=True)
class Kept:
    """A mount that another process holds, and will hold when we have died."""

    held: Held
    #: the memfd of the `Journal`
    journal: int
    keeper: int
    #: whether nobody has served the mount before
    is_first: bool = False

    @property
    def is_orphaned(self) -> bool:
        """Whether that process has ended: then we are the last."""
        return os.getppid() != self.keeper

    def deaths(self) -> int:
        """How many daemons of the mount have died, as the keeper says."""
        status = runtime.read(self.held.device) if self.held.device else None
        return status.deaths if status is not None else 0


def hold(options: MountOptions) -> Held:
    """Mount with mount(2), and read the kernel's first request without answering it. Raises `UnsuitableError`, and then
    nothing is mounted, where mount(2) fails, or the kernel is too old for daemons that take over from each other."""
    fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    with contextlib.ExitStack() as failed:
        failed.callback(os.close, fd)
        _mount(fd, options)
        failed.callback(detach, options.mountpoint)
        # where /proc is another namespace's the mount is not seen, and reload will not find it
        held = Held(fd, device_of(options.mountpoint), _read_init(fd))
        failed.pop_all()
    return held


def _mount(fd: int, options: MountOptions) -> None:
    """mount(2), as libfuse calls it."""
    data = f"fd={fd},rootmode={stat.S_IFDIR:o},user_id={os.geteuid()},group_id={os.getegid()},default_permissions"
    data += ",allow_other" if options.allow_other else ""
    flags = ALWAYS | (MS_RDONLY if options.read_only else 0)
    source, target = os.fsencode(options.store), os.fsencode(options.mountpoint)
    if LIBC.mount(source, target, FILE_SYSTEM, ctypes.c_ulong(flags), data.encode()):
        # libfuse may know another way, or a better word for why there is none
        raise UnsuitableError(f"mount(2): {os.strerror(ctypes.get_errno())}")


def _read_init(fd: int) -> bytes:
    """FUSE_INIT. Raises `UnsuitableError` when the kernel does not offer what taking over needs."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(_INIT_SECONDS * 1000):
        raise UnsuitableError("the kernel does not greet")
    request = os.read(fd, _READ_BUFFER)
    if len(request) < _IN_HEADER.size + _INIT_IN.size - 4 or _IN_HEADER.unpack_from(request)[1] != _INIT:
        raise UnsuitableError("the kernel greets in a way that is not known")
    flags, more = _INIT_IN.unpack_from(request.ljust(200, b"\0"), _IN_HEADER.size)
    if flags & _INIT_EXT:
        flags |= more << 32
    if not flags & _HAS_RESEND:
        raise UnsuitableError("the kernel is older than 6.9")
    if not (flags & _NO_OPEN_SUPPORT and flags & _NO_OPENDIR_SUPPORT):
        raise UnsuitableError("the kernel cannot do without OPEN")
    return request


def resend(fd: int) -> None:
    """Have the kernel send again what another daemon took and did not answer."""
    # ENODEV: it was unmounted meanwhile, which whoever reads next will see
    with contextlib.suppress(OSError):
        os.write(fd, _OUT_HEADER.pack(_OUT_HEADER.size, _NOTIFY_RESEND, 0))
