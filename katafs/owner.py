"""Writing files as their owner.

The daemon usually runs as root, and a kata's repository belongs to the service that made it. Objects that root made
would be in that service's way: it could not add to an ``objects/xx`` directory of root's. So whoever writes to a kata
does it with the file system identity of the kata's owner, which also keeps root's powers out of the write.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def acting_as_owner(path: Path) -> Iterator[None]:
    """Create and open files as the owner of ``path``, in this thread only; without root's powers, as oneself.

    setfsuid(2) is per thread, also in glibc, and takes CAP_DAC_OVERRIDE and its kin out of the effective set.
    Raises OSError when ``path`` is not there.
    """
    if os.geteuid() != 0:
        yield
        return
    status = path.stat()
    # the group first: it is root who may set it
    _LIBC.setfsgid(status.st_gid)
    _LIBC.setfsuid(status.st_uid)
    try:
        yield
    finally:
        _LIBC.setfsuid(0)
        _LIBC.setfsgid(os.getegid())
