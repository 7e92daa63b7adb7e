"""The journal of writes under way: what the next daemon finds in it, whole or torn."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from katafs.fuse.device import UNIQUE_RESEND
from katafs.fuse.journal import Journal, Request

WRITER = ("thread", 77)
COMMIT = bytes(range(20))


@pytest.fixture
def fd() -> Iterator[int]:
    memory = os.memfd_create("journal")
    yield memory
    os.close(memory)


def entries(fd: int) -> list[bytes]:
    """The slots of 64 bytes that hold something: their checksums, which stand first, are not 0."""
    memory = os.pread(fd, os.fstat(fd).st_size, 0)
    slots = [memory[at : at + 64] for at in range(0, len(memory), 64)]
    return [slot for slot in slots if any(slot[:4])]


def begin(journal: Journal, unique: int, *, starts: bool = False) -> Request:
    return journal.begin(unique, 5, WRITER, starts=starts)


def feed(journal: Journal, unique: int, *, begun: bool, finished: bool = False, starts: bool = False) -> None:
    """A part of a message is taken and acknowledged."""
    request = begin(journal, unique, starts=starts)
    journal.fed(request, was_unfinished=begun, is_unfinished=not finished)
    journal.end(request)


def test_a_commit_that_was_announced_is_known_to_the_next_and_the_one_after(fd: int) -> None:
    first = Journal(fd)
    first.announce(begin(first, 6), COMMIT)
    assert begin(Journal(fd), 6 | UNIQUE_RESEND).announced == COMMIT
    following = Journal(fd)
    request = begin(following, 6 | UNIQUE_RESEND)
    assert request.announced == COMMIT
    assert begin(following, 8).announced is None
    following.announce(request, COMMIT[::-1])
    assert begin(Journal(fd), 6).announced == COMMIT[::-1]


def test_what_was_answered_is_forgotten_after_the_answer(fd: int) -> None:
    journal = Journal(fd)
    request = begin(journal, 6)
    journal.announce(request, COMMIT)
    journal.end(request)
    assert begin(Journal(fd), 6).announced == COMMIT, "the answer may not have been sent"
    begin(journal, 8)
    assert not entries(fd)


def test_it_does_not_grow(fd: int) -> None:
    """Through many daemons that die with a write under way, and many writers who never come back."""
    unique = 0
    for _ in range(40):
        journal = Journal(fd)
        for _ in range(100):
            unique += 2
            request = journal.begin(unique, 5, ("thread", unique), starts=True)
            journal.fed(request, was_unfinished=False, is_unfinished=True)
            journal.announce(request, COMMIT)
            if unique % 8:
                journal.end(request)
    assert os.fstat(fd).st_size < 1 << 20
    assert begin(Journal(fd), unique).announced == COMMIT, "the newest is there"


def test_the_rest_of_a_message(fd: int) -> None:
    feed(Journal(fd), 6, begun=False)
    journal = Journal(fd)
    request = begin(journal, 8)
    assert journal.is_rest(request)
    journal.end(request)
    assert not journal.is_rest(begin(journal, 10)), "it is said once"
    assert not entries(fd)


def test_the_first_part_sent_again_is_no_rest(fd: int) -> None:
    journal = Journal(fd)
    journal.fed(begin(journal, 6), was_unfinished=False, is_unfinished=True)
    journal = Journal(fd)
    assert not journal.is_rest(begin(journal, 6 | UNIQUE_RESEND))


@pytest.mark.parametrize("how", ["finished", "truncated", "begun again", "another writer", "long ago"])
def test_what_is_no_rest(fd: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(fd)
    feed(journal, 6, begun=False)
    if how == "finished":
        feed(journal, 8, begun=True, finished=True)
        begin(journal, 10)
    elif how == "truncated":
        journal.truncated(5, WRITER)
    elif how == "long ago":
        monkeypatch.setattr(time, "monotonic", partial(sum, (time.monotonic(), 11)))
    following = Journal(fd)
    writer = ("thread", 78) if how == "another writer" else WRITER
    assert not following.is_rest(following.begin(12, 5, writer, starts=how == "begun again"))


def test_without_a_keeper_nothing_is_written() -> None:
    journal = Journal(None)
    request = begin(journal, 6)
    journal.fed(request, was_unfinished=False, is_unfinished=True)
    journal.announce(request, COMMIT)
    journal.end(request)
    journal.truncated(5, WRITER)


@given(at=st.integers(0, 63), rubbish=st.binary(min_size=1, max_size=64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_entry_that_is_torn_is_none(fd: int, at: int, rubbish: bytes) -> None:
    """It reads as it was, or as nothing, whatever stands in a slot."""
    os.ftruncate(fd, 0)
    journal = Journal(fd)
    journal.announce(begin(journal, 6), COMMIT)
    os.pwrite(fd, rubbish[: 64 - at], at)
    assert begin(Journal(fd), 6).announced in (None, COMMIT)
