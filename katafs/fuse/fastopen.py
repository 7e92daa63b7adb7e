"""Loading ``_fastopen``, the library for the no-OPEN mode. Must happen before pyfuse3 is imported.

The mode needs the library (a C compiler at installation), a pyfuse3 whose calls of libfuse can be wrapped, and a kernel
that can do without OPEN and OPENDIR (5.1). Where one is missing the mount works all the same, with OPEN.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import katafs

log = logging.getLogger(__name__)

#: set in the unique of a request that the kernel sends once more
UNIQUE_RESEND = 1 << 63
#: what there is not without the library
LOST = "slower mode, and no keep-alive and no reload"
_PROCESS = b"fuse_session_process_buf"
_OTHER_WAY = "this libfuse makes its session in another way"


class Asked(NamedTuple):
    """What a request says beside its arguments. The next request overwrites it: it is taken once, before the handler
    first runs, and handed to it. All but the number is of writes and setattrs, in the fast mode."""

    #: the number of the request; 0: nobody knows
    unique: int = 0
    #: who sent it: a thread, 0 if it has no number here; and the user
    thread: int = 0
    user: int = 0
    #: of the open file, as for open(2)
    flags: int = 0
    #: whether the kernel writes back a page that somebody has mapped
    is_page: bool = False
    #: whether attributes are set by an open file, ftruncate(2), and not by a path
    by_file: bool = False

    @property
    def is_again(self) -> bool:
        return bool(self.unique & UNIQUE_RESEND)

    @property
    def appends(self) -> bool:
        return bool(self.flags & os.O_APPEND)


class FastOpen:
    """The state of the mode, read from the library's variables. ``reason`` is why there is no library."""

    def __init__(self, library: ctypes.CDLL | None, reason: str = "") -> None:
        self.library = library
        self.reason = reason
        self._wrapped, self._active, self._flushed = map(self._int, ("wrapped", "active", "flushed"))
        self._sender = [self._int(name) for name in ("pid", "uid", "flags", "is_page", "by_file")]
        self._unique = self._int("unique", ctypes.c_uint64)

    def _int(self, name: str, kind: Any = ctypes.c_int) -> Any:
        return kind.in_dll(self.library, f"katafs_fast_{name}") if self.library else kind(0)

    @property
    def is_wrapped(self) -> bool:
        """Whether libfuse's session was made through the library: known from the moment there is one."""
        return bool(self._wrapped.value)

    @property
    def is_active(self) -> bool:
        """Whether the kernel opens by itself: known from the moment it has said hello (FUSE_INIT)."""
        return bool(self._active.value)

    @property
    def is_flushed(self) -> bool:
        """Whether the kernel has sent a FLUSH, and was told that it need not."""
        return bool(self._flushed.value)

    def warn(self) -> None:
        """Log why the mode is not active although the library was loaded; known from the same moment."""
        if self.library is not None and not self.is_active:
            self.reason = "the kernel is too old for it" if self.is_wrapped else _OTHER_WAY
            log.warning("no fast open: %s", self.reason)

    def asked(self) -> Asked:
        """What the request says that is being handled. To be asked before the handler first runs."""
        thread, user, flags, is_page, by_file = (variable.value for variable in self._sender)
        return Asked(self._unique.value, thread, user & 0xFFFFFFFF, flags, bool(is_page), bool(by_file))

    def invalidate(self, entries: Sequence[tuple[int, bytes]], inodes: Sequence[int]) -> bool:
        """Tell the kernel to forget names in directories, and inodes: in one call, in a worker thread.

        False where there is no library to do it. Raises OSError.
        """
        if self.library is None or not self.is_wrapped:
            return False
        parents = (ctypes.c_uint64 * len(entries))(*(directory for directory, _ in entries))
        names = (ctypes.c_char_p * len(entries))(*(name for _, name in entries))
        numbers = (ctypes.c_uint64 * len(inodes))(*inodes)
        size = ctypes.c_size_t
        failure = self.library.katafs_fast_forget(parents, names, size(len(entries)), numbers, size(len(inodes)))
        if failure:
            raise OSError(failure, f"the kernel was not told to forget: {os.strerror(failure)}")
        return True

    def greet(self, request: bytes) -> bool:
        """Hand libfuse a FUSE_INIT request that was read from the kernel by somebody else; whether it understood."""
        if self.library is None:
            return False
        # with PYFUNCTYPE the interpreter is not let go, which pyfuse3's handler of FUSE_INIT needs
        prototype = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t)
        return bool(prototype(("katafs_fast_greet", self.library))(request, len(request)))


def load(*, wanted: bool = True) -> FastOpen:
    """Load the library if it is wanted and there; never fails."""
    fast = look() if wanted else FastOpen(None, "--no-fast-open was given")
    if fast.library is not None:
        # the session that is made next is wrapped
        fast._int("wanted").value = 1
    elif wanted:
        log.warning("no fast open: %s", fast.reason)
    return fast


def look() -> FastOpen:
    """The library, loaded, if it can do what it is for; else why not."""
    if "pyfuse3" in sys.modules:
        return FastOpen(None, "pyfuse3 was imported too early")
    # a shared library in the package, not a Python module: it is never imported
    path = next(Path(katafs.__file__).parent.glob("_fastopen*.so"), None)
    if path is None:
        return FastOpen(None, "katafs was installed without its C library")
    try:
        library = ctypes.CDLL(os.fspath(path), ctypes.RTLD_GLOBAL)
        wraps = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(library, "katafs_fast_wraps")))
        fast = FastOpen(library)
    except (OSError, ValueError) as error:
        return FastOpen(None, str(error))
    spec = importlib.util.find_spec("pyfuse3")
    # what a program calls of a library it names
    module = Path(spec.origin).read_bytes() if spec is not None and spec.origin else b""
    for name, reason in ((wraps, _OTHER_WAY), (_PROCESS, "this pyfuse3 has libfuse handle requests in another way")):
        if name + b"\0" not in module:
            return FastOpen(None, reason)
    return fast
