"""Loading ``_fastopen``, the library for the no-OPEN mode. Must happen before pyfuse3 is imported.

The mode needs the library (a C compiler at installation), a libfuse whose ``fuse_session_new`` can be wrapped, and a
kernel that can do without OPEN and OPENDIR (5.1). Where one is missing the mount works all the same, with OPEN.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import katafs

log = logging.getLogger(__name__)


class FastOpen:
    """The state of the mode, read from the library's variables."""

    def __init__(self, library: ctypes.CDLL | None) -> None:
        self._library = library
        self._wrapped = self._active = self._pid = self._append = ctypes.c_int(0)
        self._unique = ctypes.c_uint64(0)
        if library is not None:
            self._wrapped = ctypes.c_int.in_dll(library, "katafs_fast_wrapped")
            self._active = ctypes.c_int.in_dll(library, "katafs_fast_active")
            self._pid = ctypes.c_int.in_dll(library, "katafs_fast_pid")
            self._append = ctypes.c_int.in_dll(library, "katafs_fast_append")
            self._unique = ctypes.c_uint64.in_dll(library, "katafs_fast_unique")
            ctypes.c_int.in_dll(library, "katafs_fast_wanted").value = 1

    @property
    def is_loaded(self) -> bool:
        """Whether the library is there."""
        return self._library is not None

    @property
    def is_wrapped(self) -> bool:
        """Whether libfuse's session was made through the library: known from the moment there is one."""
        return bool(self._wrapped.value)

    @property
    def is_active(self) -> bool:
        """Whether the kernel opens by itself: known from the moment it has said hello (FUSE_INIT)."""
        return bool(self._active.value)

    def warn(self) -> None:
        """Log why the mode is not active although the library was loaded; known from the same moment."""
        if self.is_loaded and not self.is_wrapped:
            log.warning("no fast open: this libfuse makes its session in another way")
        elif self.is_loaded and not self.is_active:
            log.warning("no fast open: the kernel is too old for it")

    @property
    def sender(self) -> int:
        """The thread that sent the write or setattr being handled; 0 if it has no number here.

        To be read before the handler waits for anything.
        """
        return int(self._pid.value)

    @property
    def appends(self) -> bool:
        """Whether the write being handled was sent with O_APPEND. To be read as `sender` is."""
        return bool(self._append.value)

    @property
    def unique(self) -> int:
        """The number of the request being handled, 0 if nobody knows. To be read as `sender` is."""
        return int(self._unique.value)

    def forget(self, entries: Sequence[tuple[int, bytes]], inodes: Sequence[int]) -> bool:
        """Tell the kernel to forget names in directories, and inodes: in one call, in a worker thread.

        False where there is no library to do it. Raises OSError.
        """
        if self._library is None or not self.is_wrapped:
            return False
        parents = (ctypes.c_uint64 * len(entries))(*(directory for directory, _ in entries))
        names = (ctypes.c_char_p * len(entries))(*(name for _, name in entries))
        numbers = (ctypes.c_uint64 * len(inodes))(*inodes)
        size = ctypes.c_size_t
        failure = self._library.katafs_fast_forget(parents, names, size(len(entries)), numbers, size(len(inodes)))
        if failure:
            raise OSError(failure, f"the kernel was not told to forget: {os.strerror(failure)}")
        return True

    def greet(self, request: bytes) -> bool:
        """Hand libfuse a FUSE_INIT request that was read from the kernel by somebody else; whether it understood."""
        if self._library is None:
            return False
        # with PYFUNCTYPE the interpreter is not let go, which pyfuse3's handler of FUSE_INIT needs
        prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
        greet = prototype(("katafs_fast_greet", self._library))
        return bool(greet(request, len(request)))


def load(*, wanted: bool = True) -> FastOpen:
    """Load the library if it is wanted and there; never fails."""
    if not wanted:
        return FastOpen(None)
    if "pyfuse3" in sys.modules:
        log.warning("no fast open: pyfuse3 was imported too early")
        return FastOpen(None)
    # a shared library in the package, not a Python module: it is never imported
    library = next(Path(katafs.__file__).parent.glob("_fastopen*.so"), None)
    if library is None:
        log.warning("no fast open: katafs was installed without its C library")
        return FastOpen(None)
    try:
        return FastOpen(ctypes.CDLL(os.fspath(library), ctypes.RTLD_GLOBAL))
    except (OSError, ValueError) as error:
        log.warning("no fast open: %s", error)
        return FastOpen(None)
