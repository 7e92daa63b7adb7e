"""Power loss: nothing that was acknowledged is lost, at whichever call it comes.

The system calls of the daemon, of its workers and of its clients are recorded with strace, beginning with a store that
is on the disk, and what the disk may hold after a power cut right after each call is rebuilt in a directory.

**The model.** A call has its effect when it returns; what was done before a sync *began* is on the disk when that sync
*returns*, and a failed sync is none.

* Directories: each call that makes, links, renames or removes is one change, done as a whole or not at all. Changes
  reach the disk in their order, and end anywhere; or a directory that was not synced has or lacks each of its changes.
  A change is on the disk for certain when a directory that it is about was synced after it, and then so is all that it
  rests on. A sync of a file says nothing of the file's name, nor one of a directory of the names above it.
* Files: one that was not synced is absent (its name is not there), as it was when it was last synced or emptied (a new
  one: empty), cut at a page, or whole.

Modes and times are not looked at. **Deviations.** After every call: all of it; all but one deviation as above; and no
more than what was synced. And a number of random states with more deviations, whose seed is printed.

**Acknowledged** is what a client on the mount heard of: an event, an option or a file whose write(2) has returned, at
the moment when the daemon wrote its answer to /dev/fuse; or what a command had done at its end.

**What must hold** of each such state: all that was there before and all that was acknowledged is read by katafs, with
its right content, and found by git; ``git fsck`` finds nothing, or nothing once ``katafs fsck --repair`` was run; and
what goes on by itself (migration, an event that waits for its row) comes to its end without losing anything.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from katafs.kata.legacy.pending import flush_pending
from katafs.kata.model.ids import kata_path
from tests.power.client import SCENARIOS
from tests.power.disk import Disk, read_tree
from tests.power.judging import Judgement, facts
from tests.power.trace import Call, can_trace, python, record
from tests.scratch import fast_directory

_QUICK_RANDOM, _SLOW_RANDOM = 40, 2_000


@pytest.fixture
def store(fuse: None) -> Iterator[Path]:
    can_trace()
    with tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as directory:
        yield Path(directory).resolve()


def judge(store: Path, name: str, count: int, without: Callable[[Call], bool] = lambda _: False) -> list[str]:
    """Record, rebuild and look at what may be left; what is wrong. ``without``: the calls that are left out."""
    seed = random.randrange(1 << 32)
    print(f"{name}: the seed of the random states is {seed}")  # noqa: T201 - pytest shows it with a failure
    scenario = SCENARIOS[name]
    scenario.make(store)
    disk = Disk(store)
    before = {kata_id: facts(store, kata_id) for kata_id in katas(store)}
    calls = [call for call in record(store, python("tests.power.client", name, store)) if not without(call)]
    for call in calls:
        disk.do(call)
    # else the model is not what the kernel does
    assert disk.whole().tree(disk.root) == read_tree(store)
    problems = []
    for kata_id in katas(store):
        # what waits for its row goes on in the end, as it must in each state
        flush_pending(kata_path(store, kata_id), kata_id)
        judgement = Judgement(
            disk, calls, kata_id, before.get(kata_id, {}), facts(store, kata_id), scenario.by_git.get(kata_id)
        )
        judgement.one_deviation()
        judgement.many_deviations(count, seed)
        problems += judgement.problems()
        print(f"{kata_id}: {len(calls)} calls, {len(judgement)} states")  # noqa: T201
    return problems


def katas(store: Path) -> list[str]:
    """The ids of all katas of a store."""
    found = (path.relative_to(store).parts for path in store.glob("[!.]?/??/??"))
    return sorted("".join(parts) for parts in found)


def test_quick(store: Path) -> None:
    """An event in each layout, an option, a creation."""
    problems = judge(store, "quick", _QUICK_RANDOM)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "quick"])
def test_slow(store: Path, name: str) -> None:
    problems = judge(store, name, _SLOW_RANDOM)
    assert not problems, "\n".join(problems)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["/refs/heads", "/objects/pack", "/objects/pack/"])
def test_a_missing_sync_is_found(store: Path, what: str) -> None:
    """As if katafs did not sync a directory, or the files in one."""

    def is_missing(call: Call) -> bool:
        path = os.fsdecode(call.path)
        return call.kind == "sync" and (what in path if what.endswith("/") else path.endswith(what))

    assert any(" is lost" in problem for problem in judge(store, "quick", 0, is_missing))
