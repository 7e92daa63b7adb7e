"""Work that may take much memory or time, or holds the GIL: in a process of its own, with limits.

The process is a worker, forked for this one piece of work by a server (`katafs.process.fork_server`) that has in memory
what it needs; or one that stays, of a `katafs.process.pool`. Nothing that this process has open is there but the file
for the result. The fork server is begun with a mount, or when there is work, and ends with this process; when it is
killed, the next one begins its work again.
"""

from __future__ import annotations

import logging
import os
from io import BufferedRandom

from katafs.errors import TooLargeError
from katafs.process import wire
from katafs.process.pool import Worker, again, functions
from katafs.process.worker import Limits, Work

__all__ = ["Limits", "Work", "attempt", "run"]

log = logging.getLogger(__name__)


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
    output = None if file is None else file.fileno()

    def once() -> object:
        if output is not None:
            # what a worker wrote that has ended
            os.lseek(output, 0, os.SEEK_SET)
            os.ftruncate(output, 0)
        worker = Worker(_modules(work, arguments), limits, output)
        try:
            return worker.call(id, work, *arguments)
        finally:
            worker.end()

    return again(once)


def _modules(work: Work, arguments: tuple[object, ...]) -> str:
    """The modules that are needed to unpickle the work: as far as they are ours, and fit."""
    known = [*(str(getattr(each, "__module__", "")) for each in functions(work))]
    known += [type(each).__module__ for each in arguments]
    ours = [name for name in dict.fromkeys(known) if name.startswith("katafs.")]
    return ",".join(["katafs.process.worker", *ours])[: wire.MESSAGE]
