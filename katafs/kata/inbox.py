"""Messages that arrive in pieces: finding where a JSON object ends, one buffer for each writer.

The kernel gives a message as one or many writes, and several clients may write to one control file at once
(INTERFACE §4). Bytes count in the order of arrival from one writer; offsets only tell a new start from a repetition.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from katafs.errors import InvalidError, KataError, TooLargeError

MESSAGE_LIMIT = 16 << 20  # bytes
TOTAL_LIMIT = 256 << 20  # bytes of all unfinished messages together
UNFINISHED_SECONDS = 10.0

_BLANK = b" \t\r\n"
_TEXT = re.compile(rb'(?:[^"\\]|\\.)*+', re.DOTALL)
_BETWEEN = re.compile(rb'[^"{}\[\]]*+')


class ObjectScanner:
    """Finds the end of a JSON object in bytes that come in pieces. It does not check that it is JSON."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> int | None:
        """The position after the object's last byte in ``data``, or None while it goes on."""
        at = 1 if self._escaped else 0
        self._escaped = False
        while at < len(data):
            if self._in_string:
                at = self._skip(_TEXT, data, at)
                if at < len(data):
                    # a quote ends the string; a lone backslash waits for its partner in the next piece
                    self._in_string = data[at] != 0x22
                    self._escaped = self._in_string
                    at += 1
                continue
            at = self._skip(_BETWEEN, data, at)
            if at == len(data):
                break
            byte = data[at]
            at += 1
            if byte == 0x22:
                self._in_string = True
            elif byte in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    return at
        return None

    @staticmethod
    def _skip(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
        match = pattern.match(data, at)
        return match.end() if match is not None else at


@dataclass
class _Unfinished:
    """What one writer has sent so far, or the refusal that it must hear again."""

    touched: float
    scanner: ObjectScanner = field(default_factory=ObjectScanner)
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    next_offset: int = 0
    refused_at: int = -1
    refusal: KataError | None = None


class Message(NamedTuple):
    """A whole JSON object, and whether it came in more than one write."""

    data: bytes
    in_pieces: bool


class Inbox:
    """The unfinished messages of all control files. A writer is any hashable value; ``file`` names the control file.

    All calls take the present time in seconds (monotonic).
    """

    def __init__(self, message_limit: int = MESSAGE_LIMIT, total_limit: int = TOTAL_LIMIT) -> None:
        self._limit = message_limit
        self._total_limit = total_limit
        self._unfinished: dict[tuple[Hashable, Hashable], _Unfinished] = {}
        self._size = 0

    def feed(self, file: Hashable, writer: Hashable | None, offset: int, data: bytes, now: float) -> Message | None:
        """Take one write. Returns the message that it completes, or None when more is to come or it was blank.

        ``writer`` is None for one that the kernel cannot name: its message must be whole. Raises `InvalidError`
        (EINVAL) or `TooLargeError` (EFBIG), and nothing of the message is kept: where earlier writes of it were
        accepted, the same error comes again for a write at the same offset, since the kernel repeats the rest of a
        write(2) that was accepted in part.
        """
        key = (file, writer)
        known = self._current(key, offset, now)
        if known is None:
            data = data.lstrip(_BLANK)
            if not data:
                return None
            if data[:1] != b"{":
                raise InvalidError("a message is one JSON object: it starts with {")
            known = _Unfinished(now)
        is_first = not known.pieces
        try:
            return self._add(key, known, offset, data, now)
        except KataError as error:
            self.drop(file, writer)
            if not is_first:
                refused = _Unfinished(now, refused_at=offset, refusal=error)
                self._unfinished[key] = refused
            raise

    def _current(self, key: tuple[Hashable, Hashable], offset: int, now: float) -> _Unfinished | None:
        known = self._unfinished.get(key)
        if known is None:
            return None
        if known.refusal is not None and known.refused_at == offset and now - known.touched <= UNFINISHED_SECONDS:
            known.touched = now
            raise known.refusal
        # A file position that is back at the start is a file opened again: without OPEN nothing else tells.
        restarted = offset == 0 and known.next_offset > 0
        if known.refusal is not None or restarted or now - known.touched > UNFINISHED_SECONDS:
            self.drop(*key)
            return None
        return known

    def _add(
        self, key: tuple[Hashable, Hashable], known: _Unfinished, offset: int, data: bytes, now: float
    ) -> Message | None:
        if known.size + len(data) > self._limit:
            raise TooLargeError(f"the message is larger than {self._limit} bytes")
        end = known.scanner.feed(data)
        if end is None:
            if key[1] is None:
                raise InvalidError("a writer that has no process id here must send its message in one write")
            if self._size + len(data) > self._total_limit:
                raise TooLargeError("too many unfinished messages")
            known.pieces.append(data)
            known.size += len(data)
            known.touched = now
            known.next_offset = offset + len(data)
            self._size += len(data)
            self._unfinished[key] = known
            return None
        if data[end:].strip(_BLANK):
            raise InvalidError("there is something after the JSON object")
        self.drop(*key)
        return Message(b"".join([*known.pieces, data[:end]]), bool(known.pieces))

    def refuse(self, file: Hashable, writer: Hashable | None, offset: int, error: KataError, now: float) -> None:
        """Remember that the write at ``offset``, the last of several, was refused after it was complete."""
        self._unfinished[(file, writer)] = _Unfinished(now, refused_at=offset, refusal=error)

    def is_unfinished(self, file: Hashable, writer: Hashable | None) -> bool:
        """Whether that writer has begun a message there."""
        known = self._unfinished.get((file, writer))
        return known is not None and known.refusal is None

    def drop(self, file: Hashable, writer: Hashable | None) -> bool:
        """Forget what that writer has sent; whether there was an unfinished message."""
        known = self._unfinished.pop((file, writer), None)
        if known is None:
            return False
        self._size -= known.size
        return known.refusal is None

    def expire(self, now: float) -> list[Hashable]:
        """Forget what has waited for more than 10 s; the control files whose messages were dropped."""
        old = [key for key, known in self._unfinished.items() if now - known.touched > UNFINISHED_SECONDS]
        return [key[0] for key in old if self.drop(*key)]
