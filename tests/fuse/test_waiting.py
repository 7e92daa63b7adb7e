"""How requests are waited for: `katafs.fuse.waiting`, in trio's event loop."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from katafs.fuse.waiting import Turn, Waiting


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def never() -> int:
    return 0


async def rested(waiting: Waiting, descriptor: int) -> None:
    """Wait in vain until it does not pay."""
    while not waiting.is_backing_off:
        with trio.move_on_after(0):
            await waiting.wait_readable(descriptor)


def test_what_is_there_is_taken_at_once(pipe: tuple[int, int]) -> None:
    """Without a turn for other tasks; but they have one after a while."""

    async def main() -> None:
        ran = []

        async def other() -> None:
            ran.append(True)

        waiting = Waiting(never)
        os.write(pipe[1], b"x")
        await waiting.wait_readable(pipe[0])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await waiting.wait_readable(pipe[0])
            assert not ran
            with trio.fail_after(30):
                while not ran:
                    await waiting.wait_readable(pipe[0])

    trio.run(main)


def test_the_next_is_not_taken_before_another_task_waits_for_its_turn(pipe: tuple[int, int]) -> None:
    """pyfuse3 starts one when there is none; taken at once, each request would have another one started."""

    async def main() -> None:
        started: list[bool] = []
        waiting = Waiting(never)
        turn = waiting.Lock()

        async def other() -> None:
            started.append(True)
            async with turn:
                pass

        os.write(pipe[1], b"x")
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                async with turn:
                    await waiting.wait_readable(pipe[0])
                nursery.start_soon(other)
                # as many times round as tasks may come in the other order
                for _ in range(3):
                    async with turn:
                        await waiting.wait_readable(pipe[0])
                assert started

    trio.run(main)


def test_what_comes_later_is_waited_for(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, os.write, pipe[1], b"x")
            with trio.fail_after(30):
                await Waiting(never).wait_readable(pipe[0])

    trio.run(main)


def test_it_rests_when_nothing_comes(pipe: tuple[int, int]) -> None:
    """And is awake again after something came soon."""

    async def main() -> None:
        waiting = Waiting(never, moment=1e-6, soon=3600)
        await rested(waiting, pipe[0])
        os.write(pipe[1], b"x")
        while waiting.is_backing_off:
            await waiting.wait_readable(pipe[0])

    trio.run(main)


def test_it_goes_on_resting_when_something_comes_late(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        waiting = Waiting(never, moment=1e-6, soon=0.0)
        await rested(waiting, pipe[0])
        os.write(pipe[1], b"x")
        for _ in range(100):
            await waiting.wait_readable(pipe[0])
        assert waiting.is_backing_off

    trio.run(main)


@pytest.mark.parametrize("is_single", [False, True])
def test_it_stays_awake_for_nobody_who_works(pipe: tuple[int, int], is_single: bool) -> None:
    """Requests that are being answered, and the others on a single processor, need the time."""
    processors = os.sched_getaffinity(0)

    async def main() -> None:
        # an hour, if it did
        waiting = Waiting(never if is_single else lambda: 1, moment=3600)
        with trio.move_on_after(0):
            await waiting.wait_readable(pipe[0])
        with trio.move_on_after(0):
            await waiting.wait_readable(pipe[0])

    try:
        os.sched_setaffinity(0, {min(processors)} if is_single else processors)
        trio.run(main)
    finally:
        os.sched_setaffinity(0, processors)


def test_the_end_is_heard_of(pipe: tuple[int, int]) -> None:
    """`pyfuse3.terminate` says so while a task waits."""

    async def main() -> None:
        waiting = Waiting(never)

        async def wait() -> None:
            with pytest.raises(waiting.ClosedResourceError):
                await waiting.wait_readable(pipe[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            waiting.lowlevel.notify_closing(pipe[0])

    trio.run(main)


def test_only_one_has_the_turn() -> None:
    inside = []

    async def task(turn: Turn) -> None:
        for _ in range(20):
            async with turn:
                inside.append(1)
                assert len(inside) == 1
                await trio.lowlevel.checkpoint()
                inside.pop()

    async def main() -> None:
        turn = Waiting(never).Lock()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(task, turn)

    trio.run(main)


def test_who_gives_the_turn_up_may_have_it_again_at_once() -> None:
    """Without another task in between, though one waits; and that one has it when the first has to wait."""
    order: list[str] = []

    async def second(turn: Turn) -> None:
        async with turn:
            order.append("second")

    async def main() -> None:
        turn = Waiting(never).Lock()
        async with trio.open_nursery() as nursery:
            async with turn:
                nursery.start_soon(second, turn)
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                async with turn:
                    order.append("first")
            with trio.fail_after(30):
                await trio.testing.wait_all_tasks_blocked()
            assert order == ["first"] * 5 + ["second"]

    trio.run(main)


def test_all_who_wait_have_their_turn() -> None:
    """However often it is taken again, and when some of those that wait are cancelled."""
    done = []

    async def waits(turn: Turn, scope: trio.CancelScope) -> None:
        with scope:
            async with turn:
                await trio.lowlevel.checkpoint()
            done.append("waited")

    async def main() -> None:
        turn = Waiting(never).Lock()
        scopes = [trio.CancelScope() for _ in range(6)]
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                async with turn:
                    for scope in scopes:
                        nursery.start_soon(waits, turn, scope)
                    await trio.testing.wait_all_tasks_blocked()
                # some of them just when one is woken
                for scope in scopes[::2]:
                    scope.cancel()
                for _ in range(50):
                    async with turn:
                        pass
                    await trio.lowlevel.checkpoint()
        assert len(done) >= 3

    trio.run(main)


def test_what_will_be_asked_for_is_done_while_awake(pipe: tuple[int, int]) -> None:
    """Before the next request comes, and as long as there is something to do; that is no moment for nothing."""

    async def main() -> None:
        done = []

        def go_on() -> bool:
            done.append(True)
            if len(done) == 100:
                os.write(pipe[1], b"x")
            return True

        waiting = Waiting(never, moment=3600, go_on=go_on)
        with trio.fail_after(30):
            while not done:
                with trio.move_on_after(0):
                    await waiting.wait_readable(pipe[0])
        assert len(done) == 100
        assert not waiting.is_backing_off

    trio.run(main)
