"""What the log says of katas: once of each, and of not too many."""

from __future__ import annotations

import logging
import time

from katafs.caching import Newest
from katafs.text import visible

log = logging.getLogger(__name__)

_MOST_AN_HOUR, _HOUR = 100, 3600.0
_MOST_KATAS = 100_000


class Notes:
    """Lines about katas, one for each kata and daemon: at most 100 an hour, then how many more there were. Belongs to
    one thread."""

    def __init__(self) -> None:
        self._told: Newest[str, None] = Newest(_MOST_KATAS)
        self._hour = time.monotonic()
        self._lines = self._left_out = 0

    def note(self, kata_id: str, why: str, *, of: str = "kata") -> None:
        """Something is to be said of a kata (or what else it is of), unless something was."""
        self.expire()
        name = f"{of} {kata_id}"
        if name in self._told:
            return
        self._told.keep(name, None)
        if self._lines < _MOST_AN_HOUR:
            self._lines += 1
            log.info("%s: %s", name, visible(why, kept=""))
        else:
            self._left_out += 1

    def expire(self) -> None:
        """To be called from time to time: says how many were left out in an hour that has passed."""
        if time.monotonic() - self._hour < _HOUR:
            return
        if self._left_out:
            log.info("and %d more katas within an hour", self._left_out)
        self._hour = time.monotonic()
        self._lines = self._left_out = 0
