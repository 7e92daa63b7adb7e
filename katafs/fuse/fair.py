"""Slow work, in worker threads: each kind has places of its own, given to those who wait in turn, so that nobody who
asks for much keeps another out.

Who asks is told by whom a kata belongs to, and then by the kata: where it opens files by itself the kernel does not say
who reads; and at many sites all katas belong to one service, which asks for everybody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import trio

from katafs.errors import BusyError, TooLargeError
from katafs.tree.answers import QUESTIONS
from katafs.tree.nodes import Later, Node, Work
from katafs.tree.tree import Tree

#: Requests that wait for something slow. Each holds one of those that pyfuse3 handles at a time.
MOST_WAITING = 320
# threads, which share the GIL; processes, with up to a GiB each
_PLACES = {"text": 8, "diff": 8, "download": 4, "blob": 4, "page": 2, "process": 2}
#: the owner of a kata, and its id
User = tuple[int, str]

_T = TypeVar("_T")


class Waiters:
    """Counts those who wait for something slow: ``most``, and ``of_a_kata`` of one. Belongs to the event loop."""

    def __init__(self, most: int, of_a_kata: int = 100) -> None:
        self._most, self._of_a_kata = most, of_a_kata
        self._of: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return self._of.total()

    @contextmanager
    def one(self, kata_id: str) -> Iterator[None]:
        """One more as long as it waits. Raises `BusyError` when too many do."""
        if self.count >= self._most or self._of[kata_id] >= self._of_a_kata:
            raise BusyError(f"{self.count} slow requests wait already, {self._of[kata_id]} of this kata")
        self._of[kata_id] += 1
        try:
            yield
        finally:
            self._of[kata_id] -= 1
            self._of += Counter()


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
        """Wait for a place, and have it."""
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
    result: _T
    failure: Exception | None = None

    def __init__(self) -> None:
        self.done = trio.Event()


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


class Preparer:
    """Has nodes make their contents. Belongs to the event loop."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._once: Once[Node] = Once()
        self.waiters = Waiters(MOST_WAITING)
        self._places = {kind: Places(places) for kind, places in _PLACES.items()}

    async def prepared(self, node: Node) -> Node:
        """The node with its content made, once for all who ask at the same time; so is its failure. Raises what its
        work raises, and `BusyError` when too many wait already."""
        while (work := node.prepare()) is not None:
            try:
                with self.waiters.one(node.key.kata):
                    # what somebody else had made may be older than the question
                    if await self._once.of(node.number, partial(self._make, node, work)) is node:
                        return node
            finally:
                self._tree.ctx.store.new_epoch()
            node = self._tree.node(node.number)
        return node

    async def ask(self, name: str, inode: int, *arguments: object) -> Any:
        prepares, ask = QUESTIONS[name]
        node = self._tree.node(inode)
        if prepares is True or (prepares and prepares(node)):
            node = await self.prepared(node)
        return ask(self._tree, node, *arguments)

    async def _make(self, node: Node, work: Work) -> Node:
        user = node.owner.uid, node.key.kata
        try:
            result = await self._run(node.queue, user, work)
            if isinstance(result, Later):
                result = await self._run("process", user, result.make)
            node.prepared(result)
        except TooLargeError as error:
            node.too_large(error)
            raise
        return node

    async def _run(self, kind: str, user: User, work: Work) -> object:
        async with self._places[kind].place(user):
            self._tree.ctx.spool.make_room()
            try:
                # abandoned at the end of the daemon only, which does not wait for what nobody will read
                return await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
            finally:
                self._tree.ctx.store.new_epoch()
