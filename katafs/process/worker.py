"""What goes on in a worker, in the process that was forked for it; and what it may take."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import resource
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection

from katafs.errors import KataError

#: What a worker calls with what it was given, and before that with the file for the result, or None; one that stays
#: with a `Say`. What it returns is small.
Work = Callable[..., object]
#: says something to who waits, and waits until it was heard if it is to
Say = Callable[[object, bool], None]

#: what a worker sends: something said, the same and it waits, a line for the log, the end of a piece of work
SAID, ASKED, LOGGED, DONE = range(4)


@dataclass(frozen=True)
class Limits:
    """What a worker may take: bytes of address space, of a file, seconds of processor time, seconds for a piece of
    work, each without a limit if it is 0; and how far it stands back behind the daemon (nice(2))."""

    memory: int = 1 << 30
    file: int = 1 << 30
    processor_seconds: int = 30
    seconds: float = 60.0
    nice: int = 5

    def impose(self) -> None:
        """On the process that calls this. More memory is a MemoryError, more of the file EFBIG, more processor time
        SIGXCPU: SIGKILL would look like that of somebody else."""
        os.nice(self.nice)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limits = {"AS": self.memory, "FSIZE": self.file, "CPU": self.processor_seconds}
        for name, value in limits.items():
            if value:
                _lower(getattr(resource, f"RLIMIT_{name}"), value)


def _lower(kind: int, value: int) -> None:
    # a limit that the daemon itself has to be under stays
    hard = resource.getrlimit(kind)[1]
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    has_room = kind == resource.RLIMIT_CPU and lowest != hard
    resource.setrlimit(kind, (lowest, lowest + has_room))


def serve(task: int, output: int | None = None) -> None:
    """Do what comes by the socket ``task``, one piece of work after the other, until nobody can send any more."""
    with Connection(task) as connection, contextlib.suppress(EOFError):
        limits, stays = connection.recv()
        limits.impose()
        if stays:
            logging.getLogger().addHandler(_Forwarding(connection))
            logging.getLogger().setLevel(logging.INFO)
        say = partial(_say, connection) if stays else None
        connection.send((DONE, None, None))
        while True:
            task_data = connection.recv_bytes()
            result: object = None
            failure: BaseException | None = None
            try:
                result = _do(task_data, output, say)
            except (KataError, MemoryError) as error:
                failure = error
            except OSError as error:
                failure = OSError(error.errno, str(error))
            except Exception as error:  # noqa: BLE001 - who waits is told
                # where it was cannot be pickled, and the log is to say it
                failure = RuntimeError("".join(traceback.format_exception(error)).strip())
            try:
                connection.send((DONE, result, failure))
            except MemoryError as error:
                connection.send((DONE, None, error))


def _do(task: bytes, output: int | None, say: Say | None) -> object:
    work, arguments = pickle.loads(task)  # noqa: S301 - of who started us
    if output is None:
        return work(say, *arguments)
    with open(output, "r+b") as file:
        return work(file, *arguments)


def _say(connection: Connection, what: object, is_asked: bool) -> None:
    try:
        connection.send((ASKED if is_asked else SAID, what))
        if is_asked:
            connection.recv()
    except (OSError, EOFError):
        # Nobody hears: whoever started us was killed, and so are we, in a moment. Nothing is to be put in order.
        os._exit(1)


class _Forwarding(QueueHandler):
    """Has the log of a worker written by who started it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)  # type: ignore[arg-type] # no queue, but the next method is all that wants one

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send((LOGGED, record))  # type: ignore[attr-defined]
