"""Making what is slow to make: in worker threads, each kind with places of its own, so that none keeps another out; and
no kata another (`katafs.fuse.fair`)."""

from __future__ import annotations

from collections import Counter

import trio

from katafs.errors import BusyError, KataError, TooLargeError
from katafs.fuse.fair import Places, User
from katafs.tree.nodes import Later, Node, Work
from katafs.tree.tree import Tree

#: Requests that wait for something slow. Each holds one of those that pyfuse3 handles at a time.
MOST_WAITING = 320
# of one kata
_MOST_OF_A_KATA = 100
# threads, which share the GIL; processes, with up to a GiB each
_PLACES = {"text": 8, "diff": 8, "download": 4, "blob": 4, "page": 2, "process": 2}


class _Making:
    """What is being made for those who wait for it."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.failure: KataError | None = None


class Preparer:
    """Has nodes make their contents. Belongs to the event loop."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._making: dict[int, _Making] = {}
        self._waiting: Counter[str] = Counter()
        self._places = {kind: Places(places) for kind, places in _PLACES.items()}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting.total()

    async def prepared(self, node: Node) -> Node:
        """The node with its content made, once for all who ask at the same time; so is its failure.

        Raises what its work raises, and `BusyError` when too many wait already.
        """
        while (work := node.prepare()) is not None:
            kata_id = node.key.kata
            if self.waiting >= MOST_WAITING or self._waiting[kata_id] >= _MOST_OF_A_KATA:
                raise BusyError(f"{self.waiting} slow requests wait already, {self._waiting[kata_id]} of this kata")
            self._waiting[kata_id] += 1
            try:
                making = self._making.get(node.number)
                if making is None:
                    await self._make(node, work)
                    return node
                await making.done.wait()
            finally:
                self._waiting[kata_id] -= 1
                self._waiting += Counter()
                self._tree.ctx.store.new_epoch()
            if making.failure is not None:
                raise making.failure
            node = self._tree.node(node.number)
        return node

    async def _make(self, node: Node, work: Work) -> None:
        making = self._making[node.number] = _Making()
        try:
            user = node.owner.uid, node.key.kata
            result = await self._run(node.queue, user, work)
            if isinstance(result, Later):
                result = await self._run("process", user, result.make)
            node.prepared(result)
        except KataError as error:
            making.failure = error
            if isinstance(error, TooLargeError):
                node.too_large(error)
            raise
        finally:
            del self._making[node.number]
            making.done.set()

    async def _run(self, kind: str, user: User, work: Work) -> object:
        async with self._places[kind].place(user):
            self._tree.ctx.spool.make_room()
            try:
                # abandoned at the end of the daemon only, which does not wait for what nobody will read
                return await trio.to_thread.run_sync(work, limiter=trio.CapacityLimiter(1), abandon_on_cancel=True)
            finally:
                self._tree.ctx.store.new_epoch()
