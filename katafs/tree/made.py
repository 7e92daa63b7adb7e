"""Files whose content is computed: kept for a while, their sizes for longer.

A size need not be known at LOOKUP: the kernel is then told 0 with no timeout, and asks again before it reads. But once
it knows a size it must not be told 0 again, or it would drop the pages under a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import cachetools

from katafs.tree.nodes import NEVER, File, Maker, Owner
from katafs.tree.numbers import Key


class MadeCache:
    """Computed contents, bounded by bytes; a single larger one is kept until the next such. Belongs to one thread."""

    def __init__(self, limit: int = 64 << 20, sizes: int = 100_000) -> None:
        self._contents: cachetools.LRUCache[Hashable, bytes] = cachetools.LRUCache(limit, getsizeof=len)
        self._sizes: cachetools.LRUCache[Hashable, int] = cachetools.LRUCache(sizes)
        self._large: tuple[Hashable, bytes] | None = None

    def get(self, key: Hashable) -> bytes | None:
        """The content, if it is still there."""
        if self._large is not None and self._large[0] == key:
            return self._large[1]
        return self._contents.get(key)

    def size(self, key: Hashable) -> int | None:
        """The size of a content that was made once, in bytes."""
        return self._sizes.get(key)

    def remember_size(self, key: Hashable, size: int) -> None:
        """Keep a size only."""
        self._sizes[key] = size

    def put(self, key: Hashable, content: bytes) -> None:
        """Keep a content."""
        self._sizes[key] = len(content)
        if len(content) <= self._contents.maxsize:
            self._contents[key] = content
        else:
            self._large = (key, content)


class MadeFile(File):
    """A file whose content ``make`` computes in a worker thread. ``identity`` names the content for the cache."""

    def __init__(
        self, key: Key, owner: Owner, mtime_ns: int, cache: MadeCache, identity: Hashable, make: Callable[[], bytes]
    ) -> None:
        super().__init__(key, owner, mtime_ns)
        self._cache = cache
        self._identity = identity
        self._make = make
        self._content = cache.get(identity)
        self._size = cache.size(identity)
        if self._size is None:
            self.attr_timeout = NEVER

    def size(self) -> int | None:
        return self._size

    def to_make(self) -> Maker | None:
        return None if self._content is not None else self._make

    def made(self, result: object) -> None:
        assert isinstance(result, bytes)
        self._content = result
        self._size = len(result)
        self.attr_timeout = type(self).attr_timeout
        self._cache.put(self._identity, result)

    def read(self, offset: int, length: int) -> bytes:
        assert self._content is not None
        return self._content[offset : offset + length]
