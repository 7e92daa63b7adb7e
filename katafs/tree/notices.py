"""What the log says of katas that are not shown as katas: once for each, and not too often."""

from __future__ import annotations

import logging
import time
from collections import deque

import cachetools

log = logging.getLogger(__name__)

_KATAS = 100_000
_MOST, _HOUR_SECONDS = 100, 3600.0


class Notices:
    """Lines about katas. Belongs to the event loop."""

    def __init__(self) -> None:
        self._said: cachetools.LRUCache[str, bool] = cachetools.LRUCache(_KATAS)
        self._times: deque[float] = deque(maxlen=_MOST)
        self._left_out = 0

    def say(self, kata_id: str, text: str) -> None:
        """Say something of a kata, once for a kata and daemon. What is too much in an hour is counted, and the count is
        said."""
        if kata_id in self._said:
            return
        self._said[kata_id] = True
        now = time.monotonic()
        if len(self._times) == _MOST and now - self._times[0] < _HOUR_SECONDS:
            self._left_out += 1
            return
        self._times.append(now)
        if self._left_out:
            log.info("of %d more katas nothing was said in the last hour", self._left_out)
            self._left_out = 0
        log.info("kata %s is shown as %s", kata_id, text)
