"""Directories of any depth: walked through, and removed. What `os.walk` and `shutil.rmtree` do, they do by recursion,
by paths of up to 4,096 bytes, or with a descriptor for each level; whose directories are somebody else's is not to be
stopped by how deep they are.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Never, Self

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Directory:
    """A directory that is open, with what was in it when that was listed. Names of links are among ``names``. Who takes
    one out of ``directories`` has it left out. ``way`` are the names from the top to it, as long as it is open."""

    way: list[str]
    fd: int
    directories: list[str]
    names: list[str]

    @property
    def below(self) -> str:
        """Its path from the top, which is ``"."``."""
        return "/".join(self.way) or "."

    def status(self, name: str) -> os.stat_result:
        """The status of something in it; links are not followed. Raises OSError."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def path(self, name: str) -> str:
        """A path by which something in it can be opened, however deep it is."""
        return f"/proc/self/fd/{self.fd}/{name}"


class _Climber:
    """A descriptor that goes down into a directory, and up again to the one that it came from. Its methods raise
    OSError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.fd = os.open(path, _FLAGS)
        # those above, from the top on
        self._above: list[os.stat_result] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            os.close(self.fd)

    def listed(self) -> tuple[list[str], list[str]]:
        """The names of directories, and all others."""
        directories: list[str] = []
        names: list[str] = []
        with os.scandir(self.fd) as entries:
            for entry in entries:
                (directories if entry.is_dir(follow_symlinks=False) else names).append(entry.name)
        return directories, names

    def down(self, name: str) -> None:
        fd = os.open(name, _FLAGS, dir_fd=self.fd)
        try:
            # one that may be listed and not be searched has no way up
            above = os.stat("..", dir_fd=fd)
        except BaseException:
            os.close(fd)
            raise
        self._above.append(above)
        self._become(fd)

    def up(self) -> None:
        """Raises OSError (ESTALE) when the directory was moved meanwhile."""
        self._become(os.open("..", _FLAGS, dir_fd=self.fd))
        if not os.path.samestat(self._above.pop(), os.fstat(self.fd)):
            raise OSError(errno.ESTALE, "a directory was moved while it was walked through")

    def _become(self, fd: int) -> None:
        before, self.fd = self.fd, fd
        with suppress(OSError):
            os.close(before)


OnError = Callable[[str, OSError], object]
OnLeaving = Callable[[str, int], object]


def walk(
    path: str | os.PathLike[str], onerror: OnError = lambda *_: None, onleaving: OnLeaving = lambda *_: None
) -> Iterator[Directory]:
    """The directory at ``path``, and all below it, each before what is in it; links are not followed. ``onerror`` is
    called for what cannot be opened or listed, with its path from the top; ``onleaving`` for each directory below when
    all in it was walked through, with its name, and a descriptor of the one that it is in. The walk ends where somebody
    moves a directory that is being walked through."""
    try:
        climber = _Climber(path)
    except OSError as error:
        onerror(".", error)
        return
    way: list[str] = []
    # of the top, and of each on the way, the directories that are left, the next one last
    left: list[list[str]] = []
    with climber:
        while True:
            found = Directory(way, climber.fd, [], [])
            try:
                found.directories, found.names = climber.listed()
            except OSError as error:
                onerror(found.below, error)
            else:
                yield found
            left.append(found.directories[::-1])
            while not _go_down(climber, way, left[-1], onerror):
                left.pop()
                if not left:
                    return
                try:
                    climber.up()
                except OSError as error:
                    onerror(found.below, error)
                    return
                onleaving(way.pop(), climber.fd)


def _go_down(climber: _Climber, way: list[str], left: list[str], onerror: OnError) -> bool:
    """Go down into the next directory that can be opened; False when there is none."""
    while left:
        name = left.pop()
        try:
            climber.down(name)
        except OSError as error:
            onerror("/".join([*way, name]), error)
        else:
            way.append(name)
            return True
    return False


def remove_tree(path: str | os.PathLike[str], *, with_files: bool = True) -> None:
    """Remove a directory and all that is in it; links are not followed. Raises OSError, ENOTEMPTY for a file that is
    not to be removed, and then some of it may be left."""

    def fail(_path: str, error: OSError) -> Never:
        raise error

    def leave(name: str, fd: int) -> None:
        with suppress(FileNotFoundError):
            os.rmdir(name, dir_fd=fd)

    for found in walk(path, fail, leave):
        if found.names and not with_files:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), os.fspath(path))
        for name in found.names:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=found.fd)
    os.rmdir(path)


def remove_quietly(path: str | os.PathLike[str]) -> None:
    """Do as `remove_tree`, as far as that goes."""
    with suppress(OSError):
        remove_tree(path)
