"""A cache that counts how often it was of use."""

from __future__ import annotations

from typing import TypeVar

import cachetools

_K = TypeVar("_K")
_V = TypeVar("_V")


class CountedCache(cachetools.LRUCache[_K, _V]):
    """An LRU cache; `get` counts ``hits`` and ``misses``. Belongs to one thread."""

    hits = misses = 0

    def get(self, key: _K, default: None = None) -> _V | None:  # type: ignore[override] # no other default here
        if key in self:
            self.hits += 1
            return self[key]
        self.misses += 1
        return default
