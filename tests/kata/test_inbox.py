"""The inbox: however an object is cut into writes, it comes out whole; what is refused, and what is forgotten."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katafs.errors import InvalidError, KataError, TooLargeError
from katafs.kata.record.inbox import Inbox, ObjectScanner

FILE, WRITER = "ran_tests", 4711
LOADS = {"quiet": 1.0, "busy": 1_000.0}
TEXTS = st.text(alphabet='{}[]"\\ aé\U0001f600\n', max_size=10)
VALUES = st.recursive(
    st.none() | st.integers(-9, 10**9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=4)
BLANKS = st.text(alphabet=" \t\r\n", max_size=5).map(str.encode)


@pytest.fixture(autouse=True, params=["quiet"])
def load(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many processes want to run: an unfinished message waits the longer for it."""
    monkeypatch.setattr(os, "getloadavg", lambda: (LOADS[request.param],) * 3)


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if start < end]


def feed_all(inbox: Inbox, pieces: Sequence[bytes], writer: int = WRITER, start: int = 0) -> list[bytes]:
    """Write the pieces one after another; the messages that come out."""
    messages, offset = [], start
    for piece in pieces:
        message = inbox.feed(FILE, writer, offset, piece, now=0.0)
        messages += [message.data] if message is not None else []
        offset += len(piece)
    return messages


@given(OBJECTS, st.booleans(), BLANKS, BLANKS, st.lists(st.integers(0, 10**6), max_size=20))
def test_any_object_cut_anywhere(
    value: dict[str, Any], is_ascii: bool, before: bytes, after: bytes, places: list[int]
) -> None:
    inbox = Inbox()
    data = before + json.dumps(value, ensure_ascii=is_ascii).encode() + after
    (message,) = feed_all(inbox, cut(data, places))
    assert json.loads(message) == value
    assert not inbox.is_unfinished(FILE, WRITER)
    # and the next one, through the same descriptor or a new one
    (message,) = feed_all(inbox, [data], start=len(data))
    assert json.loads(message) == value


@given(st.lists(st.tuples(OBJECTS, st.lists(st.integers(0, 10**6), max_size=6)), max_size=6), st.integers(0, 99))
def test_writers_at_the_same_time(messages: list[tuple[dict[str, Any], list[int]]], seed: int) -> None:
    inbox = Inbox()
    waiting = [cut(json.dumps(value).encode(), places) for value, places in messages]
    offsets = [0] * len(waiting)
    found: dict[int, Any] = {}
    chance = random.Random(seed)
    while any(waiting):
        writer = chance.choice([number for number, pieces in enumerate(waiting) if pieces])
        piece = waiting[writer].pop(0)
        message = inbox.feed(FILE, writer, offsets[writer], piece, now=0.0)
        offsets[writer] += len(piece)
        if message is not None:
            assert writer not in found
            found[writer] = json.loads(message.data)
    assert found == {number: value for number, (value, _) in enumerate(messages)}


def end_of_object(data: bytes) -> int | None:
    """The same question, asked one byte after another."""
    depth, in_string, is_escaped = 0, False, False
    for position, byte in enumerate(data, 1):
        if in_string:
            in_string = is_escaped or byte != ord('"')
            is_escaped = not is_escaped and byte == ord("\\")
        elif byte == ord('"'):
            in_string = True
        elif byte in b"{}[]":
            depth += 1 if byte in b"{[" else -1
            if depth <= 0:
                return position
    return None


def is_json(data: bytes) -> bool:
    """Whether a parser takes it."""
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@settings(max_examples=500)
@given(st.text(alphabet='{}[]"\\ a', max_size=40), st.lists(st.integers(0, 40), max_size=6))
def test_the_scanner_finds_the_end(text: str, places: list[int]) -> None:
    data = b"{" + text.encode()
    end = end_of_object(data)
    scanner = ObjectScanner()
    at = 0
    for piece in cut(data, places):
        at += len(piece)
        if end is None or at < end:
            assert not scanner.feed(piece)
            continue
        try:
            assert scanner.feed(piece)
        except InvalidError:
            assert set(data[end:at]) & set(b'{}[]"'), "nothing stands behind the object"
        else:
            # strings may pass here; it is no JSON then
            assert not data[end:at].strip() or not is_json(data[:at])
        return


