"""Katas that were written to and then left alone are packed anew, one at a time, in a process of its own."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

import trio

from katafs.errors import KataError, NotFoundError
from katafs.kata.compact import compact_elsewhere, quiet_seconds
from katafs.kata.store import Store
from katafs.tree.context import Counters

log = logging.getLogger(__name__)

# of those beyond, the ones that were quiet for longest are left as they are, until they are written to again
_MOST_KATAS = 10_000
_PAUSE = 1.0  # seconds


class Compactor:
    """Knows which katas were written to through the mount. Belongs to the event loop."""

    def __init__(self, store: Store, counters: Counters) -> None:
        self._store, self._counters = store, counters
        # when each was last written to, the one that is quiet for longest first
        self._written: OrderedDict[str, float] = OrderedDict()
        self._limiter = trio.CapacityLimiter(1)

    def wrote(self, kata_id: str) -> None:
        self._written[kata_id] = time.monotonic()
        self._written.move_to_end(kata_id)
        if len(self._written) > _MOST_KATAS:
            self._written.popitem(last=False)

    async def run(self, after: float) -> None:
        """Compact, for ever, what was quiet for so many seconds."""
        while True:
            await trio.sleep(min(_PAUSE, after))
            while (kata_id := await self._quiet(after)) is not None:
                await self._compact(kata_id)

    async def _quiet(self, after: float) -> str | None:
        """The next kata to be compacted, which is forgotten here."""
        kata_id, written = next(iter(self._written.items()), ("", 0.0))
        if not kata_id or time.monotonic() - written < after:
            return None
        del self._written[kata_id]
        path = self._store.path(kata_id)
        if await trio.to_thread.run_sync(quiet_seconds, path, abandon_on_cancel=True, limiter=self._limiter) < after:
            # somebody else writes to it
            self.wrote(kata_id)
        return kata_id if kata_id not in self._written else None

    async def _compact(self, kata_id: str) -> None:
        path = self._store.path(kata_id)
        try:
            # the end of the daemon does not wait for it; the process ends with the thread
            compacted = await trio.to_thread.run_sync(
                compact_elsewhere, path, kata_id, abandon_on_cancel=True, limiter=self._limiter
            )
        except NotFoundError:
            log.debug("kata %s: it was removed", kata_id)
        except KataError as error:
            log.warning("kata %s: it is not compacted: %s", kata_id, error)
        except Exception:
            # nothing that is done on the quiet ends the daemon
            log.exception("kata %s: it is not compacted", kata_id)
        else:
            if compacted:
                self._counters.compactions += 1
                log.info("kata %s: compacted", kata_id)
