"""Making what is slow to make: in worker threads, each kind with a limit of its own, so that none keeps another out."""

from __future__ import annotations

from collections import Counter

import trio

from katafs.errors import BusyError, KataError, TooLargeError
from katafs.tree.nodes import Later, Maker, Node
from katafs.tree.tree import Tree

#: Requests that wait for something slow. Each holds one of those that pyfuse3 handles at a time.
MOST_WAITING = 160
# of one kind, for different things
_MOST_OF_A_KIND = 48
# threads, which share Python's lock; processes, with up to a GiB each
_THREADS = {"text": 8, "diff": 8, "download": 4, "blob": 4}
_PROCESSES = 2


class _Making:
    """What is being made for those who wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: KataError | None = None


class Makers:
    """Has nodes make their contents. Belongs to the event loop."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._making: dict[int, _Making] = {}
        self._kinds: Counter[str] = Counter()
        self._waiting = 0
        self._threads = {kind: trio.CapacityLimiter(threads) for kind, threads in _THREADS.items()}
        self._processes = trio.CapacityLimiter(_PROCESSES)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting

    async def made(self, node: Node) -> Node:
        """The node with its content made, once for all who ask at the same time; so is its failure.

        Raises what its maker raises, and `BusyError` when too many wait already.
        """
        while (maker := node.to_make()) is not None:
            if self._waiting >= MOST_WAITING:
                raise BusyError(f"{self._waiting} slow requests wait already")
            self._waiting += 1
            try:
                making = self._making.get(node.number)
                if making is None:
                    await self._make(node, maker)
                    return node
                await making.done.wait()
            finally:
                self._waiting -= 1
            if making.failure is not None:
                raise making.failure
            node = self._tree.node(node.number)
        return node

    async def _make(self, node: Node, maker: Maker) -> None:
        making = self._making[node.number] = _Making()
        try:
            result = await self._run(node.slowness, self._threads[node.slowness], maker)
            if isinstance(result, Later):
                result = await self._run("process", self._processes, result.make)
            node.made(result)
        except KataError as error:
            making.failure = error
            if isinstance(error, TooLargeError):
                node.too_large(error)
            raise
        finally:
            del self._making[node.number]
            making.done.set()

    async def _run(self, kind: str, limiter: trio.CapacityLimiter, maker: Maker) -> object:
        if self._kinds[kind] >= _MOST_OF_A_KIND:
            raise BusyError(f"{self._kinds[kind]} requests of the kind {kind!r} wait already")
        self._tree.ctx.spool.make_room()
        self._kinds[kind] += 1
        try:
            # abandoned at the end of the daemon only, which does not wait for what nobody will read
            return await trio.to_thread.run_sync(maker, limiter=limiter, abandon_on_cancel=True)
        finally:
            self._tree.ctx.store.look_again()
            self._kinds[kind] -= 1
