"""What is done around every handler, in this one place: it is counted, and what it raises becomes an errno."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, TypeVar

import pyfuse3

from katafs.errors import KataError, LateError, unreadable
from katafs.tree.counters import Counters
from katafs.tree.nodes import refuse_write

log = logging.getLogger(__name__)

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])
_MARK = "answers_requests"


def answers(handler: _Handler) -> _Handler:
    """Say that a method is a handler, for `watch`."""
    setattr(handler, _MARK, True)
    return handler


def watch(operations: object, counters: Counters) -> None:
    """Have all handlers of an object counted by their names, and what they raise turned into errnos.

    Anything unexpected is EIO and a traceback: pyfuse3 would end the daemon for any exception but FUSEError.
    """
    for name in dir(operations):
        if hasattr(getattr(operations, name), _MARK):
            setattr(operations, name, _watched(name, getattr(operations, name), counters))


def _watched(request: str, handler: Callable[..., Awaitable[Any]], counters: Counters) -> Callable[..., Awaitable[Any]]:
    # Of some 25 microseconds of a cold request this is a third of one: all that it needs is looked up here, once.
    latency, clock = counters.latencies[request], perf_counter

    async def answer(*args: Any) -> Any:
        begun = clock()
        try:
            return await handler(*args)
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


@answers
async def refuse(*_args: object) -> None:
    """The handler of everything that would change the tree, whatever its arguments."""
    raise refuse_write()
