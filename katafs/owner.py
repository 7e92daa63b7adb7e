"""Writing files as their owner.

The daemon usually runs as root, and a kata's repository belongs to the service that made it. Objects that root made
would be in that service's way: it could not add to an ``objects/xx`` directory of root's. So whoever writes to a kata
does it with the file system identity of the kata's owner, which also keeps root's powers out of the write: all but
the power to find the way, since a store may be in a directory that its owner may not search.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

# <linux/prctl.h>
_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
# <linux/capability.h>
_VERSION_3 = 0x20080522
_DAC_READ_SEARCH = 1 << 2


@contextmanager
def acting_as_owner(path: Path) -> Iterator[None]:
    """Create and open files as the owner of ``path``, in this thread only; without root's powers, as oneself. Can be
    nested.

    setfsuid(2) is per thread, also in glibc, and takes CAP_DAC_OVERRIDE and its kin out of the effective set.
    Raises OSError when ``path`` is not there.
    """
    if os.geteuid() != 0:
        yield
        return
    status = path.stat()
    signal = ctypes.c_int(0)
    _LIBC.prctl(_PR_GET_PDEATHSIG, ctypes.byref(signal))
    # the group first: it is root who may set it
    gid = _LIBC.setfsgid(status.st_gid)
    uid = _LIBC.setfsuid(status.st_uid)
    # CAP_DAC_READ_SEARCH comes back into the effective set, if it is permitted
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: the low halves, then the high ones
    if _LIBC.capget(header, sets) == 0 and sets[1] & _DAC_READ_SEARCH:
        sets[0] |= _DAC_READ_SEARCH
        _LIBC.capset(header, sets)
    # another identity takes away that a worker is killed when its parent ends (prctl(2))
    if signal.value:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.value)
    try:
        yield
    finally:
        _LIBC.setfsuid(uid)
        _LIBC.setfsgid(gid)
        if signal.value:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.value)
