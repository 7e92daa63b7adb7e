"""One piece of work, in the process that was forked for it."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Callable

from katafs.errors import KataError
from katafs.process import wire
from katafs.process.limits import Limits


def work(task: int, output: int | None = None) -> None:
    """Read what is to be done from the socket ``task``, do it, and write what came of it, or why nothing did.

    Without limits it is called with the socket, and does the rest itself.
    """
    with socket.socket(fileno=task) as end:
        result: object = None
        failure: BaseException | None = None
        try:
            with end.makefile("rb") as incoming:
                limits, call, arguments = pickle.load(incoming)  # noqa: S301 - from our parent
            if limits is None:
                # one that stays (`katafs.process.pool`)
                call(end)
                return
            result = _called(limits, output, call, arguments)
        except (KataError, MemoryError) as error:
            failure = error
        except OSError as error:
            failure = OSError(error.errno, str(error))
        except Exception as error:  # noqa: BLE001 - the parent is told
            failure = RuntimeError(repr(error))
        try:
            answer = pickle.dumps((result, failure), pickle.HIGHEST_PROTOCOL)
        except MemoryError as error:
            answer = pickle.dumps((None, error), pickle.HIGHEST_PROTOCOL)
        end.sendall(wire.LENGTH.pack(len(answer)))
        end.sendall(answer)


def _called(limits: Limits, output: int | None, call: Callable[..., object], arguments: tuple[object, ...]) -> object:
    limits.impose()
    if output is None:
        return call(None, *arguments)
    with open(output, "r+b") as file:
        return call(file, *arguments)
