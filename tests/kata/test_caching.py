"""The caches that are katafs's own."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import weakref
from pathlib import Path

import pytest

from katafs.caching import Newest, Shared
from katafs.errors import NotFoundError
from katafs.kata.store import Store
from tests.katas import git, make_kata
from tests.mounts import open_files
from tests.plain_katas import make_plain_kata


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


def test_a_kata_that_others_still_have_has_nothing_open(store: Path) -> None:
    """As nodes do, and a daemon keeps a thousand of them."""
    git(make_kata(store, "AbCdEf"), "repack", "-adq")
    make_plain_kata(store, "AbCdEg", 1, 4)
    katas = Store(store)
    git_kata = katas.kata("AbCdEf")
    path = store / "Ab/Cd/Eg"
    katas.plain.keep("AbCdEg", path, katas.plain.convert("AbCdEg", path))
    for kata in (git_kata, plain_kata := katas.kata("AbCdEg")):
        kata.snapshot(0)
    assert plain_kata.is_stored_plain
    places = [str(git_kata.path), str(plain_kata.path)]
    assert open_packs(places) == 2
    shutil.rmtree(store / "Ab")
    with pytest.raises(NotFoundError):
        katas.refresh("AbCdEf")
    katas.plain.drop("AbCdEg")
    assert open_packs(places) == 0
    katas.close()


def test_few_katas_are_open_where_there_are_few_descriptors(store: Path) -> None:
    """Half of those are for files in ``.git/``, and all that is open together is to fit."""
    for number in range(10, 30):
        git(make_kata(store, f"AbCd{number}"), "repack", "-adq")
    before = descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    try:
        katas = Store(store)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for number in range(10, 30):
        katas.kata(f"AbCd{number}").tip()
    assert 0 < descriptors() - before <= 128 // 8


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def open_packs(places: list[str]) -> int:
    return sum(".pack" in link and link.startswith(tuple(places)) for link in open_files(os.getpid()))
