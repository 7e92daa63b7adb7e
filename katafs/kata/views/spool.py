"""Large contents that were computed or inflated: in temporary files without a name, bounded all together."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple, Self

from katafs import process
from katafs.errors import StorageError, TooLargeError, storage_errors

#: what is said of errors of the operating system
NOT_KEPT = "a temporary file cannot be kept"
#: bytes of all files together
LIMIT = 4 << 30
#: bytes of one
FILE_LIMIT = 1 << 30
# a file with fewer bytes to go than this is not begun
_LEAST = 1 << 20
# who has read some of it so many seconds ago will want the rest
_IDLE_SECONDS = 10.0
# descriptors of the daemon
_MOST_FILES = 64


class Extent(NamedTuple):
    """Where something is in a `SpoolFile`: its first byte and its size."""

    start: int
    size: int


class Spool:
    """The files in ``directory`` (None: where the system has its temporary files), ``limit`` bytes at most."""

    def __init__(self, directory: Path | None = None, limit: int = LIMIT) -> None:
        self.directory, self.limit = directory, limit
        self._taken = 0
        # never held by `give`: what collects garbage may call that anywhere, here too
        self._lock = threading.Lock()
        self._given: deque[int] = deque()
        self._files: weakref.WeakSet[SpoolFile] = weakref.WeakSet()

    def file(self) -> SpoolFile:
        """A new, empty file. Raises `StorageError`."""
        with storage_errors(NOT_KEPT):
            file = SpoolFile(self)
        with self._lock:
            self._files.add(file)
        return file

    @property
    def taken(self) -> int:
        """The bytes of all files that are open."""
        with self._lock:
            return self._settle()

    def _settle(self) -> int:
        while self._given:
            self._taken -= self._given.popleft()
        return self._taken

    def take(self, size: int, least: int | None = None) -> int:
        """Take so many bytes, or what is left if that is at least ``least``. Raises `StorageError` (ENOSPC)."""
        with self._lock:
            got = min(size, self.limit - self._settle())
            if got < (size if least is None else least):
                raise StorageError(f"the {self.limit >> 20} MiB for temporary files are full", errno.ENOSPC)
            self._taken += got
            return got

    def give(self, size: int) -> None:
        self._given.append(size)

    def make_room(self) -> None:
        """Close files that nobody has read from for some time, until half the space is free. For the thread that reads
        them."""
        with self._lock:
            files = list(self._files)
        files = sorted((file for file in files if file.is_kept), key=lambda file: file.last_used)
        for number, file in enumerate(files):
            if self.taken <= self.limit // 2 and len(files) - number <= _MOST_FILES:
                return
            if file.is_idle() or len(files) - number > _MOST_FILES:
                file.close()


class SpoolFile:
    """One file of a spool. Its disk space is free again when it is closed, or forgotten; a ``with`` statement closes it
    where something goes wrong."""

    def __init__(self, spool: Spool, file: BufferedRandom | None = None) -> None:
        self._spool = spool
        self.file = file or tempfile.TemporaryFile(dir=spool.directory)  # noqa: SIM115 - lives as long as this
        self.size = 0
        self._taken = 0
        #: finished, and in some cache: may be closed to make room
        self.is_kept = False
        self.last_used = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is not None:
            self.close()

    @property
    def closed(self) -> bool:
        return self.file.closed

    def is_idle(self, seconds: float = _IDLE_SECONDS) -> bool:
        return self.last_used < time.monotonic() - seconds

    def add(self, pieces: Iterable[bytes]) -> Extent:
        """Append something, which can be read at once. Raises `StorageError`."""
        start = self.size
        with storage_errors(NOT_KEPT):
            for piece in pieces:
                self.grow(self.size + len(piece))
                self.file.write(piece)
            self.file.flush()
        return Extent(start, self.size - start)

    def grow(self, size: int) -> None:
        """Take the space for a file of that size, which is going to be written. Raises `StorageError` (ENOSPC)."""
        if size > self._taken:
            # not for each of a thousand small pieces
            self._taken += self._spool.take(max(size - self._taken, _LEAST), least=size - self._taken)
        self.size = size

    def run(self, limits: process.Limits, work: process.Work, *arguments: object) -> object:
        """Have ``work(file, *arguments)`` write this file, in a process of its own; as `katafs.process.run`. Raises
        `StorageError` (ENOSPC) when the spool, and not the process' limit, is too small for it."""
        allowed = self._spool.take(limits.file, least=min(_LEAST, limits.file))
        self._taken += allowed
        try:
            result = process.run(replace(limits, file=allowed), self.file, work, *arguments)
        except TooLargeError as error:
            if allowed < limits.file and os.fstat(self.file.fileno()).st_size >= allowed:
                raise StorageError("there is no room for so large a temporary file", errno.ENOSPC) from error
            raise
        finally:
            self.size = os.fstat(self.file.fileno()).st_size
            self._spool.give(self._taken - self.size)
            self._taken = self.size
        return result

    def read(self, offset: int, size: int, extent: Extent | None = None) -> bytes:
        """Up to ``size`` bytes of the file, or of a part of it; fewer only at its end. Raises `StorageError`."""
        start, whole = extent or (0, self.size)
        self.last_used = time.monotonic()
        with storage_errors(NOT_KEPT):
            # by no position that threads would share
            return os.pread(self.file.fileno(), max(0, min(size, whole - offset)), start + offset)

    def close(self) -> None:
        """Give the disk space back. May be called again."""
        # what a full disk did not take would be tried again here, and nobody needs it
        with contextlib.suppress(OSError):
            self.file.close()
        taken, self._taken = self._taken, 0
        self._spool.give(taken)

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.close()
