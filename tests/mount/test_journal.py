"""The journal of writes under way: what the next daemon finds in it, whole or torn."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from katafs.errors import DiedError
from katafs.fuse.fastopen import UNIQUE_RESEND, Asked
from katafs.fuse.writing.journal import READABLE, VERSION, Journal, Request, about
from katafs.kata.record.inbox import unfinished_seconds

# a process that there is: ours, of which two threads write
ASKED = Asked(thread=os.getpid())
INODE, OFFSET, REST = 5, 100, b'"rest"}'
COMMIT = bytes(range(20))


@pytest.fixture
def fd() -> Iterator[int]:
    memory = os.memfd_create("journal")
    yield memory
    os.close(memory)


def entries(fd: int) -> list[bytes]:
    """The slots of 64 bytes that hold something, but for the last: their checksums, which stand first, are not 0."""
    memory = os.pread(fd, os.fstat(fd).st_size - 64, 0)
    slots = [memory[at : at + 64] for at in range(0, len(memory), 64)]
    return [slot for slot in slots if any(slot[:4])]


def begin(journal: Journal, unique: int) -> Request:
    return journal.begin(unique)


def feed(journal: Journal, unique: int, *, asked: Asked = ASKED) -> None:
    """A part of a message is taken and acknowledged."""
    request = begin(journal, unique)
    journal.fed(request, "writer", INODE, asked, OFFSET)
    journal.end(request)


def is_continuation(
    journal: Journal, unique: int, offset: int = OFFSET, data: bytes = REST, asked: Asked = ASKED
) -> bool:
    request = begin(journal, unique)
    try:
        return journal.is_continuation(request, INODE, asked, offset, data)
    finally:
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
            request = begin(journal, unique)
            journal.fed(request, unique, INODE, ASKED, unique)
            journal.announce(request, COMMIT)
            if unique % 8:
                journal.end(request)
    assert os.fstat(fd).st_size < 1 << 20
    assert begin(Journal(fd), unique).announced == COMMIT, "the newest is there"


def test_the_rest_of_a_message(fd: int) -> None:
    feed(Journal(fd), 6)
    journal = Journal(fd)
    assert is_continuation(journal, 8)
    assert not is_continuation(journal, 10), "it is said once"
    begin(journal, 12)
    assert not entries(fd)


def test_the_first_part_sent_again_is_no_rest(fd: int) -> None:
    journal = Journal(fd)
    journal.fed(begin(journal, 6), "writer", INODE, ASKED, OFFSET)
    assert not is_continuation(Journal(fd), 6 | UNIQUE_RESEND, 0, b"{")


def test_a_later_part_sent_again_is_a_rest(fd: int) -> None:
    """Wherever it was expected then."""
    journal = Journal(fd)
    feed(journal, 6)
    journal.fed(begin(journal, 8), "writer", INODE, ASKED, 2 * OFFSET)
    assert is_continuation(Journal(fd), 8 | UNIQUE_RESEND)


APPENDING = ASKED._replace(flags=os.O_APPEND)


@pytest.mark.parametrize(
    ("asked", "offset", "data", "is_one"),
    [
        pytest.param(ASKED, OFFSET, b'{"a": {}}', True, id="what looks like a message, where the rest is expected"),
        pytest.param(
            ASKED._replace(thread=1), OFFSET, REST, True, id="by another process, which may have inherited it"
        ),
        pytest.param(ASKED, 0, b"{", False, id="from the start"),
        pytest.param(ASKED, OFFSET + 1, REST, False, id="elsewhere"),
        pytest.param(APPENDING, OFFSET, REST, False, id="of another open file, that appends"),
    ],
)
def test_what_may_be_a_rest(fd: int, asked: Asked, offset: int, data: bytes, is_one: bool) -> None:
    feed(Journal(fd), 6)
    assert is_continuation(Journal(fd), 8, offset, data, asked) == is_one


@pytest.mark.parametrize(
    ("asked", "data", "is_one"),
    [
        pytest.param(APPENDING, b'{"a": {}}', True, id="by the same process"),
        pytest.param(APPENDING._replace(thread=1), REST, True, id="by another"),
        pytest.param(APPENDING._replace(thread=1), b"{}", False, id="by another, that may be its own"),
        pytest.param(ASKED, REST, False, id="of another open file"),
    ],
)
def test_what_may_be_a_rest_that_is_appended(fd: int, asked: Asked, data: bytes, is_one: bool) -> None:
    """Its place says nothing: it is where the kernel takes the end to be."""
    feed(Journal(fd), 6, asked=APPENDING)
    assert is_continuation(Journal(fd), 8, 7, data, asked) == is_one


@pytest.mark.parametrize("how", ["finished", "truncated afterwards", "long ago"])
def test_what_is_no_rest(fd: int, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(fd)
    feed(journal, 6)
    if how == "finished":
        request = begin(journal, 8)
        journal.over(request, "writer")
        journal.end(request)
        begin(journal, 10)
    elif how == "long ago":
        monkeypatch.setattr(time, "monotonic", partial(sum, (time.monotonic(), unfinished_seconds() * 2)))
    following = Journal(fd)
    if how == "truncated afterwards":
        following.restarted(INODE, ASKED)
    assert not is_continuation(following, 14)


def test_without_a_keeper_nothing_is_written() -> None:
    journal = Journal(None)
    request = begin(journal, 6)
    journal.fed(request, "writer", INODE, ASKED, OFFSET)
    journal.announce(request, COMMIT)
    journal.end(request)
    journal.over(None, "writer")


# -- versions


def test_the_version_before_is_read(fd: int) -> None:
    """It had no version, and noted threads: any part that such a process sends to the file is refused."""
    os.ftruncate(fd, (2048 + 4096) * 64)
    for slot, data in (
        (3, struct.pack("=Q20s", 6, COMMIT)),
        (2050, struct.pack("=QqQd", 5, os.getpid(), 8, time.monotonic())),
    ):
        os.pwrite(fd, struct.pack("=I", zlib.crc32(data)) + data, slot * 64)
    assert about(fd)[0] == 0
    journal = Journal(fd)
    assert about(fd)[0] == VERSION
    assert begin(journal, 6 | UNIQUE_RESEND).announced == COMMIT
    for later in (Journal(fd), journal):
        assert is_continuation(later, 10, 12345)


@pytest.mark.parametrize("how", ["newer", "torn"])
def test_what_cannot_be_read_is_not_guessed(fd: int, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is sent again is refused, and so are parts of messages; all else goes on."""
    feed(Journal(fd), 6)
    header = bytearray(os.pread(fd, 64, os.fstat(fd).st_size - 64))
    header[12] = 99
    if how == "newer":
        header[:4] = struct.pack("=I", zlib.crc32(header[4:17]))
    os.pwrite(fd, header, os.fstat(fd).st_size - 64)
    assert about(fd)[0] not in READABLE
    journal = Journal(fd)
    assert "does not know" in caplog.text
    with pytest.raises(DiedError):
        journal.begin(8 | UNIQUE_RESEND)
    assert is_continuation(journal, 10, 77)
    assert not is_continuation(journal, 12, 0, b"{")
    journal.announce(begin(journal, 14), COMMIT)
    assert begin(Journal(fd), 14 | UNIQUE_RESEND).announced == COMMIT


@given(at=st.integers(0, 63), rubbish=st.binary(min_size=1, max_size=64))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_entry_that_is_torn_is_none(fd: int, at: int, rubbish: bytes) -> None:
    """It reads as it was, or as nothing, whatever stands in a slot."""
    os.ftruncate(fd, 0)
    journal = Journal(fd)
    journal.announce(begin(journal, 6), COMMIT)
    os.pwrite(fd, rubbish[: 64 - at], at)
    assert begin(Journal(fd), 6).announced in (None, COMMIT)
