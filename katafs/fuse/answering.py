"""What is done around every handler, in this one place: it is counted, and what it raises becomes an errno."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Protocol, TypeVar, cast

import pyfuse3

from katafs.errors import KataError, LateError, unreadable
from katafs.tree.counters import Counters
from katafs.tree.nodes import refuse_write

log = logging.getLogger(__name__)

_Handler = TypeVar("_Handler", bound=Callable[..., Awaitable[Any]])


class _Counting(Protocol):
    counters: Counters


def answers(handler: _Handler) -> _Handler:
    """Count a request by the name of its handler, and turn what the handler raises into an errno.

    Anything unexpected is EIO and a traceback: pyfuse3 would end the daemon for any exception but FUSEError.
    """
    request = handler.__name__

    # half a microsecond with the two looks at the clock: a cold read takes some thirty
    @functools.wraps(handler)
    async def answer(operations: _Counting, *args: Any) -> Any:
        counters = operations.counters
        counters.begun += 1
        begun = perf_counter()
        try:
            return await handler(operations, *args)
        except Exception as error:  # noqa: BLE001 - raised again, as an errno
            failure = _failure(request, error)
            counters.errors[request, errno.errorcode.get(failure.errno, str(failure.errno))] += 1
            counters.conflicts += isinstance(error, LateError)
            raise failure from None if failure is error else error
        finally:
            counters.latencies[request].add(perf_counter() - begun)

    return cast(_Handler, answer)


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


def refused(request: str) -> Any:
    """A handler for a request that would change the tree, whatever its arguments."""

    async def refuse(*_args: object) -> None:
        raise refuse_write()

    refuse.__name__ = request
    return answers(refuse)
