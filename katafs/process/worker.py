"""One piece of work, in the process that was forked for it; and what it may take."""

from __future__ import annotations

import os
import resource
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection

from katafs.errors import KataError


@dataclass(frozen=True)
class Limits:
    """What one process may take: bytes of address space, of a file, seconds of processor time, seconds in all; and how
    far it stands back behind the daemon (nice(2))."""

    memory: int = 1 << 30
    file: int = 1 << 30
    processor_seconds: int = 30
    seconds: float = 60.0
    nice: int = 5

    def impose(self) -> None:
        """On the process that calls this. More of the file is EFBIG, more processor time SIGXCPU: SIGKILL would look
        like that of somebody else."""
        os.nice(self.nice)
        limit_memory(self.memory)
        _lower(resource.RLIMIT_FSIZE, self.file)
        _lower(resource.RLIMIT_CPU, self.processor_seconds)
        _lower(resource.RLIMIT_CORE, 0)


def limit_memory(size: int) -> None:
    """Have this process take no more address space than so many bytes: more is a MemoryError."""
    _lower(resource.RLIMIT_AS, size)


def _lower(kind: int, value: int) -> None:
    # a limit that the daemon itself has to be under stays
    hard = resource.getrlimit(kind)[1]
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    has_room = kind == resource.RLIMIT_CPU and lowest != hard
    resource.setrlimit(kind, (lowest, lowest + has_room))


def work(task: int, output: int | None = None) -> None:
    """Read what is to be done from the socket ``task``, do it, and write what came of it, or why nothing did.

    Without limits it is called with the connection, and does the rest itself.
    """
    result: object = None
    failure: BaseException | None = None
    with Connection(task) as connection:
        try:
            limits, call, arguments = connection.recv()
            if limits is None:
                # one that stays (`katafs.process.pool`)
                call(connection)
                return
            result = _called(limits, output, call, arguments)
        except (KataError, MemoryError) as error:
            failure = error
        except OSError as error:
            failure = OSError(error.errno, str(error))
        except Exception as error:  # noqa: BLE001 - the parent is told
            failure = bug(error)
        try:
            connection.send((result, failure))
        except MemoryError as error:
            connection.send((None, error))


def bug(error: Exception) -> RuntimeError:
    """What the parent is told of a fault of katafs itself: where it was cannot be pickled, and the log is to say it."""
    return RuntimeError("".join(traceback.format_exception(error)).strip())


def _called(limits: Limits, output: int | None, call: Callable[..., object], arguments: tuple[object, ...]) -> object:
    limits.impose()
    if output is None:
        return call(None, *arguments)
    with open(output, "r+b") as file:
        return call(file, *arguments)
