"""A kata as an ordinary git repository to take away: ``download/NAME/**`` and ``download/NAME.tgz``.

Work tree and ``.git`` of one tip, with all its history and its tags, a clean status and no remote. Both forms hold
the same members, contents and times, and one tip gives the same bytes each time, whatever has been repacked since.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BufferedRandom
from pathlib import Path
from typing import Any, cast

from katafs import process
from katafs.errors import HeavyError
from katafs.git import GitRepo
from katafs.git.budget import Budget
from katafs.git.odb.loose_files import LARGEST
from katafs.kata.views.image import DIRECTORY, Image, Source, write_image
from katafs.kata.views.spool import Spool, SpoolFile

# what is read in the daemon itself: bytes of one object, whose inflating holds the GIL, and of all together
_LARGEST_HERE = 1 << 20
_MOST_HERE = 1e6  # microseconds, see `katafs.git.budget`
# of work tree, pack and archive
_LIMITS = process.Limits(file=3 << 30)


def download_name(kata_id: str, manifest: Mapping[str, Any], first_commit: int = 0) -> str:
    """``cyber-dojo-YYYY-MM-DD-ID[-EXERCISE]``: letters, digits and ``-`` only, whatever the manifest says.
    `first_commit` (seconds since the epoch) gives the day, in UTC, where ``created`` is no date."""
    exercise = manifest.get("exercise")
    words = re.findall("[A-Za-z0-9]+", exercise) if isinstance(exercise, str) else []
    suffix = "-".join(words)[:80].rstrip("-")
    day = _day(manifest.get("created"), first_commit)
    return f"cyber-dojo-{day.isoformat()}-{kata_id}" + (f"-{suffix}" if suffix else "")


def _day(created: Any, seconds: int) -> datetime.date:
    try:
        return datetime.date(*created[:3])
    except (KeyError, OverflowError, TypeError, ValueError):
        pass
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date()
    except (OSError, OverflowError, ValueError):
        return datetime.date(1970, 1, 1)


class Download:
    """One tip, ready to be read; made by `make_download`, given back by `close`. Needs no repository and little memory:
    contents and archive are in a temporary file without a name. Any thread may read, one at a time. What the operating
    system refuses is a `StorageError`."""

    def __init__(self, source: Source, image: Image, file: SpoolFile) -> None:
        self.name, self.tip, self.time_ns, self.number = source.name, source.oid, source.time_ns, source.number
        # by path below NAME/, which is b"" itself; a directory before what is in it
        self.members = image.members
        self._files, self._tgz, self._file = image.files, image.tgz, file
        self._children: dict[bytes, list[bytes]] = {}
        for path, member in self.members.items():
            if member.mode == DIRECTORY:
                self._children[path] = []
            if path:
                parent, _, last = path.rpartition(b"/")
                self._children[parent].append(last)
        # closed when the disk space is wanted for something else
        file.is_kept = True

    @property
    def closed(self) -> bool:
        """Whether nothing can be read any more."""
        return self._file.closed

    def is_idle(self, seconds: float) -> bool:
        return self._file.is_idle(seconds)

    @property
    def tgz_size(self) -> int:
        return self._tgz.size

    def children(self, path: bytes) -> Sequence[bytes]:
        """The names in the directory ``path``, sorted."""
        return self._children[path]

    def read(self, path: bytes, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the file ``path``; fewer only at its end."""
        return self._file.read(offset, size, self._files[path])

    def read_tgz(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the archive; fewer only at its end."""
        return self._file.read(offset, size, self._tgz)

    def close(self) -> None:
        """Give the disk space back. May be called again."""
        self._file.close()


def make_download(path: Path, source: Source, spool: Spool) -> Download | Callable[[], Download]:
    """The image of a commit of the repository ``path/.git``. 30 ms for 100 events, so call it in a thread.

    A large repository is not read here: then the result is a function, which has it read in a process of its own.
    Tags of commits that the tip does not reach are left out. The file in ``spool`` is about three times as large as the
    packed history. Raises `DamagedError`, `StorageError`, `TooLargeError`, and leaves nothing behind then.
    """
    try:
        with spool.file() as file:
            image = write_image(file, GitRepo(path, largest=_LARGEST_HERE, budget=Budget(_MOST_HERE)), source)
            return Download(source, image, file)
    except HeavyError:
        return partial(_make_elsewhere, path, source, spool)


def _make_elsewhere(path: Path, source: Source, spool: Spool) -> Download:
    with spool.file() as file:
        return Download(source, cast(Image, file.run(_LIMITS, _write_elsewhere, path, source)), file)


def _write_elsewhere(file: BufferedRandom, path: Path, source: Source) -> Image:
    # how large the file may be is a limit of this process
    return write_image(SpoolFile(Spool(limit=sys.maxsize), file), GitRepo(path, largest=LARGEST), source)
