"""What must be read before a question can be answered, and is too large for the event loop: read in a thread, once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import trio

from katafs.errors import BusyError, NotReadYet

_Answer = TypeVar("_Answer")
# threads; they share Python's lock with the event loop
_THREADS = 2
_MOST_WAITING = 48


class Reading:
    """Answers questions that may need something large. Belongs to the event loop."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._reading: dict[Hashable, trio.Event] = {}
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting

    async def answer(self, ask: Callable[[], _Answer]) -> _Answer:
        """What ``ask()`` returns, once all that it needs was read. Raises what it, or the reading, raises, and
        `BusyError`."""
        while True:
            try:
                return ask()
            except NotReadYet as missing:
                await self.read(missing)

    async def read(self, missing: NotReadYet) -> None:
        """Read something, or wait until somebody else who reads it is done."""
        if self._waiting >= _MOST_WAITING:
            raise BusyError(f"{self._waiting} requests wait for something large that is being read")
        self._waiting += 1
        try:
            known = self._reading.get(missing.key)
            if known is not None:
                await known.wait()
                return
            done = self._reading[missing.key] = trio.Event()
            try:
                missing.keep(await trio.to_thread.run_sync(missing.read, limiter=self._limiter, abandon_on_cancel=True))
            finally:
                del self._reading[missing.key]
                done.set()
        finally:
            self._waiting -= 1
