"""Handing tables over: listings and contents that the C library answers by itself (``_tables.h``).

A table is a head and what it holds, in the machine's byte order, with its length made a multiple of 8; see ``struct
table`` there.
"""

from __future__ import annotations

import ctypes
import struct

from katafs.caching import Kept
from katafs.tree.dirs.event_directory import Sized

#: number, size, count, number above, base, time in ns, user, group, seconds, length
_TABLE = struct.Struct("QIIQQqIIdI4x")
_CONTENT = 0xFFFFFFFF
_RING = 3 << 19
#: of one that is handed over, in bytes
MOST_BYTES = 1 << 19


def pack_listing(
    number: int, above: int, base: int, owner: tuple[int, int], mtime_ns: int, timeout: float, sized: Sized
) -> bytes:
    """The table of a directory, whose entries all have its owner and its time; their numbers begin at ``base``, and
    ``timeout`` is in seconds."""
    count = len(sized)
    names, slots, modes, sizes = zip(*sized, strict=True) if sized else ((),) * 4
    columns = struct.pack(f"{count}Q{2 * count}I", *sizes, *slots, *modes) + b"\0".join(names)
    rest = columns + bytes(8 - len(columns) % 8)
    return _TABLE.pack(number, len(rest), count, above, base, mtime_ns, *owner, timeout, 0) + rest


def pack_content(number: int, data: bytes) -> bytes:
    """The table of a file."""
    padding = -len(data) & 7
    head = _TABLE.pack(number, len(data) + padding, _CONTENT, 0, 0, 0, 0, 0, 0.0, len(data))
    return b"%b%b%b" % (head, data, bytes(padding))


class Tables:
    """What was handed to the library; nothing is, where there is none. Belongs to the event loop.

    The library counts: ``listings`` and ``reads`` that were answered from a table; and it says what was
    ``answered`` last, by its number, 0 before.
    """

    def __init__(self, library: ctypes.CDLL | None) -> None:
        self.is_there = library is not None
        self.listings, self.reads, self._bytes, self.answered = (ctypes.c_uint64(0) for _ in range(4))
        if library is None:
            return
        # with PYFUNCTYPE the interpreter is not let go, which would take longer than what is done
        self._hand = ctypes.PYFUNCTYPE(None, ctypes.c_char_p, ctypes.c_size_t)(("katafs_tables_hand", library))
        self._drop = ctypes.PYFUNCTYPE(None, ctypes.c_uint64)(("katafs_tables_drop", library))
        self.listings, self.reads, self._bytes, self.answered = (
            ctypes.c_uint64.in_dll(library, f"katafs_tables_{name}")
            for name in ("listings", "reads", "bytes", "answered")
        )

    def kept(self) -> Kept:
        """What is in memory."""
        return Kept(0, self._bytes.value, _RING)

    def hand(self, tables: bytes) -> None:
        """Hand over tables that stand one behind the other, `MOST_BYTES` at most."""
        self._hand(tables, len(tables))

    def drop(self, number: int) -> None:
        """Forget those of the kata that has this number."""
        if self.is_there:
            self._drop(number)
