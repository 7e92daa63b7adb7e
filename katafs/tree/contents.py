"""Files that are a blob, or bytes made from one."""

from __future__ import annotations

from functools import partial
from io import BufferedRandom
from pathlib import Path

from katafs.errors import TooLargeError
from katafs.git import GitRepo, Oid
from katafs.git.format.loose import BLOB
from katafs.git.odb.loose_files import LARGEST
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import Content, Snapshot
from katafs.kata.views.spool import Spool, SpoolFile
from katafs.tree.context import Context
from katafs.tree.made import make_elsewhere
from katafs.tree.nodes import IMMUTABLE, File, Later, Maker
from katafs.tree.numbers import Key

# A larger one is unfolded once, into a temporary file: in a worker thread, or, as libgit2 holds Python's lock while it
# unfolds a packed one, in a process of its own.
LARGE_BLOB = 1 << 20
# bytes in memory, of a node that is kept
_SMALL = 512


class ContentFile(File):
    """A file that is a blob, or bytes made from one."""

    slowness = "blob"

    def __init__(self, key: Key, ctx: Context, mtime_ns: int, kata: Kata, content: Content) -> None:
        super().__init__(key, ctx.owner(kata), mtime_ns)
        self._cache = ctx.made
        self._kata, self._era = kata, kata.era
        self._content = content
        self._is_small = not isinstance(content, bytes) or len(content) < _SMALL
        self._size: int | None = None
        self._unfolded: SpoolFile | None = None

    def holds(self) -> bool:
        is_same = self._era is self._kata.era is not None
        return is_same and self.attr_timeout == IMMUTABLE and self._is_small

    def size(self) -> int:
        if self._size is None:
            self._size = self._kata.size(self._content)
        return self._size

    def to_make(self) -> Maker | None:
        content = self._content
        if isinstance(content, bytes) or self.size() <= LARGE_BLOB:
            return None
        if self._unfolded is not None and not self._unfolded.closed:
            return None
        # not for all katas: one that lacks the object must not show it
        known = self._cache.get((self._kata.kata_id, content.oid))
        if isinstance(known, SpoolFile):
            self._unfolded = known
            return None
        self._cache.check((self._kata.kata_id, content.oid))
        return partial(_unfold_here, self._cache.spool, self._kata.path, content.oid)

    def made(self, result: object) -> None:
        assert isinstance(result, SpoolFile)
        assert not isinstance(self._content, bytes)
        self._unfolded = result
        self._cache.put((self._kata.kata_id, self._content.oid), result)

    def too_large(self, error: TooLargeError) -> None:
        assert not isinstance(self._content, bytes)
        self._cache.refuse((self._kata.kata_id, self._content.oid), error)

    def read(self, offset: int, length: int) -> bytes:
        if self._unfolded is not None:
            return self._unfolded.read(offset, length)
        return self._kata.read(self._content, offset, length)


class SummaryFile(File):
    """``events_summary.json`` of an event, joined from the texts of its rows."""

    def __init__(self, key: Key, ctx: Context, kata: Kata, snapshot: Snapshot) -> None:
        super().__init__(key, ctx.owner(kata), snapshot.time_ns)
        self._rows = kata.tip().rows
        self._index = snapshot.index

    def size(self) -> int:
        return self._rows.summary_size(self._index)

    def read(self, offset: int, length: int) -> bytes:
        return self._rows.summary_part(self._index, offset, length)


def _unfold_here(spool: Spool, path: Path, oid: Oid) -> SpoolFile | Later:
    file = spool.file()
    try:
        if GitRepo(path).objects.inflate_loose(oid, BLOB, lambda piece: file.add([piece])):
            return file
    except BaseException:
        file.close()
        raise
    file.close()
    return Later(partial(make_elsewhere, spool, path, partial(_unfold_packed, oid)))


def _unfold_packed(oid: Oid, file: BufferedRandom, path: Path) -> None:
    file.write(GitRepo(path, largest=LARGEST).blob(oid))
