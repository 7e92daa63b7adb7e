"""Repositories that git made in odd but valid ways: katafs says the same of them, byte by byte."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest

from katafs.errors import KataError
from tests.katas import add_event
from tests.mounts import Mount, katafs
from tests.odd.looking import DEADLINE, cloned_otherwise, deadline, shown_otherwise
from tests.odd.making import Odd, make_odd
from tests.odd.settings import dice_of, numbers
from tests.odd.truth import Truth, differences, truth_of
from tests.scratch import fast_directory

Odds = list[Odd]
_BRANCHES = (b"refs/heads/main", b"refs/heads/trunk")


@pytest.fixture(scope="module")
def store() -> Iterator[Path]:
    """A directory for stores, where syncing costs nothing."""
    with tempfile.TemporaryDirectory(prefix="katafs-odd-", dir=fast_directory()) as directory:
        yield Path(directory)


def odd_katas(store: Path, first: int, count: int) -> Odds:
    """Some odd katas, in a store of their own."""
    (store / f"{first}").mkdir()
    return [make_odd(store / f"{first}", number) for number in numbers(count, first)]


def assert_none(odds: Odds, problems: Callable[[Odd], Iterator[str]]) -> None:
    """No kata has a problem; if some have, the first few of each are told."""
    found = [f"{odd.name}: {problem}" for odd in odds for problem in islice(problems(odd), 3)]
    assert not found, f"{len(found)} problems\n" + "\n".join(found[:50])


def read_in_process(odds: Odds) -> None:
    assert_none(odds, lambda odd: differences(odd.path, odd.truth))


def read_mounted(odds: Odds, store: Path, path: Path, clones: int) -> None:
    """All files of all events, and the repository of some."""
    mount = Mount(store, path, "fast", ())

    def shown(odd: Odd) -> Path:
        return mount.kata(f"{odd.number:06}")

    with mount, deadline(mount, DEADLINE + len(odds)):
        assert_none(odds, lambda odd: shown_otherwise(shown(odd), odd.truth, dice_of(odd.number, "mount")))
        copies = path.with_name("copies")
        assert_none(odds[:clones], lambda odd: cloned_otherwise(shown(odd), odd.truth, copies / f"{odd.number}"))


def lost(odd: Odd, path: Path | None = None) -> Iterator[str]:
    """What git does not find any more, or finds otherwise; what it complained of before it may go on to complain of."""
    try:
        truth = truth_of(path or odd.path)
    except subprocess.CalledProcessError as error:
        yield f"git cannot read it: {error.stderr!r}"
        return
    yield from _lost(odd.truth, truth)


def _lost(before: Truth, after: Truth) -> Iterator[str]:
    if gone := [oid.hex() for oid, data in before.objects.items() if after.objects.get(oid) != data]:
        yield f"{len(gone)} of {len(before.objects)} objects are lost: {gone[:2]}"
    if before.references != {name: after.references.get(name) for name in before.references}:
        yield "references are lost"
    if after.fsck != before.fsck:
        yield f"git fsck: {after.fsck[0]} {after.fsck[1][:3]}"


def compacted(odds: Odds, store: Path) -> None:
    """`katafs compact` loses nothing, whether it takes a kata or leaves it."""
    katafs("compact", "--quiet", store, check=False)
    assert_none(odds, lost)
    read_in_process(odds)


COUNT = 42


@pytest.fixture(scope="module")
def odds(store: Path) -> Odds:
    return odd_katas(store, 0, COUNT)


def test_git_made_them(odds: Odds) -> None:
    assert_none(odds, lambda odd: iter(map(repr, odd.truth.fsck[1])) if odd.truth.fsck[0] else iter(()))


def test_read_in_process(odds: Odds) -> None:
    read_in_process(odds)


@pytest.mark.thorough
def test_read_from_a_mount(odds: Odds, store: Path, tmp_path: Path, fuse: None) -> None:
    read_mounted(odds, store / "0", tmp_path / "mnt", 10)


def test_merging_loses_nothing(odds: Odds) -> None:
    """Events are recorded until packs are merged."""

    def problems(odd: Odd) -> Iterator[str]:
        first = max(odd.truth.tags()) + 1
        try:
            for index in range(first, first + 17):
                add_event(odd.path, index, files={"hiker.py": f"{index}\n"})
        except KataError as error:
            yield f"no event can be recorded: {error}"
        after = truth_of(odd.path)
        odds[odds.index(odd)] = odd._replace(truth=after)
        # all that is another now is where the branch leads to
        moved = {name: oid for name, oid in after.references.items() if name in _BRANCHES}
        yield from _lost(odd.truth._replace(references=odd.truth.references | moved), after)

    assert_none(odds[1::10], problems)


def test_compaction_loses_nothing(odds: Odds, store: Path) -> None:
    compacted(odds, store / "0")


BATCH = 50


@pytest.mark.slow
@pytest.mark.parametrize("first", range(COUNT, COUNT + 3000, BATCH))
def test_many(store: Path, tmp_path: Path, fuse: None, first: int) -> None:
    """As above, in stores of fifty."""
    odds = odd_katas(store, first, BATCH)
    read_in_process(odds)
    read_mounted(odds, store / f"{first}", tmp_path / "mnt", 3)
    compacted(odds, store / f"{first}")
    shutil.rmtree(store / f"{first}")
