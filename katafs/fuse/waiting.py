"""How pyfuse3's session waits for requests: it is handed this in place of trio. Why, and what it gives, says *How
requests are waited for* in design.md."""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Awaitable, Callable
from time import perf_counter
from types import ModuleType
from typing import Any

import trio

from katafs.tree.context import Counters

log = logging.getLogger(__name__)

# in seconds: how long requests are taken without a turn for other tasks, and while these answer requests, too
_IN_A_ROW, _BESIDE_OTHERS = 1e-3, 2e-4
# how long we stay awake for the next one
_MOMENT = 200e-6
# a request that was slept through, and would have been met: the same, and waking up
_SOON = 300e-6
_MOST_FOR_NOTHING = 8
_LOOK_SECONDS = 1.0


class Waiting:
    """The parts of trio that pyfuse3's session uses. ``busy`` says how many requests are being answered meanwhile;
    ``go_on`` does something of what will be asked for, while we are awake for the next one, and says whether it did.

    ``moment`` and ``soon`` are in seconds.
    """

    def __init__(
        self,
        busy: Callable[[], int],
        moment: float = _MOMENT,
        soon: float = _SOON,
        go_on: Callable[[], bool] = lambda: False,
    ) -> None:
        self.lowlevel = self
        self._busy, self._go_on = busy, go_on
        # on a single processor the others need it meanwhile
        self._moment = moment if len(os.sched_getaffinity(0)) > 1 else 0.0
        self._soon = soon
        self._turn: Turn | None = None
        self._poll: select.poll | None = None
        self._for_nothing = 0
        self._passed = 0.0

    def __getattr__(self, name: str) -> Any:
        """What else is used of trio, and of ``trio.lowlevel``."""
        return getattr(trio, name) if hasattr(trio, name) else getattr(trio.lowlevel, name)

    def Lock(self) -> Turn:  # noqa: N802 - trio's
        """What only one task at a time has: the one that waits."""
        self._turn = Turn()
        return self._turn

    @property
    def is_backing_off(self) -> bool:
        """Whether it does not pay at present to stay awake."""
        return self._for_nothing >= _MOST_FOR_NOTHING

    async def wait_readable(self, descriptor: int) -> None:
        """Wait for a request. Raises `trio.ClosedResourceError` when there will be none any more."""
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
        began = perf_counter()
        is_busy = self._busy() > 0
        most = _BESIDE_OTHERS if is_busy else _IN_A_ROW
        # pyfuse3 starts another task whenever none waits for its turn: it must come to that
        is_alone = self._turn is not None and not self._turn.is_wanted
        if not is_alone and began - self._passed < most and self._comes(self._poll, began, is_busy):
            return
        try:
            await trio.lowlevel.wait_readable(descriptor)
        finally:
            self._passed = perf_counter()
        if self.is_backing_off and self._passed - began < self._soon:
            # one try: it may be just too long each time
            self._for_nothing = _MOST_FOR_NOTHING - 1

    def _comes(self, poll: select.poll, began: float, is_busy: bool) -> bool:
        """Whether a request is there, or comes in a moment."""
        if poll.poll(0):
            return True
        if is_busy or self.is_backing_off or not self._moment:
            return False
        end = began + self._moment
        while perf_counter() < end:
            if poll.poll(0):
                self._for_nothing = 0
                return True
            if self._go_on():
                end = perf_counter() + self._moment
        self._for_nothing += 1
        return False


def wait_quickly(
    pyfuse3: ModuleType, busy: Callable[[], int], go_on: Callable[[], bool]
) -> Callable[[], Awaitable[None]]:
    """Have pyfuse3's session wait in this way; returns what looks, a while after its start, whether it does.

    Where pyfuse3 or trio is not as we know it, the session waits in its own way: slower, which is said.
    """
    why = "pyfuse3 does not use its attribute trio"
    waiting: Waiting | None = None
    if getattr(pyfuse3, "trio", None) is trio:
        try:
            waiting = Waiting(busy, go_on=go_on)
            Turn()
            pyfuse3.trio = waiting  # type: ignore[attr-defined]
        except AttributeError as error:
            waiting, why = None, str(error)

    async def look() -> None:
        await trio.sleep(_LOOK_SECONDS)
        if waiting is None or waiting._poll is None:
            log.warning("each request is waited for in the slower way: %s", why)

    return look


class Turn:
    """A lock that is not handed over: who gives it up may have it again at once, as one of those that wait for it only
    looks for it when the event loop comes to it.
    """

    def __init__(self) -> None:
        self._is_taken = False
        self._is_waking = False
        self._others = trio.lowlevel.ParkingLot()

    @property
    def is_wanted(self) -> bool:
        """Whether another task waits for it, or is about to look for it."""
        return self._is_waking or bool(self._others)

    async def __aenter__(self) -> None:
        while self._is_taken:
            await self._others.park()
            self._is_waking = False
        self._is_taken = True

    async def __aexit__(self, *_: object) -> None:
        self._is_taken = False
        if not self._is_waking and self._others:
            self._is_waking = True
            self._others.unpark()


class Steps(trio.abc.Instrument):
    """Counts how long each step of a task, which may answer several requests, holds the event loop: nobody else is
    answered meanwhile."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._began = perf_counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._counters.held(perf_counter() - self._began)
