"""Contents that are computed, or large: kept for a while, their sizes for longer."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from io import BufferedRandom
from pathlib import Path

import cachetools

from katafs import process
from katafs.caching import CountedCache, Kept, Newest
from katafs.errors import HeavyError, TooLargeError
from katafs.git import GitRepo
from katafs.git.budget import Budget
from katafs.git.odb.loose_files import LARGEST
from katafs.kata.views.spool import FILE_LIMIT, Spool, SpoolFile
from katafs.tree.nodes import Later

#: Makes a content from a repository. It is handed to another process: a function of a module, or a partial of one.
Make = Callable[[GitRepo], bytes]

# what a content may cost in a process of its own, where somebody waits for it, in microseconds (`katafs.git.budget`)
_MOST = 12e6

_LIMITS = process.Limits(file=FILE_LIMIT)
_MOST_SPOOLED = 48
_LARGE = 1 << 20  # bytes
_MOST_REFUSED = 2_000
_SIZE, _REFUSAL = 105, 400  # bytes in memory
_REFUSED_SECONDS = 600.0


class MadeCache:
    """Computed contents, bounded by bytes: small ones in memory, large ones in a spool. Belongs to one thread."""

    def __init__(self, spool: Spool | None = None, limit: int = 6 << 20, sizes: int = 22_000) -> None:
        self.spool = spool or Spool()
        self._contents: CountedCache[Hashable, bytes] = CountedCache(limit, getsizeof=len)
        # by the hashes of the names: a third of the memory
        self._sizes: Newest[int, int] = Newest(sizes)
        self._refused: cachetools.TTLCache[Hashable, str] = cachetools.TTLCache(_MOST_REFUSED, _REFUSED_SECONDS)
        self._spooled: cachetools.LRUCache[Hashable, SpoolFile] = cachetools.LRUCache(_MOST_SPOOLED)

    def get(self, key: Hashable) -> bytes | SpoolFile | None:
        spooled = self._spooled.get(key)
        if spooled is not None and not spooled.closed:
            return spooled
        return self._contents.get(key)

    def clear_caches(self) -> None:
        """Forget the contents in memory, which can be made again; their sizes stay."""
        self._contents.clear()

    def kept(self) -> dict[str, Kept]:
        sizes, refused = self._sizes.kept(_SIZE), Kept.of(self._refused, _REFUSAL)
        return {"contents": Kept.of(self._contents, 1), "made sizes": sizes, "refusals": refused}

    def size(self, key: Hashable) -> int | None:
        return self._sizes.get(hash(key))

    def remember_size(self, key: Hashable, size: int) -> None:
        self._sizes.keep(hash(key), size)

    def refuse(self, key: Hashable, error: TooLargeError) -> None:
        """Remember for some minutes that it takes too much: finding that out took half a minute of a processor."""
        self._refused[key] = str(error)

    def check(self, key: Hashable) -> None:
        """Raises `TooLargeError` for a content that was refused."""
        if (known := self._refused.get(key)) is not None:
            raise TooLargeError(known)

    def put(self, key: Hashable, content: bytes | SpoolFile) -> None:
        """Keep a content; a file of the spool is closed when its space is wanted for something else."""
        if isinstance(content, bytes) and len(content) > _LARGE:
            with self.spool.file() as file:
                file.add([content])
            content = file
        if isinstance(content, SpoolFile):
            content.is_kept = True
            self._spooled[key] = content
        else:
            self._contents.keep(key, content)
        self.remember_size(key, len(content) if isinstance(content, bytes) else content.size)


def make_here(spool: Spool, path: Path, make: Make, budget: float) -> bytes | Later:
    """The content that ``make`` computes; in a process of its own when it costs more than ``budget`` microseconds."""
    try:
        return make(GitRepo(path, budget=Budget(budget)))
    except HeavyError:
        return Later(partial(make_elsewhere, spool, path, partial(_write, make)))


def make_elsewhere(
    spool: Spool, path: Path, write: Callable[[BufferedRandom, Path], object], limits: process.Limits = _LIMITS
) -> SpoolFile:
    """A file that ``write(file, path)`` writes in a process of its own. Raises what `katafs.process.run` does."""
    with spool.file() as file:
        file.run(limits, write, path)
    return file


def _write(make: Make, file: BufferedRandom, path: Path) -> None:
    repo = GitRepo(path, largest=LARGEST)
    try:
        with repo.budget.within(_MOST):
            file.write(make(repo))
    except HeavyError as error:
        raise TooLargeError(f"{path}: to read what this needs takes more than {_MOST / 1e6:g} s") from error
