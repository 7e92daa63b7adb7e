"""Workers that stay: for work that comes again and again, takes a processor for a moment, and must not hold the GIL of
the daemon meanwhile.

Such a worker (`serve`) is started as others are, with no limit but one of memory, and is given one piece of work after
the other. In the course of its work it may say something, and may wait until that was heard.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection
from typing import Any

from katafs.errors import KataError
from katafs.process.starting import shared_fork_server
from katafs.process.worker import bug, limit_memory

log = logging.getLogger(__name__)

#: What a worker calls: with what says something, and waits until it was heard if it is to; then what it was given.
Say = Callable[[object, bool], None]
StandingWork = Callable[..., object]

# what a worker sends: something said, the same and it waits, a line for the log, the end of the work
_SAID, _ASKED, _LOGGED, _DONE = range(4)
_IDLE_SECONDS = 60.0
_START_SECONDS, _TRIES = 30.0, 3


class LeftError(Exception):
    """The worker ended in the middle of its work, nobody knows where."""


class Pool:
    """Some workers that stay. Any thread may call its methods."""

    def __init__(self, most: int, modules: tuple[str, ...], memory: int | None = None, nice: int = 5) -> None:
        """``most`` workers of ``memory`` bytes of address space, ``nice`` behind the daemon, for which more people
        wait; ``modules`` are those that their work needs."""
        self._most, self._serve = most, partial(serve, memory, nice)
        #: what its fork server needs to have loaded
        self.modules = ",".join(["katafs.process.worker", __name__, *modules])
        self._changed = threading.Condition()
        self._idle: list[Worker] = []
        self._count = 0
        self._in_vain_until = 0.0

    def take(self, seconds: float = 0.0, subject: object = None, *, is_needed: bool = False) -> Worker | None:
        """A worker that has nothing to do, to be given back; None if there is none for so long, but maybe soon. The one
        that worked on that subject last, if that is idle: it has in memory what it read. ``is_needed``: who asks cannot
        do without, and has one started also where that has failed a moment ago, or fails now: it may have been killed
        as it began."""
        end = time.monotonic() + seconds
        for _ in range(_TRIES if is_needed else 1):
            worker = self._take(max(end - time.monotonic(), 0.0), subject, is_needed=is_needed)
            if worker is not None:
                return worker
        return None

    def _take(self, seconds: float, subject: object, *, is_needed: bool) -> Worker | None:
        with self._changed:
            # those that were killed when they had nothing to do
            for worker in [worker for worker in self._idle if worker.is_gone()]:
                self._idle.remove(worker)
                self._count -= 1
                worker.end()
            may_start = is_needed or time.monotonic() >= self._in_vain_until
            if not self._idle and self._count < self._most and may_start:
                # else there is no thread either, and whoever asks will have to do without
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=self._start, name="starting", daemon=True).start()
                    self._count += 1
            # none may come, if none can be started
            self._changed.wait_for(lambda: self._idle or not self._count, seconds)
            if not self._idle:
                return None
            worker = next((each for each in reversed(self._idle) if each.subject == subject), self._idle[-1])
            self._idle.remove(worker)
            worker.subject = subject
            return worker

    def give_back(self, worker: Worker) -> None:
        """The worker has done its work, or has ended."""
        with self._changed:
            if worker.is_there:
                self._idle.append(worker)
            else:
                self._count -= 1
            self._changed.notify_all()

    def reap_idle(self) -> None:
        now = time.monotonic()
        with self._changed:
            old = [worker for worker in self._idle if now - worker.last_used > _IDLE_SECONDS]
            self._idle = [worker for worker in self._idle if worker not in old]
            self._count -= len(old)
        for worker in old:
            worker.end()

    def _start(self) -> None:
        try:
            worker = Worker(self.modules, self._serve)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is to wait for it
            log.info("no worker can be started: %s", error)
            with self._changed:
                self._count -= 1
                # to find that out takes as long as some commits
                self._in_vain_until = time.monotonic() + _IDLE_SECONDS
                self._changed.notify_all()
            return
        self.give_back(worker)


class Worker:
    """One that stays, as this process sees it. Raises `ExhaustedError`, OSError or EOFError when it cannot be."""

    def __init__(self, modules: str, be: Callable[[Connection], None]) -> None:
        self._open = contextlib.ExitStack()
        self.is_there = True
        self.subject: object = None
        self.last_used = time.monotonic()
        with contextlib.ExitStack() as failed:
            failed.callback(self._open.close)
            self._connection, _ = self._open.enter_context(shared_fork_server().start(modules, None))
            self._connection.send((None, be, ()))
            if not self._connection.poll(_START_SECONDS):
                raise TimeoutError(f"it did not begin within {_START_SECONDS:g} s")
            self._connection.recv()
            failed.pop_all()

    def call(
        self, hear: Callable[[Any], object], work: StandingWork, *arguments: object, seconds: float | None = None
    ) -> object:
        """``work(say, *arguments)`` in the other process; ``hear`` is called with what it says.

        Returns, or raises, what it does. Raises `LeftError`, and TimeoutError when it is silent for so many seconds;
        then it has been ended.
        """
        try:
            self._connection.send((work, arguments))
            while True:
                kind, *told = self._received(seconds)
                if kind == _DONE:
                    break
                if kind == _LOGGED:
                    logger = logging.getLogger(told[0].name)
                    if logger.isEnabledFor(told[0].levelno):
                        logger.handle(told[0])
                    continue
                hear(told[0])
                if kind == _ASKED:
                    self._connection.send(None)
        except BaseException as error:
            # in the middle of a conversation
            self.end()
            if isinstance(error, (OSError, EOFError)) and not isinstance(error, TimeoutError):
                raise LeftError(str(error)) from error
            raise
        self.last_used = time.monotonic()
        result, failure = told
        if isinstance(failure, MemoryError):
            # what it has not given back would be missed by the next one
            self.end()
        if failure is not None:
            raise failure
        return result

    def _received(self, seconds: float | None) -> Any:
        if not self._connection.poll(seconds):
            raise TimeoutError(f"no answer within {seconds} s")
        return self._connection.recv()

    def is_gone(self) -> bool:
        """Whether it has ended, when it has nothing to do: then it says nothing."""
        try:
            return self._connection.poll()
        except OSError:
            return True

    def end(self) -> None:
        self.is_there = False
        self._open.close()


def serve(memory: int | None, nice: int, connection: Connection) -> None:
    """In the worker: do what comes, until nobody can send any more."""
    os.nice(nice)
    if memory is not None:
        limit_memory(memory)
    logging.getLogger().addHandler(_Forwarding(connection))
    logging.getLogger().setLevel(logging.INFO)

    def say(what: object, is_asked: bool) -> None:
        try:
            connection.send((_ASKED if is_asked else _SAID, what))
            if is_asked:
                connection.recv()
        except (OSError, EOFError):
            # Nobody hears: whoever started us was killed, and so are we, in a moment. Nothing is to be put in order.
            os._exit(1)

    connection.send(None)
    with contextlib.suppress(EOFError):
        while True:
            work, arguments = connection.recv()
            result: object = None
            failure: BaseException | None = None
            try:
                result = work(say, *arguments)
            except (KataError, MemoryError) as error:
                failure = error
            except Exception as error:  # noqa: BLE001 - who waits is told
                failure = bug(error)
            connection.send((_DONE, result, failure))


class _Forwarding(QueueHandler):
    """Has the log of a worker written by who started it."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)  # type: ignore[arg-type] # no queue, but the next method is all that wants one

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.send((_LOGGED, record))  # type: ignore[attr-defined]
