"""Messages in pieces from clients of eight runtimes: each is recorded as it was sent, or refused in words. Runs with
``--clients``, and in CI."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks.restarts import say
from tests.clients.senders import WAYS, Run, Runtime, refused, runtimes, sent
from tests.katas import Served, serve_kata
from tests.mounts import Mount

KATAS = 20


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest) -> Iterator[list[Runtime]]:
    if not request.config.getoption("--clients"):
        pytest.skip("needs many runtimes: run with --clients")
    # which every user can read
    with tempfile.TemporaryDirectory(prefix="katafs-clients-") as directory:
        os.chmod(directory, 0o755)
        yield runtimes(Path(directory))


# 200 senders, 25 of each; 10,000 messages
@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_all_at_once(programs: list[Runtime], served: Mount, count: int) -> None:
    """Each opens the file himself: nobody is refused."""
    katas = [serve_kata(served) for _ in range(KATAS)]
    runs = [
        Run(runtime, [katas[(number + turn) % KATAS] for turn in range(25)], count, 2_000)
        for number, runtime in enumerate(programs)
    ]
    heard = sent(runs, 60 * count)
    assert refused(katas, heard) == []
    say(f"{len(heard)} messages: {Counter(heard.values())}")


def test_alone(programs: list[Runtime], served: Mount) -> None:
    """Every way to write, one at a time."""
    assert alone(programs, serve_kata(served)) == []


def test_alone_where_nobody_is_asked(programs: list[Runtime], unasked: Served) -> None:
    """All but several processes that append: where one of them writes says nothing, so that it takes one write."""
    assert {who.partition("-")[0] for who in alone(programs, unasked, as_other=True)} == {"bash3", "dash3"}


def alone(programs: list[Runtime], kata: Served, *, as_other: bool = False) -> list[str]:
    heard: dict[str, str] = {}
    for first in range(WAYS):
        for runtime in programs:
            heard |= sent([Run(runtime, [kata], 2, 9_000, first)], 60, as_other=as_other)
    return refused([kata], heard)


@pytest.mark.parametrize("count", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_where_nobody_is_asked(programs: list[Runtime], unasked: Served, count: int) -> None:
    """What cannot be told apart is refused, and nothing is mixed."""
    runs = [Run(runtime, [unasked] * 4, count, 500, 2 * number) for number, runtime in enumerate(programs)]
    heard = sent(runs, 60 * count, as_other=True)
    said = refused([unasked], heard)
    say(f"{len(heard)} messages, {len(said)} refused: {Counter(heard.values())}")
    assert all("nvalid argument" in line or line.endswith((" failed", " EINVAL")) for line in said)
