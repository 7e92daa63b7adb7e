"""Work that may take much memory or time, or holds the GIL: in a process of its own, with limits.

The process is a worker, forked for this one piece of work by a server (`katafs.process.fork_server`) that has in memory
what it needs. Nothing that this process has open is there but the file for the result. The fork server is begun with a
mount, or when there is work or soon will be, and ends with this process, or when nobody has wanted it for some minutes;
when it is killed, the next one begins its work again.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedRandom

from katafs.errors import ExhaustedError, StorageError, TooLargeError
from katafs.process import wire
from katafs.process.starting import Gone, shared_fork_server
from katafs.process.worker import Limits

__all__ = ["Limits", "Work", "attempt", "run"]

log = logging.getLogger(__name__)

#: What a worker calls: with the file for its result (or None), then what it was given. What it returns is small.
Work = Callable[..., object]

_TRIES = 3


def run(limits: Limits, file: BufferedRandom | None, work: Work, *arguments: object) -> object:
    """``work(file, *arguments)`` in a process of its own; returns what it returns, or raises the `KataError` it raises.

    To be called in any thread that may wait. Raises `TooLargeError` (EFBIG), with a line in the log, when the process
    takes more than its limits, and `ExhaustedError` when it cannot be started.
    """
    try:
        return attempt(limits, file, work, *arguments)
    except TooLargeError as error:
        log.warning("%s, and is refused", error)
        raise


def attempt(limits: Limits, file: BufferedRandom | None, work: Work, *arguments: object) -> object:
    """The same without a line in the log."""
    task = pickle.dumps((limits, work, arguments), pickle.HIGHEST_PROTOCOL)
    output = None if file is None else file.fileno()
    for number in range(_TRIES):
        if number and output is not None:
            # what a worker wrote that died with its fork server
            os.lseek(output, 0, os.SEEK_SET)
            os.ftruncate(output, 0)
        try:
            result, failure = _ask(limits, output, task, _modules(work, arguments))
        except TimeoutError as error:
            raise _too_large(work, arguments, f"{limits.seconds:g} s") from error
        except _KilledError as killed:
            if killed.status == -signal.SIGXCPU:
                raise _too_large(work, arguments, f"{limits.processor_seconds} s of processor time") from killed
            log.info("%s: %s, and is begun again", _name(work), killed)
            continue
        except Gone:
            continue
        if failure is not None:
            raise _raised(limits, failure, work, arguments)
        return result
    raise ExhaustedError(f"{_name(work)}: whoever is to do it ends again and again", errno.EAGAIN)


class _KilledError(Exception):
    """The worker ended without an answer: its exit status, negative for a signal. Who killed it, nobody knows."""

    def __init__(self, status: int) -> None:
        super().__init__(f"a worker ended with {f'signal {-status}' if status < 0 else f'exit status {status}'}")
        self.status = status


def _ask(limits: Limits, output: int | None, task: bytes, modules: str) -> tuple[object, BaseException | None]:
    """What the work returns in a worker, and raises. Raises TimeoutError, `_KilledError`, `Gone`."""
    with shared_fork_server().start(modules, output) as (connection, ending):
        try:
            connection.send_bytes(task)
            if connection.poll(limits.seconds):
                answer: tuple[object, BaseException | None] = connection.recv()
                return answer
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise _KilledError(_ended(ending)) from error
        except BlockingIOError:
            pass  # nobody takes what is sent, or sends the rest of an answer
    raise TimeoutError


def _ended(ending: socket.socket) -> int:
    """How a worker ended. Raises `Gone` when it died with its fork server, `ExhaustedError` when it was never there."""
    ending.settimeout(5)
    try:
        said = ending.recv(wire.ENDED.size)
    except OSError as error:
        raise Gone from error
    if len(said) < wire.ENDED.size:
        raise Gone
    kind, value = wire.ENDED.unpack(said)
    if kind == wire.NOT_STARTED:
        raise ExhaustedError(f"no process can be started: {os.strerror(value)}", value or errno.EAGAIN)
    return int(value)


def _raised(limits: Limits, failure: BaseException, work: Work, arguments: tuple[object, ...]) -> BaseException:
    """What is to be raised for what work has raised in its process."""
    if isinstance(failure, MemoryError) or (isinstance(failure, ExhaustedError) and failure.errno == errno.ENOMEM):
        return _too_large(work, arguments, f"{limits.memory >> 20} MiB of memory")
    if isinstance(failure, OSError) and failure.errno == errno.EFBIG:
        return _too_large(work, arguments, f"{limits.file >> 20} MiB for its result")
    if isinstance(failure, OSError):
        return StorageError(f"the result of {_name(work)} cannot be kept: {failure}", failure.errno or errno.EIO)
    return failure


def _functions(value: object) -> Iterator[object]:
    """The functions in a partial of partials, the outermost first."""
    if isinstance(value, partial):
        for part in (value.func, *value.args):
            yield from _functions(part)
    elif callable(value):
        yield value


def _name(work: Work) -> str:
    """The function that does the work, at the heart of all partials."""
    *_, last = _functions(work)
    return str(getattr(last, "__name__", last))


def _modules(work: Work, arguments: tuple[object, ...]) -> str:
    """The modules that are needed to unpickle the work: as far as they are ours, and fit."""
    known = [*(str(getattr(each, "__module__", "")) for each in _functions(work))]
    known += [type(each).__module__ for each in arguments]
    ours = [name for name in dict.fromkeys(known) if name.startswith("katafs.")]
    return ",".join(["katafs.process.worker", *ours])[: wire.MESSAGE]


def _too_large(work: Work, arguments: tuple[object, ...], limit: str) -> TooLargeError:
    where = [str(each) for each in arguments if isinstance(each, (str, os.PathLike))]
    what = " ".join([_name(work), *where])
    return TooLargeError(f"{what} takes more than {limit}")
