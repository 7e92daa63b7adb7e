"""Workers as this process sees them; and some that stay, for work that comes again and again, takes a processor for a
moment, and must not hold the GIL of the daemon meanwhile.

A worker is given one piece of work after the other. In the course of its work one that stays may say something, and may
wait until that was heard.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from katafs.errors import ExhaustedError, StorageError, TooLargeError
from katafs.process import wire
from katafs.process.starting import shared_fork_server
from katafs.process.worker import ASKED, DONE, LOGGED, Limits, Say, Work

__all__ = ["LeftError", "Limits", "Pool", "Say", "SlowError", "Work", "Worker"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_IDLE_SECONDS = 60.0
# until a worker has begun; until one of a pool is there
_START_SECONDS, _PATIENCE_SECONDS = 30.0, 20.0
_TRIES = 3  # whoever is killed need not have taken too much
_NO_LIMITS = Limits(0, 0, 0, 0.0)


class LeftError(Exception):
    """There is no worker any more, and no answer, nobody knows why: it may have been killed. The exit status, negative
    for a signal; None where nobody knows."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class SlowError(TooLargeError):
    """It takes more seconds than it may."""


def again(once: Callable[[], _T]) -> _T:
    """What is begun again when its worker has ended. Raises `ExhaustedError` when that is so each time."""
    for _ in range(_TRIES):
        try:
            return once()
        except LeftError as error:
            log.info("%s, and its work is begun again", error)
    raise ExhaustedError("whoever is to do it ends each time", errno.EAGAIN)


