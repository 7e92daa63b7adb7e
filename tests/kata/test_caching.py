"""The caches that are katafs's own."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import pytest

from katafs.caching import Newest, Shared
from katafs.errors import NotFoundError
from katafs.kata.store import Store
from tests.katas import git, make_kata


def test_newest_keeps_so_many() -> None:
    newest: Newest[int, str] = Newest(3)
    for number in range(5):
        newest.keep(number, str(number))
    assert list(newest.items()) == [(2, "2"), (3, "3"), (4, "4")]


def test_shared_keeps_so_many_bytes() -> None:
    """Those that were used last; and no value that would drive out many others."""
    shared: Shared[int, bytes] = Shared(1600, len)
    for number in range(16):
        shared.keep(number, bytes([number]) * 100)
    assert shared.get(0) == bytes(100)
    shared.keep(16, b"x" * 100)
    assert shared.get(1) is None
    assert shared.get(0) == bytes(100)
    assert shared.get(16) == b"x" * 100
    shared.keep(17, b"y" * 101)
    assert shared.get(17) is None
    assert sum(shared.get(number) is not None for number in range(18)) == 16


def test_shared_counts_a_value_once() -> None:
    shared: Shared[int, bytes] = Shared(1600, len)
    for _ in range(100):
        shared.keep(1, b"x" * 100)
    for number in range(2, 17):
        shared.keep(number, b"x" * 100)
    assert shared.get(1) == b"x" * 100


def test_shared_is_empty_when_it_was_cleared() -> None:
    shared: Shared[int, bytes] = Shared(1600, len)
    for turn in range(2):
        for number in range(16):
            shared.keep(number, bytes([turn]) * 100)
        assert [shared.get(number) for number in range(16)] == [bytes([turn]) * 100] * 16
        shared.clear()
        assert [shared.get(number) for number in range(16)] == [None] * 16


def test_a_kata_that_is_kept_no_longer_is_gone(store: Path) -> None:
    """With the packs that it has open, and without Python's looking for cycles, which the daemon hardly ever does: who
    read one kata after the other had two descriptors more of each."""
    path = make_kata(store, "AbCdEf")
    git(path, "repack", "-adq")
    before = descriptors()
    gc.disable()
    try:
        katas = Store(store)
        kata = katas.kata("AbCdEf")
        kata.option_times()
        kata.set_options()
        kata.snapshot(0)
        assert descriptors() > before
        gone = weakref.ref(kata)
        del kata
        path.rename(store / "away")
        with pytest.raises(NotFoundError):
            katas.refresh("AbCdEf")
        assert gone() is None
        assert descriptors() == before
    finally:
        gc.enable()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
