"""Caches: one that counts how often it was of use, one of what was kept last, and one for all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import cachetools

_K = TypeVar("_K")
_V = TypeVar("_V")


class Kept(NamedTuple):
    """What a cache has in memory: entries, and bytes, about; how many bytes it may have; and of how much use it was,
    where that is counted."""

    entries: int
    size: int
    most: int
    hits: int | None = None
    misses: int | None = None

    @classmethod
    def of(cls, cache: cachetools.Cache[Any, Any], each: float) -> Kept:
        """That of a cache with so many bytes for each entry, or what else it is bounded by."""
        counted = (cache.hits, cache.misses) if isinstance(cache, CountedCache) else ()
        return cls(len(cache), round(cache.currsize * each), round(cache.maxsize * each), *counted)


class CountedCache(cachetools.LRUCache[_K, _V]):
    """An LRU cache; `get` counts ``hits`` and ``misses``. Belongs to one thread."""

    hits = misses = 0

    def get(self, key: _K, default: None = None) -> _V | None:  # type: ignore[override] # no other default here
        # one look-up, where `Cache.get` has two
        try:
            value = self[key]
        except KeyError:
            self.misses += 1
            return default
        self.hits += 1
        return value

    def keep(self, key: _K, value: _V) -> None:
        if self.getsizeof(value) <= self.maxsize:
            self[key] = value


class Newest(dict[_K, _V]):
    """The ``most`` values that were kept last: a dictionary, as quick as one."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def keep(self, key: _K, value: _V) -> None:
        self[key] = value
        if len(self) > self.most:
            del self[next(iter(self))]

    def kept(self, each: float) -> Kept:
        """With so many bytes in memory for each value."""
        return Kept(len(self), round(len(self) * each), round(self.most * each))


class Shared(Generic[_K, _V]):
    """An LRU cache of this process, for any thread, bounded by ``limit`` bytes; ``sizeof`` gives those of a value. What
    would take more than one of ``shares`` of it is not kept. ``name`` is for an operator.
    """

    #: those that have a name
    named: ClassVar[dict[str, Shared[Any, Any]]] = {}

    def __init__(self, limit: int, sizeof: Callable[[_V], int], shares: int = 16, name: str = "") -> None:
        if name:
            self.named[name] = self
        self._known: cachetools.LRUCache[_K, _V] = cachetools.LRUCache(limit, sizeof)
        self._largest = limit // shares
        self._lock = threading.Lock()

    def get(self, key: _K) -> _V | None:
        with self._lock:
            return self._known.get(key)

    def keep(self, key: _K, value: _V) -> None:
        """Keep a value; those that were used longest ago go for it."""
        with self._lock:
            if self._known.getsizeof(value) <= self._largest:
                self._known[key] = value

    def pop(self, key: _K) -> _V | None:
        with self._lock:
            return self._known.pop(key, None)

    def kept(self) -> Kept:
        with self._lock:
            return Kept.of(self._known, 1)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()
