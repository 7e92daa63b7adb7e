"""Opening files of a repository, and of nothing else, whatever links are put there meanwhile."""

from __future__ import annotations

import errno
import os

_TRIES = 3
# what the kernel adds to the path of a file that was removed, or replaced, after it was opened
_GONE = " (deleted)"


def real_path(directory: str | os.PathLike[str]) -> str:
    """The path of a directory without links, which `open_inside` wants. Raises OSError."""
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.readlink(f"/proc/self/fd/{fd}").removesuffix(_GONE)
    finally:
        os.close(fd)


def open_inside(path: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the file at ``path``, for reading; it waits for nothing, such as the other end of a pipe.

    ``path`` is one without links. Raises OSError, with ELOOP where a part of it is a symbolic link.
    """
    found = path
    for _ in range(_TRIES):
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            # the kernel knows where it has got to; to look before opening would leave time to put a link there
            found = os.readlink(f"/proc/self/fd/{fd}")
        except BaseException:
            os.close(fd)
            raise
        if found == path or found == path + _GONE:
            return fd
        # a file that is just being replaced has another name on some file systems
        os.close(fd)
    raise OSError(errno.ELOOP, f"a symbolic link leads to {found}", path)
