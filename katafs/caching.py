"""Caches: one that counts how often it was of use, and one of what was kept last."""

from __future__ import annotations

from typing import TypeVar

import cachetools

_K = TypeVar("_K")
_V = TypeVar("_V")


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


class Newest(dict[_K, _V]):
    """The ``most`` values that were kept last: a dictionary, as quick as one."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def keep(self, key: _K, value: _V) -> None:
        """Keep a value; the oldest goes for it."""
        self[key] = value
        if len(self) > self._most:
            del self[next(iter(self))]
