"""Places for slow work are given in turn; a walk through a history goes on where the budget ended; prices are paid."""

from __future__ import annotations

import os
import subprocess
import traceback
from pathlib import Path
from typing import cast

import pyfuse3
import pytest
import trio
import trio.testing

from katafs.errors import BusyError, HeavyError, StorageError, TooLargeError
from katafs.fuse.elsewhere import Elsewhere
from katafs.fuse.fair import Places, Preparer, User
from katafs.git import GitRepo
from katafs.git.budget import Budget
from katafs.kata.model.options import Settings, set_by
from katafs.kata.model.rows import Rows
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata
from katafs.kata.store import Store
from katafs.tree.answers import Question
from katafs.tree.catalogue import kata_key
from katafs.tree.context import Context
from katafs.tree.numbers import META, ROOT, Key, Numbers
from katafs.tree.tree import Tree
from tests.budget import large
from tests.katas import make_kata


def test_many_of_one_keep_nobody_out() -> None:
    """Eighty wait of two katas of an owner; who comes last, of another, is served next; of one kata half at most."""
    served: list[User] = []
    most = 0

    async def want(places: Places, user: User, release: trio.Event) -> None:
        nonlocal most
        async with places.place(user):
            served.append(user)
            most = max(most, places._held[user[1]])
            await release.wait()

    async def run() -> None:
        places, first, rest = Places(2), trio.Event(), trio.Event()
        rest.set()
        katas = ("AAAAAA", "BBBBBB")
        async with trio.open_nursery() as nursery:
            for number in range(80):
                nursery.start_soon(want, places, (1, katas[number % 2]), rest if number > 1 else first)
                if number == 1:
                    await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(served) == [(1, "AAAAAA"), (1, "BBBBBB")]
            nursery.start_soon(want, places, (2, "CCCCCC"), rest)
            await trio.testing.wait_all_tasks_blocked()
            first.set()

    trio.run(run)
    assert (2, "CCCCCC") in served[2:4]
    assert len(served) == 81
    assert most == 1


def test_of_what_is_asked_elsewhere_one_kata_has_a_part(store: Path) -> None:
    """A hundred wait for a kata that takes long: its next one is refused, and who asks for another is answered."""
    make_kata(store, "CdCdCd")
    elsewhere = Elsewhere(tree := Tree(Context(Store(store))), Preparer(tree))
    held = trio.Lock()

    async def run() -> None:
        async with trio.open_nursery() as nursery, held:
            elsewhere._queues["AbCdEf"] = held
            for number in range(100):
                nursery.start_soon(elsewhere._answer, Question("tip", kata_key("AbCdEf"), (number,)))
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BusyError):
                await elsewhere._answer(Question("tip", kata_key("AbCdEf"), (100,)))
            assert await elsewhere._answer(Question("tip", kata_key("CdCdCd"))) is not None
            nursery.cancel_scope.cancel()

    trio.run(run)


def test_what_is_lent_is_taken_back(store: Path) -> None:
    """But for what the next event lent; and no kata is opened for it."""
    tree = Tree(Context(Store(store)))
    make_kata(store, "AbCdEf")
    with tree.lent("AbCdEf", {}):
        assert not tree.ctx.store.open_repositories()
    with tree.lent("AbCdEf", {bytes(20): (3, b"first")}):
        objects = tree.ctx.store.kata("AbCdEf").repo.objects
        with tree.lent("AbCdEf", later := {bytes(20): (3, b"second")}):
            assert objects.at_hand is later
        objects.at_hand = later
    assert objects.at_hand is later


