"""What each side of a probe does in a store, when it is asked to."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from katafs.engine.trust import file_system
from katafs.owner import acting_as_owner

#: the directory for all that is tried, at the root of the store
DIRECTORY = ".katafs-probe"
#: what is followed of another's changes, each in a directory of its own
FOLLOWED = ("name", "listing", "directory", "size")
#: a user and group who own nothing
OTHER = 65534
_PAUSE = 0.002  # seconds


def serve(store: Path, told: IO[str], answers: IO[str]) -> None:
    """Be a side, until there is nothing more to be told. Raises OSError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work = Work(store)
    for line in told:
        what, *arguments = json.loads(line)
        try:
            answer = {"is": getattr(work, what)(*arguments)}
        except OSError as error:
            answer = {"errno": error.errno or errno.EIO}
        print(json.dumps(answer), file=answers, flush=True)


class Work:
    def __init__(self, store: Path) -> None:
        self._store = store.absolute()
        self._unclosed = 0
        self._seen: dict[str, object] = {}

    @functools.cached_property
    def _at(self) -> Path:
        """The directory, which this process enters for good: who can write to the store may put a link in its place, or
        a directory of his own with links. Raises OSError where he has."""
        fd = os.open(self._store / DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        os.fchdir(fd)
        # a file system may know us by another number, so it is asked whose our files are
        made, name = tempfile.mkstemp(dir=".")
        is_ours = os.fstat(made).st_uid == os.fstat(fd).st_uid
        self.close(made)
        self.close(fd)
        os.unlink(name)
        if not is_ours:
            raise PermissionError(errno.EPERM, "it belongs to another user", DIRECTORY)
        for what in FOLLOWED:
            with contextlib.suppress(FileExistsError):
                os.mkdir(what)
        return Path()

    def about(self) -> dict[str, Any]:
        """What the store lies on, as `trust.keep_finding` wants it."""
        return asdict(file_system(self._store))

    def close(self, fd: int) -> None:
        """On some engines that fails though all is well."""
        try:
            os.close(fd)
        except OSError:
            self._unclosed += 1

    def unclosed(self) -> int:
        return self._unclosed

    # -- who is first

    def win(self, how: str, count: int) -> list[int]:
        """Make so many names, each a file, a directory or a link: those that we were first to make."""
        self.put(f"{how}-{os.getpid()}", "x")
        return [number for number in range(count) if self.make(how, f"{how}{number}")]

    def make(self, how: str, name: str) -> bool:
        try:
            if how == "directory":
                os.mkdir(self._at / name)
            elif how == "link":
                os.link(self._at / f"{how}-{os.getpid()}", self._at / name)
            else:
                self.close(os.open(self._at / name, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True

    def lock(self, how: str) -> bool:
        """Lock a file until the end; whether nobody else has."""
        fd = os.open(self._at / how, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            getattr(fcntl, how)(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return False
        return True

    # -- files that are replaced, in git's way

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[int]:
        """Hold git's lock of a file, which is made with O_EXCL: what is written to it is synced, and replaces the file;
        a lock that is empty, or was held in vain, is removed."""
        lock, is_written = self._at / f"{name}.lock", False
        fd = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            yield fd
            os.fsync(fd)
            is_written = os.fstat(fd).st_size > 0
        finally:
            self.close(fd)
            if is_written:
                os.rename(lock, self._at / name)
            else:
                os.unlink(lock)
            # some engines make others wait for seconds until that is done
            self.sync()

    def put(self, name: str, text: str) -> None:
        with self._locked(name) as fd:
            os.write(fd, text.encode())

    def read(self, name: str) -> str:
        fd = os.open(self._at / name, os.O_RDONLY)
        try:
            return os.read(fd, 1 << 12).decode()
        finally:
            self.close(fd)

    def exists(self, name: str) -> bool:
        return os.path.lexists(self._at / name)

    def count(self, name: str, times: int, seconds: float) -> int:
        """Add one to the number in a file, so often, under its lock; how often that was done in the time."""
        done, end = 0, time.monotonic() + seconds
        while done < times and time.monotonic() < end:
            try:
                with self._locked(name) as fd:
                    os.write(fd, f"{int(self.read(name)) + 1:040}\n".encode())
                done += 1
            except (OSError, ValueError):
                time.sleep(_PAUSE)
        return done

    def remove_locked(self, name: str) -> None:
        """Remove a file under its lock, as git pack-refs does."""
        with self._locked(name):
            os.unlink(self._at / name)

    def is_read_locked(self, name: str) -> bool:
        """Whether there is such a file, under its lock."""
        with self._locked(name):
            try:
                self.read(name)
            except OSError:
                return False
        return True

    def watch(self, name: str, text: str, seconds: float) -> tuple[float, int, dict[str, int]]:
        """Read a file until it has this text: how long that took; how often it was neither that nor whole; errors."""
        torn, errors = 0, Counter[str]()
        begin = time.monotonic()
        while (took := time.monotonic() - begin) < seconds:
            try:
                read = self.read(name)
            except OSError as error:
                errors[errno.errorcode.get(error.errno or 0, "?")] += 1
                continue
            if read == text:
                break
            torn += len(read) != len(text)
        return took, torn, errors

    # -- what is seen of another's changes

    def change(self, number: int) -> None:
        """Change each directory that is looked at in its way."""
        for what in FOLLOWED:
            path = self._at / what / ("file" if what == "size" else f"{number}")
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(fd, b"x")
            self.close(fd)

    def look(self, number: int) -> dict[str, object]:
        """What is seen of that change, by what is looked at; of each another directory, as one look renews another."""
        self._seen = {
            "name": os.path.lexists(self._at / "name" / f"{number}"),
            "listing": f"{number}" in os.listdir(self._at / "listing"),
            "directory": os.stat(self._at / "directory").st_mtime_ns,
            "size": os.stat(self._at / "size/file").st_size,
        }
        return self._seen

    def follow(self, number: int, seconds: float) -> dict[str, float]:
        """How long it took until each was another than at the last look."""
        before, begin = self._seen, time.monotonic()
        took = dict.fromkeys(FOLLOWED, seconds)
        while (passed := time.monotonic() - begin) < seconds and seconds in took.values():
            for what, seen in self.look(number).items():
                if seen != before[what]:
                    took[what] = min(took[what], passed)
            time.sleep(_PAUSE)
        return took

    # -- the rest

    def sync(self) -> None:
        """fsync(2) of a directory."""
        fd = os.open(self._at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            self.close(fd)

    def whole_seconds(self, count: int) -> bool:
        """Whether the times of a directory that so many files are made in are all those of whole seconds."""
        return not any(
            self.make("file", f"time{number}") and os.stat(self._at).st_mtime_ns % 10**9 for number in range(count)
        )

    def own(self) -> None:
        """Make a directory of another user's, and in it a file as that user."""
        os.mkdir(self._at / "owned")
        os.chown(self._at / "owned", OTHER, OTHER)
        with acting_as_owner(self._at / "owned"):
            self.make("file", "owned/file")

    def owners(self) -> list[int]:
        return [owner for name in ("owned", "owned/file") for owner in os.stat(self._at / name)[4:6]]
