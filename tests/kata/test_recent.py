"""Rows that follow those that are known: the same as if all were read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from katafs.errors import DamagedError, HeavyError
from katafs.git import GitRepo, GitWriter
from katafs.git.budget import Budget
from katafs.kata.model.rows import parse_rows
from katafs.kata.read import state
from tests.katas import make_kata, pretty_json

ROWS = [{"index": index, "text": f"{index}, ]\n\u2028 [", "nested": {"a": [index, {}]}} for index in range(30)]


@pytest.fixture
def repo(store: Path) -> Iterator[GitRepo]:
    state._known.clear()
    repo = GitRepo(make_kata(store, "AbCdEf"))
    yield repo
    state._known.clear()


def rows_of(repo: GitRepo, text: bytes) -> list[dict[str, object]]:
    with GitWriter(repo) as writer:
        oid = writer.blob(text)
        # whatever was known before: as a whole reader sees it
        assert state.rows_in(repo, oid) == parse_rows(text)
        return state.rows_in(repo, oid)


@pytest.mark.parametrize("end", [b"", b"\n", b" \n\n"])
def test_some_more_each_time(repo: GitRepo, end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    real = parse_rows

    def parse(text: bytes, budget: Budget) -> list[dict[str, object]]:
        parsed.append(len(text))
        return real(text, budget)

    monkeypatch.setattr(state, "parse_rows", parse)
    for count in (1, 2, 3, 10, 11, 30):
        known = rows_of(repo, pretty_json(ROWS[:count]).rstrip() + end)
        assert known == ROWS[:count]
    assert parsed[1] < len(pretty_json(ROWS[:2])), "only what is new"
    assert parsed[-1] < len(pretty_json(ROWS)) * 0.7


@pytest.mark.parametrize(
    "following",
    [
        pretty_json([{**ROWS[0], "text": "another"}, *ROWS[1:4]]),
        pretty_json(ROWS[:2]),
        pretty_json(ROWS[1:5]),
        json.dumps(ROWS[:4]).encode(),
        pretty_json(ROWS[:3])[:-3] + b',\n  {"index": 3}\n]\n',
        b",\n".join(json.dumps(row).encode() for row in ROWS[:4]),
    ],
)
def test_something_else(repo: GitRepo, following: bytes) -> None:
    rows_of(repo, pretty_json(ROWS[:3]))
    rows_of(repo, following)
    rows_of(repo, pretty_json(ROWS[:5]))


def told(read: Callable[[], object]) -> object:
    try:
        return read()
    except DamagedError as error:
        return str(error)


@pytest.mark.parametrize(
    "added", [b"", b",", b" 1", b', {"a": 1', b'], {"a": 1}', b', {"a": 1}], [{"a": 1}', b", null", b', {"a": 1}']
)
def test_what_is_no_row(repo: GitRepo, added: bytes) -> None:
    """It is told as it is when all is read."""
    first = pretty_json(ROWS[:3])
    rows_of(repo, first)
    text = first.rstrip()[:-2] + added + b"\n]\n"
    with GitWriter(repo) as writer:
        oid = writer.blob(text)
        assert told(lambda: state.rows_in(repo, oid)) == told(lambda: parse_rows(text))


def test_another_repository_has_its_own(repo: GitRepo, store: Path) -> None:
    """Whoever knows the id of a blob that he lacks sees nothing of it."""
    other = GitRepo(make_kata(store, "GhJkLm"))
    with GitWriter(repo) as writer:
        oid = writer.blob(pretty_json(ROWS))
        assert state.rows_in(repo, oid) == ROWS
        with pytest.raises(DamagedError, match="missing"):
            state.rows_in(other, oid)


def test_what_is_large_is_not_kept(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state._known, "_largest", 1000)
    text = pretty_json(ROWS)
    assert len(text) > 1000
    rows_of(repo, text)
    assert not state._known.kept().entries


def test_thousands_of_rows_follow_in_the_event_loop(repo: GitRepo) -> None:
    """Of more than 2,700 events each look after an event was asked of another process."""
    rows = [{**ROWS[index % 30], "text": "x" * 100} for index in range(4500)]
    long, longer = pretty_json(rows[:-1]), pretty_json(rows)
    assert len(long) > 900_000
    repo.budget = Budget(10_000.0)
    with pytest.raises(HeavyError):
        state.rows_in(repo, bytes(20), long)
    repo.budget = Budget()
    state.rows_in(repo, bytes(20), long)
    repo.budget = Budget(10_000.0)
    assert state.rows_in(repo, bytes([1] * 20), longer) == rows