def test_who_is_refused_again_costs_no_memory(store: Path) -> None:
    """What is raised again and again would else hold the frames of all who heard of it."""
    tree = Tree(Context(Store(store)))
    elsewhere = Elsewhere(tree, Preparer(tree))
    error = TooLargeError("it takes too long")
    elsewhere._refused[Question("readlink", kata_key("AbCdEf"))] = error

    async def run() -> None:
        for _ in range(100):
            with pytest.raises(TooLargeError):
                await elsewhere.readlink(Numbers.number(kata_key("AbCdEf")), cast(pyfuse3.RequestContext, None))

    trio.run(run)
    assert len(list(traceback.walk_tb(error.__traceback__))) < 10


def test_what_went_wrong_once_is_asked_again(tmp_path: Path) -> None:
    """Where the store is unmounted mkdir is EIO, and not for a minute more when it is back."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a store")
    store = tmp_path / "store"
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "none", os.fspath(store)]
    subprocess.run(mount, check=True)
    try:
        tree = Tree(Context(Store(store)))
        elsewhere = Elsewhere(tree, Preparer(tree))
        ask = Question("creator", Key(META, "", ROOT), (b"Ab", True))
        trio.run(elsewhere._answer, ask)
        subprocess.run(["umount", store], check=True)
        with pytest.raises(StorageError):
            trio.run(elsewhere._answer, ask)
        subprocess.run(mount, check=True)
        (store / "Cd").mkdir()
        trio.run(elsewhere._answer, ask)
    finally:
        subprocess.run(["umount", store], check=True)


def test_a_walk_goes_on(store: Path) -> None:
    path = make_kata(store, "AbCdEf")
    large.options(path, 300)
    settings, repo, tries = Settings(), GitRepo(path, budget=Budget(1_000.0)), 0
    commits = list(GitRepo(path).history(GitRepo(path).main() or b""))
    expected: dict[str, list[tuple[str, int]]] = {}
    for commit in commits:
        if (option := set_by(commit)) is not None:
            expected.setdefault(option[0], []).append((option[1], commit.time * 10**9))
    assert sum(map(len, expected.values())) == 300
    found: object = None
    for tip in (commits[40].oid, commits[0].oid):
        while True:
            repo.budget.renew()
            tries += 1
            try:
                found = settings.found(repo, tip)
                break
            except HeavyError:
                assert repo.budget.left < 0
    assert found == expected
    assert tries > 3
    assert len(settings) == 300


def test_times_of_options_within_a_budget(store: Path) -> None:
    """The same as without one."""
    path = make_kata(store, "AbCdEf")
    large.options(path, 400)
    expected = Kata("AbCdEf", path, (0, 0), ReadCaches()).option_times()
    caches = ReadCaches(budget=Budget(3_000.0))
    kata = Kata("AbCdEf", path, (0, 0), caches)
    for _ in range(100):
        caches.budget.renew()
        try:
            assert kata.option_times() == expected
            return
        except HeavyError:
            continue
    pytest.fail("it never came to an end")


def test_events_without_tags(store: Path) -> None:
    path = make_kata(store, "AbCdEf")
    large.events(path, 300, tags=False)
    kata, repo = Kata("AbCdEf", path, (0, 0), ReadCaches()), GitRepo(path)
    for index in (0, 1, 150, 299, 300):
        assert kata.snapshot(index).commit == repo.commit_of_event(kata.tip().commit.oid, index)


def test_a_part_of_the_rows() -> None:
    rows = Rows([{"index": index, "x": "y" * (index % 7)} for index in range(12)])
    for index in (0, 5, 11):
        whole = rows.summary(index)
        assert len(whole) == rows.summary_size(index)
        for offset in range(len(whole) + 3):
            for length in (1, 7, 200):
                assert rows.summary_part(index, offset, length) == whole[offset : offset + length]


def test_a_budget() -> None:
    budget = Budget(100.0)
    with pytest.raises(HeavyError), budget.within(30.0):
        budget.spend(31.0)
    assert budget.left == 70.0
    budget.spend(70.0)
    for _ in range(2):
        with pytest.raises(HeavyError):
            budget.spend(1.0)
    assert budget.left < 0
    budget.renew()
    assert not budget.left < 0
