"""Places for slow work, given to those who wait in turn, so that nobody who asks for much keeps another out.

Who asks is told by whom a kata belongs to, and then by the kata: where it opens files by itself the kernel does not say
who reads; and at many sites all katas belong to one service, which asks for everybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio

from katafs.errors import BusyError

#: the owner of a kata, and its id
User = tuple[int, str]

_T = TypeVar("_T")

# that wait for one kind of work, of one kata
_MOST_OF_A_KATA = 100


class Places:
    """So many ``places``. One kata has half of them at most. Belongs to the event loop."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._of_one = (places + 1) // 2
        self._queue: list[tuple[User, trio.Event]] = []
        # who has places, by owner and by kata
        self._held: Counter[int | str] = Counter()
        self._taken = 0
        # when somebody was last given one: a number that grows
        self._last: dict[int | str, int] = {}
        self._given = 0

    @asynccontextmanager
    async def place(self, user: User) -> AsyncIterator[None]:
        """Wait for a place, and have it. Raises `BusyError`."""
        if sum(other[1] == user[1] for other, _ in self._queue) >= _MOST_OF_A_KATA:
            raise BusyError(f"too much waits already that is slow to be made of kata {user[1]}")
        waiting = (user, trio.Event())
        self._queue.append(waiting)
        self._next()
        try:
            await waiting[1].wait()
            yield
        finally:
            if waiting in self._queue:
                self._queue.remove(waiting)
            else:
                self._taken -= 1
                self._held.subtract(user)
                self._held += Counter()
            self._next()

    def _next(self) -> None:
        while self._taken < self._places:
            waiting = [each for each in self._queue if self._held[each[0][1]] < self._of_one]
            if not waiting:
                return
            user, turn = first = min(waiting, key=self._order)
            self._queue.remove(first)
            self._taken += 1
            self._held.update(user)
            self._given += 1
            self._last.update(dict.fromkeys(user, self._given))
            turn.set()
        if not self._queue and not self._taken:
            self._last.clear()

    def _order(self, waiting: tuple[User, trio.Event]) -> list[int]:
        """Who has fewest places, and was given one longest ago, is first: among owners, then among the katas of one."""
        return [number for who in waiting[0] for number in (self._held[who], self._last.get(who, 0))]


class _Making(Generic[_T]):
    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: _T
        self.failure: Exception | None = None


class Once(Generic[_T]):
    """What several ask for at the same time is made for the first; the others have what he has, or its failure."""

    def __init__(self) -> None:
        self._making: dict[Hashable, _Making[_T]] = {}

    async def of(self, key: Hashable, make: Callable[[], Awaitable[_T]]) -> _T:
        """What is made under a key. Raises what ``make`` does."""
        making = self._making.get(key)
        if making is not None:
            await making.done.wait()
        else:
            making = self._making[key] = _Making()
            try:
                making.result = await make()
            except Exception as error:  # noqa: BLE001 - raised below
                making.failure = error
            finally:
                del self._making[key]
                making.done.set()
        if making.failure is not None:
            raise making.failure
        return making.result
