"""What is done around every handler, in this one place: it is counted, and what it raises becomes an errno. The
handlers that are the same wherever the answer is found (`Reading`), and what the kernel is told of nodes: their
attributes, alone or in a listing."""

from __future__ import annotations

import errno
import inspect
import logging
import stat
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Any, Concatenate, cast

import pyfuse3

from katafs.errors import HeavyError, KataError, LateError, unreadable
from katafs.fuse.fastopen import Asked
from katafs.tree.context import Context
from katafs.tree.dirs.contents import PREFIX
from katafs.tree.nodes import Node, PlusEntry, refuse_write
from katafs.tree.timeouts import IMMUTABLE, NEVER
from katafs.tree.tree import Tree

log = logging.getLogger(__name__)

# Of a kata that took too long all is asked elsewhere for so long, in seconds: numbers begin with their kata's, and what
# has another number is asked here each time.
_KATA, _HEAVY_SECONDS, _MOST_HEAVY = 27, 1.0, 1_000
#: a handler of what changes something: ``handler(asked, *arguments of the request)``
WritingHandler = Callable[Concatenate[Asked, ...], Awaitable[Any]]

# the requests that pyfuse3 knows, but for the one that has no answer
_REQUESTS = [
    name
    for name, handler in vars(pyfuse3.Operations).items()
    if inspect.iscoroutinefunction(handler) and name != "forget"
]


def watch(
    operations: pyfuse3.Operations,
    writing: Mapping[str, WritingHandler],
    ctx: Context,
    elsewhere: object,
    asked: Callable[[], Asked],
) -> None:
    """Have all handlers counted by their names, and what they raise turned into errnos.

    What takes longer than the event loop may be held (`HeavyError`) is asked of the handler of the same name of
    ``elsewhere``, where there is one: nothing has been done by then. Others see to it themselves. Those ``writing`` are
    handed what the request says of itself, which is taken once: when they have waited it may be another's. Anything
    unexpected is EIO and a traceback: pyfuse3 would end the daemon for any exception but FUSEError.
    """
    for request in _REQUESTS:
        handler = writing.get(request) or getattr(operations, request)
        take = asked if request in writing else None
        other = getattr(elsewhere, request, None)
        setattr(operations, request, _watched(request, handler, ctx, other, take))


def _watched(
    request: str,
    handler: Callable[..., Awaitable[Any]],
    ctx: Context,
    elsewhere: Callable[..., Awaitable[Any]] | None,
    asked: Callable[[], Asked] | None,
) -> Callable[..., Awaitable[Any]]:
    # Of some 25 microseconds of a cold request this is a third of one: all that it needs is looked up here, once.
    counters, new_epoch, clock = ctx.counters, ctx.store.new_epoch, perf_counter
    latency, heavy = counters.latencies[request], counters.heavy

    async def answer(*args: Any) -> Any:
        begun = clock()
        if asked is not None:
            args = (asked(), *args)
        try:
            new_epoch()
            if elsewhere is None:
                return await handler(*args)
            if not heavy or heavy.get(args[0] >> _KATA, 0.0) < begun:
                try:
                    return await handler(*args)
                except HeavyError:
                    if len(heavy) >= _MOST_HEAVY:
                        heavy.clear()
                    heavy[args[0] >> _KATA] = clock() + _HEAVY_SECONDS
                    # what is above all katas has the numbers below
                    heavy.pop(0, None)
            return await elsewhere(*args)
        except Exception as error:  # noqa: BLE001 - raised again, as an errno
            failure = _failure(request, error)
            counters.errors[request, errno.errorcode.get(failure.errno, str(failure.errno))] += 1
            counters.conflicts += isinstance(error, LateError)
            raise failure from None if failure is error else error
        finally:
            latency.add(clock() - begun)

    return answer


