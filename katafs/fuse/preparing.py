"""Making what is slow to make: in worker threads, each kind with places of its own, so that none keeps another out; and
no kata another (`katafs.fuse.fair`)."""

from __future__ import annotations

from collections import Counter
from functools import partial

import trio

from katafs.errors import BusyError, TooLargeError
from katafs.fuse.fair import Once, Places, User
from katafs.tree.nodes import Later, Node, Work
from katafs.tree.tree import Tree

#: Requests that wait for something slow. Each holds one of those that pyfuse3 handles at a time.
MOST_WAITING = 320
# of one kata
_MOST_OF_A_KATA = 100
# threads, which share the GIL; processes, with up to a GiB each
_PLACES = {"text": 8, "diff": 8, "download": 4, "blob": 4, "page": 2, "process": 2}


class Preparer:
    """Has nodes make their contents. Belongs to the event loop."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._once: Once[Node] = Once()
        #: how many wait; and of each kata
        self.waiting = 0
        self._waiting: Counter[str] = Counter()
        self._places = {kind: Places(places) for kind, places in _PLACES.items()}

    async def prepared(self, node: Node) -> Node:
        """The node with its content made, once for all who ask at the same time; so is its failure.

        Raises what its work raises, and `BusyError` when too many wait already.
        """
        while (work := node.prepare()) is not None:
            kata_id = node.key.kata
            if self.waiting >= MOST_WAITING or self._waiting[kata_id] >= _MOST_OF_A_KATA:
                raise BusyError(f"{self.waiting} slow requests wait already, {self._waiting[kata_id]} of this kata")
            self.waiting += 1
            self._waiting[kata_id] += 1
            try:
                # what somebody else had made may be older than the question
                if await self._once.of(node.number, partial(self._make, node, work)) is node:
                    return node
            finally:
                self.waiting -= 1
                self._waiting[kata_id] -= 1
                self._waiting += Counter()
                self._tree.ctx.store.new_epoch()
            node = self._tree.node(node.number)
        return node

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
