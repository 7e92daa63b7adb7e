"""Pages are made in another process, one for the whole daemon, started when the first page is asked for.

Highlighting runs regular expressions over what a kata holds. Some take for ever on a text made for that, and hold
Python's lock meanwhile: in the daemon itself they would stop every mount request. A process can be ended.
"""

from __future__ import annotations

import errno
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from katafs.errors import DamagedError, StorageError
from katafs.git import Oid

LIMIT = 8.0  # seconds for one page; then it is made again without highlighting, in as many
HEADER = struct.Struct(">cI")  # whether it is a page or the text of an error, and its length in bytes
PAGE, ERROR = b"P", b"E"


class Page(NamedTuple):
    """A page that is wanted: of the step from event ``was`` to ``now``, with the lights of the events around it up to
    event ``end``; of the whole history when they are -1."""

    path: Path
    kata_id: str
    tip: Oid
    was: int = -1
    now: int = -1
    end: int = -1


class _TookTooLongError(Exception):
    """The process was ended."""


class _Renderer:
    """The process, started when it is needed. Its methods may be called in any thread: one page is made at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def render(self, page: Page, *, highlight: bool) -> bytes:
        wanted = {**page._asdict(), "path": os.fspath(page.path), "tip": page.tip.hex(), "highlight": highlight}
        request = json.dumps(wanted).encode() + b"\n"
        with self._lock:
            for _ in range(2):
                try:
                    kind, answer = self._ask(request)
                    break
                except (BrokenPipeError, EOFError):
                    # it ends by itself when nobody asks for a while, or was killed: once more with a new one
                    self._end()
            else:
                raise StorageError(f"{page.path}: the process that makes pages ends at this one", errno.EIO)
        if kind == ERROR:
            raise DamagedError(answer.decode("utf-8", "replace"))
        return answer

    def _ask(self, request: bytes) -> tuple[bytes, bytes]:
        process = self._started()
        # both are pipes, as `_started` asks for
        stdin, stdout = cast("BinaryIO", process.stdin), cast("BinaryIO", process.stdout)
        stdin.write(request)
        stdin.flush()
        end = time.monotonic() + LIMIT
        fd = stdout.fileno()
        kind, length = HEADER.unpack(self._read(fd, HEADER.size, end))
        return kind, self._read(fd, length, end)

    def _read(self, fd: int, length: int, end: float) -> bytes:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        parts = []
        while length:
            left = end - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                self._end()
                raise _TookTooLongError
            part = os.read(fd, min(length, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # -P: the directory that the daemon happens to be in holds no modules
            command = [sys.executable, "-P", "-m", "katafs.html.serve"]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=1 << 16
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:
                pass  # what it was not told any more


_RENDERER = _Renderer()


def render(page: Page) -> bytes:
    """The bytes of a page. To be called in a worker thread. Raises `KataError` (EIO) when it cannot be made."""
    try:
        return _RENDERER.render(page, highlight=True)
    except _TookTooLongError:
        try:
            return _RENDERER.render(page, highlight=False)
        except _TookTooLongError as error:
            raise StorageError(f"{page.path}: a page takes longer than {LIMIT:.0f} s", errno.EIO) from error