def _failure(request: str, error: Exception) -> pyfuse3.FUSEError:
    if isinstance(error, pyfuse3.FUSEError):
        return error
    if isinstance(error, KataError):
        # an expected failure: the sentence says it all, a traceback nothing more
        log.log(logging.ERROR if error.errno == errno.EIO else logging.DEBUG, "%s: %s", request, error)
        return pyfuse3.FUSEError(error.errno)
    log.error("%s failed", request, exc_info=error)
    if isinstance(error, (MemoryError, OSError)):
        # a limit of the daemon, not met where something is read: to this request only
        return pyfuse3.FUSEError(unreadable(request, error).errno)
    return pyfuse3.FUSEError(errno.EIO)


class Reading:
    """The handlers that ask one thing of a node; heirs say where."""

    _tree: Tree

    async def ask(self, name: str, inode: int, *arguments: object) -> Any:
        raise NotImplementedError

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        node, timeout = await self.ask("dots" if name in (b".", b"..") else "lookup", parent_inode, name)
        return self._found(node.held(), timeout)

    def _found(self, node: Node, timeout: float) -> pyfuse3.EntryAttributes:
        answer = attributes(node, timeout)
        self._tree.remember_lookup(node)
        return answer

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return attributes(*await self.ask("getattr", inode))

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return cast(bytes, await self.ask("readlink", inode))

    # who asks for extended attributes once asks for each file, so they are there only where they are wanted

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        value = (await self._attributes(inode, name)).get(name)
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> list[bytes]:
        return list(await self._attributes(inode))

    async def _attributes(self, inode: int, name: bytes = PREFIX) -> dict[bytes, bytes]:
        if not self._tree.ctx.about.xattr:
            # the kernel does not ask again
            raise pyfuse3.FUSEError(errno.ENOSYS)
        found = await self.ask("attributes", inode) if name.startswith(PREFIX) else {}
        return {PREFIX + key.encode(): value.encode() for key, value in found.items()}


async def refuse(*_args: object) -> None:
    """The handler of everything that would change the tree, whatever its arguments."""
    raise refuse_write()


def reply_dots(token: pyfuse3.ReaddirToken, number: int, above: int, start: int) -> bool:
    """Hand over ``.`` and ``..``, of which the kernel looks at nothing but number and type; whether there was room."""
    answer = pyfuse3.EntryAttributes()
    answer.st_mode = stat.S_IFDIR
    answer.attr_timeout = answer.entry_timeout = NEVER
    for position, (name, answer.st_ino) in enumerate([(b".", number), (b"..", above)][start:], start + 1):
        if not pyfuse3.readdir_reply(token, name, answer, position):
            return False
    return True


def attributes(
    node: Node, entry_timeout: float, answer: pyfuse3.EntryAttributes | None = None
) -> pyfuse3.EntryAttributes:
    """What the kernel is told of a node, and for how long, in seconds, of its name; ``answer`` may have been another
    node's."""
    answer = answer or pyfuse3.EntryAttributes()
    size = node.size()
    describe_entry(answer, node, PlusEntry(b"", node.number, node.mode, size or 0, node.mtime_ns))
    answer.generation = node.generation
    answer.attr_timeout = NEVER if size is None else node.attr_timeout
    answer.entry_timeout = entry_timeout
    return answer


def describe_entry(answer: pyfuse3.EntryAttributes, directory: Node, entry: PlusEntry) -> None:
    """The same of an entry of a directory that never changes."""
    _, answer.st_ino, answer.st_mode, size, mtime_ns = entry
    answer.generation = 0
    answer.st_nlink = 1
    answer.st_uid, answer.st_gid = directory.owner
    answer.st_size = size
    # tar -S takes a file without blocks for one great hole
    answer.st_blocks = (size + 511) // 512
    answer.st_blksize = 131072
    answer.st_atime_ns = answer.st_mtime_ns = answer.st_ctime_ns = mtime_ns
    answer.attr_timeout = answer.entry_timeout = IMMUTABLE
