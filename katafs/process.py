"""Work that may take much memory or time, or holds Python's lock: in a process of its own, with limits.

The process is a new Python, never a fork of a daemon with threads. It is told by a pickle what to call, puts its
result into a file that its parent has opened, and dies with its parent.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BufferedRandom

from katafs.errors import ExhaustedError, KataError, StorageError, TooLargeError

log = logging.getLogger(__name__)

#: What a process calls: with the file for its result (or None), then what it was given. What it returns is small.
Work = Callable[..., object]

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_NICE = 5


@dataclass(frozen=True)
class Limits:
    """What one process may take: bytes of address space, of a file, seconds of processor time, seconds in all."""

    memory: int = 1 << 30
    file: int = 1 << 30
    processor_seconds: int = 30
    seconds: float = 60.0

    def impose(self) -> None:
        """On the process that calls this. More of the file is EFBIG, more processor time SIGKILL."""
        # not a limit that the daemon itself has to be under, lowered
        for kind, value in (
            (resource.RLIMIT_AS, self.memory),
            (resource.RLIMIT_FSIZE, self.file),
            (resource.RLIMIT_CPU, self.processor_seconds),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(kind)[1]
            lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (lowest, lowest))


def run(limits: Limits, file: BufferedRandom | None, work: Work, *arguments: object) -> object:
    """``work(file, *arguments)`` in a process of its own; returns what it returns, or raises the `KataError` it raises.

    To be called in a thread that lives until this returns: the process dies with it. Raises `TooLargeError` (EFBIG),
    with a line in the log, when the process takes more than its limits, and `ExhaustedError` when it cannot be started.
    """
    end = _start(None if file is None else file.fileno())
    try:
        said = end.communicate(pickle.dumps((limits, work, arguments)), limits.seconds)[0]
    except subprocess.TimeoutExpired as error:
        raise _too_large(work, arguments, f"{limits.seconds:g} s") from error
    finally:
        end.kill()
        end.communicate()
    if not said:
        died = f"signal {-end.returncode}" if end.returncode < 0 else f"exit status {end.returncode}"
        raise _too_large(work, arguments, f"{limits.processor_seconds} s of processor time, or memory ({died})")
    result, failure = pickle.loads(said)  # noqa: S301 - from our own process
    if isinstance(failure, MemoryError) or (isinstance(failure, ExhaustedError) and failure.errno == errno.ENOMEM):
        raise _too_large(work, arguments, f"{limits.memory >> 20} MiB of memory")
    if isinstance(failure, OSError) and failure.errno == errno.EFBIG:
        raise _too_large(work, arguments, f"{limits.file >> 20} MiB for its result")
    if isinstance(failure, OSError):
        raise StorageError(f"the result of {_name(work)} cannot be kept: {failure}", failure.errno or errno.EIO)
    if failure is not None:
        raise failure
    return result


def _start(output: int | None) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-P",
        "-m",
        "katafs.process",
        str(os.getpid()),
        *([] if output is None else [str(output)]),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[] if output is None else [output],
            env=environment,
            # what the terminal sends is for the daemon, which ends this one
            start_new_session=True,
        )
    except OSError as error:
        raise ExhaustedError(f"no process can be started: {error.strerror}", error.errno or errno.EAGAIN) from error


def _name(work: Work) -> str:
    """The function that does the work, at the heart of all partials."""
    while isinstance(work, partial):
        inner = next((each for each in work.args if callable(each)), work.func)
        work = inner
    return str(getattr(work, "__name__", work))


def _too_large(work: Work, arguments: tuple[object, ...], limit: str) -> TooLargeError:
    where = [str(each) for each in arguments if isinstance(each, (str, os.PathLike))]
    what = " ".join([_name(work), *where])
    log.warning("%s takes more than %s, and is refused", what, limit)
    return TooLargeError(f"{what} takes more than {limit}")


# -- in the new process


def _die_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _main() -> None:
    parent, *output = map(int, sys.argv[1:])
    _die_with(parent)
    os.nice(_NICE)
    said = os.dup(1)
    # nothing that a library prints gets among what is said
    os.dup2(2, 1)
    result: object = None
    failure: BaseException | None = None
    try:
        limits, work, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our parent
        limits.impose()
        if output:
            with open(output[0], "r+b") as file:
                result = work(file, *arguments)
        else:
            result = work(None, *arguments)
    except (KataError, MemoryError) as error:
        failure = error
    except OSError as error:
        failure = OSError(error.errno, str(error))
    except Exception as error:  # noqa: BLE001 - the parent is told
        failure = RuntimeError(repr(error))
    with open(said, "wb") as pipe:
        pickle.dump((result, failure), pipe)


if __name__ == "__main__":
    _main()