@pytest.mark.parametrize("flood", [b"[", b"[]", b'"",', b'"\\"', b"\\"])
def test_the_scanner_is_linear(flood: bytes) -> None:
    """A mebibyte of the worst, in an open string too: some 0.1 s each; something quadratic would take hours."""
    for begin in (b"{", b'{"'):
        assert not ObjectScanner().feed(begin + flood * ((1 << 20) // len(flood)))


def test_one_byte_after_another() -> None:
    data = json.dumps({"files": {"é": {"content": '"\\{'}}}, ensure_ascii=False).encode()
    assert feed_all(Inbox(), [bytes([byte]) for byte in data]) == [data]


@pytest.mark.parametrize("data", [b"x", b"[]", b'"text"', b"1", b"\xef\xbb\xbf{}", b"\0{}", b"}", b" \n]"])
def test_what_does_not_begin_as_an_object(data: bytes) -> None:
    inbox = Inbox()
    with pytest.raises(InvalidError, match="starts with"):
        inbox.feed(FILE, WRITER, 0, data, now=0.0)
    assert feed_all(inbox, [b"{}"]) == [b"{}"]


def test_blanks_alone_begin_nothing() -> None:
    inbox = Inbox()
    assert feed_all(inbox, [b" ", b"\r\n\t"]) == []
    assert not inbox.is_unfinished(FILE, WRITER)


@pytest.mark.parametrize("data", [b"{}{}", b'{"a":1} [', b'{} "', b"{}}"])
def test_something_after_the_object(data: bytes) -> None:
    with pytest.raises(InvalidError, match="something after"):
        Inbox().feed(FILE, WRITER, 0, data, now=0.0)


# -- errors


def refuse_in_pieces(inbox: Inbox) -> None:
    """A message of which a second write, at offset 5, is refused."""
    inbox.feed(FILE, WRITER, 0, b'{"a":', now=0.0)
    with pytest.raises(InvalidError, match="something after"):
        inbox.feed(FILE, WRITER, 5, b"1}}", now=0.0)


def test_the_rest_of_a_refused_message_hears_the_same() -> None:
    inbox = Inbox()
    refuse_in_pieces(inbox)
    assert not inbox.is_unfinished(FILE, WRITER)
    for now in (1.0, 9.0, 18.0):
        with pytest.raises(InvalidError, match="something after"):
            inbox.feed(FILE, WRITER, 5, b'1"}', now=now)


@pytest.mark.parametrize(
    ("offset", "data", "now"),
    [
        pytest.param(0, b"{}", 1.0, id="from the start"),
        pytest.param(8, b" {}", 1.0, id="further on"),
        pytest.param(5, b" {} ", 1.0, id="a whole object at the failed offset"),
        pytest.param(5, b"{}", 10.5, id="later"),
    ],
)
def test_anew_after_a_refusal(offset: int, data: bytes, now: float) -> None:
    inbox = Inbox()
    refuse_in_pieces(inbox)
    message = inbox.feed(FILE, WRITER, offset, data, now=now)
    assert message is not None
    assert message.data.strip() == b"{}"


def test_anew_after_a_refusal_and_a_truncation() -> None:
    inbox = Inbox()
    refuse_in_pieces(inbox)
    assert not inbox.drop(FILE, WRITER), "there was no unfinished message any more"
    assert inbox.feed(FILE, WRITER, 5, b'{"a":', now=1.0) is None
    assert inbox.is_unfinished(FILE, WRITER)


def test_a_refused_first_write_leaves_nothing() -> None:
    inbox = Inbox()
    with pytest.raises(InvalidError):
        inbox.feed(FILE, WRITER, 0, b"{}}", now=0.0)
    assert feed_all(inbox, [b'{"b"', b":1}"]) == [b'{"b":1}']


def test_a_refusal_from_outside_is_kept_for_its_writer_only() -> None:
    inbox = Inbox()
    inbox.refuse(FILE, WRITER, 100, TooLargeError("so it is"), now=0.0)
    with pytest.raises(TooLargeError, match="so it is"):
        inbox.feed(FILE, WRITER, 100, b"rest", now=0.0)
    assert feed_all(inbox, [b"{}"], writer=1, start=100) == [b"{}"]
    assert inbox.expire(now=9.0) == []
    assert inbox.expire(now=11.0) == [], "no message was dropped"
    with pytest.raises(InvalidError, match="starts with"):
        inbox.feed(FILE, WRITER, 100, b"rest", now=11.0)


def test_the_largest_message() -> None:
    inbox = Inbox(message_limit=100)
    data = b'{"a":"' + b"x" * 92 + b'"}'
    assert feed_all(inbox, [data]) == [data]
    assert feed_all(inbox, [data[:50], data[50:]]) == [data]
    with pytest.raises(TooLargeError):
        feed_all(inbox, [b'{"a":"' + b"x" * 93 + b'"}'])
    with pytest.raises(TooLargeError):
        feed_all(inbox, [data[:50], b"x" + data[50:]])
    with pytest.raises(TooLargeError):
        inbox.feed(FILE, WRITER, 50, b"more", now=0.0)
    assert feed_all(inbox, [data]) == [data]


def test_all_unfinished_messages_together() -> None:
    inbox = Inbox(message_limit=100, total_limit=150)
    begin = b'{"a":"' + b"x" * 54
    for _ in range(3):  # nothing of a round is counted in the next
        inbox.feed(FILE, 1, 0, begin, now=0.0)
        inbox.feed("another file", 1, 0, begin, now=0.0)
        with pytest.raises(TooLargeError):
            inbox.feed(FILE, 2, 0, begin, now=0.0)
        with pytest.raises(TooLargeError):
            inbox.feed(FILE, 1, 60, begin, now=0.0)
        message = inbox.feed("another file", 1, 60, b'"}', now=0.0)
        assert message is not None
        inbox.refuse("another file", 1, 60, InvalidError("no"), now=0.0)
        assert inbox.feed(FILE, 2, 0, begin, now=0.0) is None
        inbox.refuse(FILE, 2, 60, InvalidError("no"), now=0.0)
        inbox.drop(FILE, 2)
        inbox.drop("another file", 1)


# -- who, where and when


def test_a_writer_without_a_name() -> None:
    """It has to send a whole message; two of them are not taken for one."""
    inbox = Inbox()
    message = inbox.feed(FILE, None, 0, b' {"a": 1}\n', now=0.0)
    assert message is not None
    assert not message.in_pieces
    for _ in range(2):
        with pytest.raises(InvalidError, match="in one write"):
            inbox.feed(FILE, None, 0, b'{"a":', now=0.0)
    assert inbox.feed(FILE, None, 0, b"{}", now=0.0) is not None


def test_a_file_position_back_at_the_start() -> None:
    inbox = Inbox()
    inbox.feed(FILE, WRITER, 0, b'{"lost":', now=0.0)
    assert feed_all(inbox, [b'{"a":', b"1}"]) == [b'{"a":1}']


def test_an_appending_writer_is_not_sent_back_by_others() -> None:
    inbox = Inbox()
    assert inbox.feed(FILE, WRITER, 300, b'{"a":', now=0.0, appends=True) is None
    message = inbox.feed(FILE, WRITER, 0, b"1}", now=0.0, appends=True)
    assert message is not None
    assert (message.data, message.in_pieces) == (b'{"a":1}', True)


def test_what_is_not_finished_in_time() -> None:
    inbox = Inbox()
    inbox.feed(FILE, 1, 0, b'{"a":', now=0.0)
    inbox.feed(FILE, 2, 0, b'{"a":', now=0.0)
    inbox.feed(FILE, 2, 5, b'"b', now=9.0)
    assert inbox.expire(now=10.0) == []
    assert inbox.expire(now=10.1) == [FILE]
    assert [inbox.is_unfinished(FILE, writer) for writer in (1, 2)] == [False, True]
    assert inbox.feed(FILE, 2, 7, b'"}', now=18.0) is not None


def test_a_late_piece_does_not_complete_a_message() -> None:
    inbox = Inbox()
    inbox.feed(FILE, WRITER, 0, b'{"a":', now=0.0)
    with pytest.raises(KataError, match="starts with"):
        inbox.feed(FILE, WRITER, 5, b"1}", now=10.1)


@pytest.mark.parametrize("load", ["busy"], indirect=True)
def test_who_waits_for_a_processor_has_not_stopped() -> None:
    inbox = Inbox()
    inbox.feed(FILE, WRITER, 0, b'{"a":', now=0.0)
    assert inbox.expire(now=30.0) == []
    assert inbox.feed(FILE, WRITER, 5, b"1}", now=30.0) is not None
