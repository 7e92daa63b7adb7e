"""Everything a request can fail with, each with the errno its caller gets.

Raise the most specific class near the cause; ``fuse.answering`` turns it into an errno in one place.
Anything that is not a `KataError` is a bug and becomes EIO with a traceback in the log.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self


class KataError(Exception):
    """Base of all expected failures. The message is a sentence for a person."""

    errno: int = errno.EIO

    def __init_subclass__(cls, number: int | None = None) -> None:
        cls.errno = number or cls.errno

    @property
    def errno_name(self) -> str:
        return errno.errorcode.get(self.errno, str(self.errno))


class NotFoundError(KataError, number=errno.ENOENT):
    """There is no such name, event or kata."""


class StaleError(KataError, number=errno.ESTALE):
    """An inode number that cannot be resolved (any more); the kernel then looks the path up again."""


class DamagedError(KataError, number=errno.EIO):
    """An object or a reference of a repository is missing or unreadable. Only what needs it fails."""


class NoEventsError(DamagedError):
    """A repository that is no kata's: all was read that says so."""


class _SystemError(KataError):
    """What the operating system says, with its own errno."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno = number

    def __reduce__(self) -> tuple[type[Self], tuple[str, int]]:
        return type(self), (str(self), self.errno)


class ExhaustedError(_SystemError):
    """The daemon has reached a limit of the operating system: EMFILE, ENFILE, ENOMEM. Only this request fails."""


class StorageError(_SystemError):
    """The operating system refused to store: ENOSPC, EDQUOT, EROFS, EACCES, …"""


class HeavyError(KataError, number=errno.EFBIG):
    """More than is done here (`katafs.git.budget`): the same is to be asked where there is more to spend."""


class BusyError(KataError, number=errno.EAGAIN):
    """So many slow requests wait already that one more would keep the others from being heard."""


class InvalidError(KataError, number=errno.EINVAL):
    """A message, name or value has the wrong shape; nothing was written."""


class TooLargeError(KataError, number=errno.EFBIG):
    """A message is larger than the limit, and nothing was written; or what a reader asks for takes too much."""


class LateError(KataError, number=errno.EEXIST):
    """The index of a message is taken already: somebody else was first. Nothing was written."""


class ReadOnlyError(KataError, number=errno.EROFS):
    """Not a thing that can be written to."""


class NotDirectoryError(KataError, number=errno.ENOTDIR):
    """A child was asked of something that is not a directory."""


class IsDirectoryError(KataError, number=errno.EISDIR):
    """Bytes were asked of a directory."""


@contextmanager
def storage_errors(what: str, missing: str = "") -> Iterator[None]:
    """Turn what the operating system refuses into a `StorageError` that says what cannot be done, and why; with
    ``missing``, a file that is not there into a `NotFoundError` that begins like this."""
    try:
        yield
    except OSError as error:
        if missing and isinstance(error, FileNotFoundError):
            raise NotFoundError(f"{missing}: {error.filename} is not there") from error
        # pygit2 raises bare OSError(message)
        raise StorageError(f"{what}: {error.strerror or error}", error.errno or errno.EIO) from error


# what says of a thing that it is not there, or not for us; the third of one that another host has removed
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


def absent(message: str, error: OSError) -> KataError:
    """What to raise when something cannot be looked at: `NotFoundError`; but what cannot be read may be there, and is
    as `unreadable` says."""
    return NotFoundError(f"{message}: {error.strerror}") if error.errno in _ABSENT else unreadable(message, error)


class DiedError(KataError, number=errno.EIO):
    """The daemon died while it had a part of what is needed; nothing was written."""


class RaceLostError(KataError, number=errno.EAGAIN):
    """Somebody else moved the branch between our read and our compare-and-swap; the caller starts again."""


def why(error: Exception) -> str:
    """Why something failed, whatever it is: what is not one of ours, or of the system's, has its kind in front."""
    if isinstance(error, KataError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}"


#: limits of this process, which say nothing of a file
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def unreadable(message: str, error: BaseException) -> KataError:
    """What to raise when something cannot be read: `DamagedError`, but for a limit of ours, which damages nothing."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ExhaustedError(f"{message}: no memory", errno.ENOMEM)
    number = error.errno if isinstance(error, OSError) else None
    # libgit2 gives the reason in words only
    number = number or next((each for each in EXHAUSTED if os.strerror(each) in str(error)), None)
    if number in EXHAUSTED:
        return ExhaustedError(f"{message}: {os.strerror(number)}", number)
    return DamagedError(f"{message}: {error}")