class Worker:
    """One that has begun. Raises `ExhaustedError` or `LeftError` when none has."""

    def __init__(self, modules: str, limits: Limits, output: int | None = None, *, stays: bool = False) -> None:
        """``modules`` are those that its work needs, ``output`` the descriptor of the file for its result."""
        self._limits = limits
        self._open = contextlib.ExitStack()
        self.is_there = True
        self.subject: object = None
        self.last_used = time.monotonic()
        self._connection, self._ending = self._open.enter_context(shared_fork_server().start(modules, output))
        try:
            self._send(pickle.dumps((limits, stays)))
            self._received(_START_SECONDS)
        except BaseException as error:
            self.end()
            if isinstance(error, TimeoutError):
                raise ExhaustedError(f"a worker did not begin within {_START_SECONDS:g} s", errno.EAGAIN) from error
            raise

    def call(self, hear: Callable[[Any], object], work: Work, *arguments: object) -> object:
        """``work(…, *arguments)`` in the other process; ``hear`` is called with what it says.

        Returns, or raises, what it does. Raises `TooLargeError` (EFBIG) when it takes more than its limits, `SlowError`
        when it is silent for too long, `LeftError`; then it has been ended.
        """
        limits, what = self._limits, _described(work, self.subject, *arguments)
        try:
            self._send(pickle.dumps((work, arguments), pickle.HIGHEST_PROTOCOL))
            while (message := self._received(limits.seconds))[0] != DONE:
                kind, said = message
                if kind != LOGGED:
                    hear(said)
                elif (logger := logging.getLogger(said.name)).isEnabledFor(said.levelno):
                    logger.handle(said)
                if kind == ASKED:
                    self._send(pickle.dumps(None))
        except BaseException as error:
            # in the middle of a conversation
            self.end()
            if isinstance(error, TimeoutError):
                raise SlowError(f"{what} takes more than {limits.seconds:g} s") from error
            if isinstance(error, LeftError) and error.status == -signal.SIGXCPU:
                raise TooLargeError(f"{what} takes more than {limits.processor_seconds} s of processor time") from error
            raise
        self.last_used = time.monotonic()
        _, result, failure = message
        if isinstance(failure, MemoryError):
            # what it has not given back would be missed by the next one
            self.end()
        if failure is not None:
            raise self._raised(failure, what)
        return result

    def is_gone(self) -> bool:
        """Whether it has ended, when it has nothing to do: then it says nothing."""
        try:
            return self._connection.poll()
        except OSError:
            return True

    def end(self) -> None:
        self.is_there = False
        self._open.close()

    def _send(self, message: bytes) -> None:
        with self._hearing_of_its_end():
            self._connection.send_bytes(message)

    def _received(self, seconds: float) -> Any:
        """What it sends next. Raises TimeoutError, `LeftError`."""
        with self._hearing_of_its_end():
            if self._connection.poll(seconds or None):
                return self._connection.recv()
        raise TimeoutError

    @contextlib.contextmanager
    def _hearing_of_its_end(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            # nobody takes what is sent, or sends the rest of an answer
            raise TimeoutError from None
        except (EOFError, OSError) as error:
            # also in the middle of a message
            raise self._left() from error

    def _left(self) -> Exception:
        """How it ended, or why it was never there."""
        self._ending.settimeout(5)
        said = b""
        with contextlib.suppress(OSError):
            said = self._ending.recv(wire.ENDED.size)
        if len(said) < wire.ENDED.size:
            return LeftError("a worker ended with its fork server")
        kind, value = wire.ENDED.unpack(said)
        if kind == wire.NOT_STARTED:
            return ExhaustedError(f"no process can be started: {os.strerror(value)}", value or errno.EAGAIN)
        return LeftError(f"a worker ended with {f'signal {-value}' if value < 0 else f'exit status {value}'}", value)

    def _raised(self, failure: BaseException, what: str) -> BaseException:
        """What is to be raised for what work has raised in its process: nothing else where there is no limit."""
        memory, file = self._limits.memory, self._limits.file
        is_exhausted = isinstance(failure, ExhaustedError) and failure.errno == errno.ENOMEM
        if memory and (is_exhausted or isinstance(failure, MemoryError)):
            return TooLargeError(f"{what} takes more than {memory >> 20} MiB of memory")
        if not file or not isinstance(failure, OSError):
            return failure
        if failure.errno == errno.EFBIG:
            return TooLargeError(f"{what} takes more than {file >> 20} MiB for its result")
        return StorageError(f"the result of {what} cannot be kept: {failure}", failure.errno or errno.EIO)


def functions(value: object) -> Iterator[object]:
    """The functions in a partial of partials, the outermost first."""
    if isinstance(value, partial):
        for part in (value.func, *value.args):
            yield from functions(part)
    elif callable(value):
        yield value


def _described(work: Work, *about: object) -> str:
    """The function that does the work, at the heart of all partials; and what it is done to."""
    *_, last = functions(work)
    where = [str(each) for each in about if isinstance(each, (str, os.PathLike))]
    return " ".join([str(getattr(last, "__name__", last)), *where])


class Pool:
    """Some workers that stay. Any thread may call its methods."""

    def __init__(self, most: int, modules: tuple[str, ...], limits: Limits = _NO_LIMITS) -> None:
        """``most`` workers; ``modules`` are those that their work needs."""
        self._most, self._limits = most, limits
        #: what its fork server needs to have loaded
        self.modules = ",".join(["katafs.process.worker", *modules])
        self._changed = threading.Condition()
        self._idle: list[Worker] = []
        self._count = 0

    def do(self, subject: object, work: Work, *arguments: object) -> object:
        """``work(say, *arguments)`` by one of them, which is not heard on its way. Raises what `Worker.call` does, but
        what is killed is begun again; `ExhaustedError` when that is so each time, or when none can be started."""

        def once() -> object:
            worker = self.take(_PATIENCE_SECONDS, subject)
            if worker is None:
                # it may have been killed as it began
                raise LeftError("no worker has begun")
            try:
                return worker.call(id, work, *arguments)
            finally:
                self.give_back(worker)

        return again(once)

    def take(self, seconds: float = 0.0, subject: object = None) -> Worker | None:
        """A worker that has nothing to do, to be given back; None if there is none for so long, but maybe soon. The one
        that worked on that subject last, if that is idle: it has in memory what it read."""
        with self._changed:
            # those that were killed when they had nothing to do
            for worker in [worker for worker in self._idle if worker.is_gone()]:
                self._idle.remove(worker)
                self._count -= 1
                worker.end()
            if not self._idle and self._count < self._most:
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
        """To be called from time to time: ends those that have had nothing to do for some time."""
        now = time.monotonic()
        with self._changed:
            old = [worker for worker in self._idle if now - worker.last_used > _IDLE_SECONDS]
            self._idle = [worker for worker in self._idle if worker not in old]
            self._count -= len(old)
        for worker in old:
            worker.end()

    def _start(self) -> None:
        try:
            worker = Worker(self.modules, self._limits, stays=True)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody is to wait for it
            log.info("no worker can be started: %s", error)
            with self._changed:
                self._count -= 1
                self._changed.notify_all()
            return
        self.give_back(worker)
