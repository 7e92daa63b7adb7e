"""Messages that arrive in pieces: finding where a JSON object ends, one buffer for each writer.

The kernel gives a message as one or many writes, and several clients may write to one control file at once
(INTERFACE §4). Bytes count in the order of arrival from one writer; offsets only tell a new start from a repetition.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import NamedTuple

from katafs.errors import InvalidError, KataError, TooLargeError

MESSAGE_LIMIT = 16 << 20  # bytes
TOTAL_LIMIT = 256 << 20  # bytes of all unfinished messages together
UNFINISHED_SECONDS = 10.0
# a sender who waits for a processor as long as that, among so many others, has not stopped
_BUSY = 2.0  # processes that want to run, by processor
_PROCESSORS = os.cpu_count() or 1

_BLANK = b" \t\r\n"
# a string: it ends at a quote, or the data ends first, perhaps within an escape
_STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|(\\?)\Z)', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_STEP = {byte: 1 if byte in b"{[" else -1 for byte in b"{}[]"}


# bytes: one to four milliseconds
_SLICE = 64 << 10


def unfinished_seconds() -> float:
    """How long an unfinished message waits for its next piece: 10 s, and more where too many wait for a processor."""
    return UNFINISHED_SECONDS * max(1.0, os.getloadavg()[0] / _PROCESSORS / _BUSY)


def is_overdue(seconds: float) -> bool:
    """Whether the next piece of a message has been waited for so long that it is not to come any more."""
    # the load is a file that is read: not for every piece
    return seconds > UNFINISHED_SECONDS and seconds > unfinished_seconds()


class Scanned(NamedTuple):
    """What an `ObjectScanner` makes of some bytes, if it is as ``before``."""

    data: bytes
    before: ObjectScanner
    after: ObjectScanner
    is_end: bool | InvalidError


@dataclass
class ObjectScanner:
    """Finds the end of a JSON object in bytes that come in pieces. It does not check that it is JSON. All that looks at
    single bytes is done by C: a mebibyte takes some milliseconds, of nothing but brackets or quotes some dozen; in
    small slices, so that other threads have a turn."""

    _depth: int = 0
    _in_string: bool = False
    _escaped: bool = False

    def scan(self, data: bytes) -> Scanned:
        """What `feed` would do with these bytes now, for a later `feed`. In any thread; changes nothing."""
        after = replace(self)
        try:
            is_end: bool | InvalidError = after.feed(data)
        except InvalidError as error:
            is_end = error
        return Scanned(data, replace(self), after, is_end)

    def use(self, scanned: Scanned | None, data: bytes) -> bool:
        """Do as `feed`, with what is known already if it is about these bytes at this place."""
        if scanned is None or scanned.before != self or scanned.data != data:
            return self.feed(data)
        if isinstance(scanned.is_end, InvalidError):
            raise scanned.is_end
        vars(self).update(vars(scanned.after))
        return scanned.is_end

    def feed(self, data: bytes) -> bool:
        """Whether the object ends in ``data``. Raises `InvalidError` when there are brackets after its end."""
        is_end = False
        for at in range(0, len(data), _SLICE):
            is_end = self._feed(data[at : at + _SLICE], is_end=is_end)
        if is_end and self._in_string:
            raise InvalidError("there is something after the JSON object")
        return is_end

    def _feed(self, data: bytes, *, is_end: bool) -> bool:
        """The same for one slice; ``is_end``: after one in which the object has ended."""
        if self._in_string:
            # one that was cut off goes on
            data = (b'"\\' if self._escaped else b'"') + data
        # what stands between strings, and for each string in turn how it is cut off, if it is
        parts = _STRINGS.split(data)
        if len(parts) > 1:
            self._in_string, self._escaped = parts[-2] is not None, parts[-2] == b"\\"
        brackets = b"".join(parts[::2]).translate(None, _NOT_BRACKETS)
        if is_end:
            if brackets:
                raise InvalidError("there is something after the JSON object")
            return True
        depths = list(accumulate(map(_STEP.__getitem__, brackets), initial=self._depth))
        self._depth = depths[-1]
        try:
            end = depths.index(0, 1)
        except ValueError:
            return False
        if end < len(depths) - 1:
            raise InvalidError("there is something after the JSON object")
        return True


@dataclass
class _Unfinished:
    touched: float
    scanner: ObjectScanner = field(default_factory=ObjectScanner)
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    refused_at: int = -1
    refusal: KataError | None = None


class Message(NamedTuple):
    """A whole JSON object, and whether it came in more than one write."""

    data: bytes
    in_pieces: bool


class Inbox:
    """The unfinished messages of all control files. A writer is any hashable value; ``file`` names the control file.
    All calls take the present time in seconds (monotonic)."""

    def __init__(self, message_limit: int = MESSAGE_LIMIT, total_limit: int = TOTAL_LIMIT) -> None:
        self._limit = message_limit
        self._total_limit = total_limit
        self._unfinished: dict[tuple[Hashable, Hashable], _Unfinished] = {}
        # what is known already of the large write that comes next
        self._scanned: Scanned | None = None
        self._size = 0

    def scan(self, file: Hashable, writer: Hashable | None, data: bytes) -> Scanned:
        """Look at a large write before it is taken by `feed`, in another thread than the one that calls `feed`."""
        known = self._unfinished.get((file, writer))
        if known is None or known.refusal is not None:
            return ObjectScanner().scan(data.lstrip(_BLANK))
        return known.scanner.scan(data)

    def expect(self, scanned: Scanned) -> None:
        self._scanned = scanned

    def feed(
        self, file: Hashable, writer: Hashable | None, offset: int, data: bytes, now: float, *, appends: bool = False
    ) -> Message | None:
        """Take one write. Returns the message that it completes, or None when more is to come or it was blank.

        ``writer`` is None for one that the kernel cannot name: its message must be whole. With ``appends``
        (O_APPEND) the kernel chose the offset. Raises `InvalidError` (EINVAL) or `TooLargeError` (EFBIG), and nothing
        of the message is kept: where earlier writes of it were accepted, the same error comes again for a write at
        the same offset, since the kernel repeats the rest of a write(2) that was accepted in part. (One whole object
        is no such rest, which has the end of what was begun before; it is taken.)
        """
        key = (file, writer)
        known = self._current(key, offset, data, now, appends=appends)
        if known is None:
            data = data.lstrip(_BLANK)
            if not data:
                return None
            if data[:1] != b"{":
                raise InvalidError("a message is one JSON object: it starts with {")
            known = _Unfinished(now)
        is_first = not known.pieces
        try:
            return self._add(key, known, data, now)
        except KataError as error:
            if is_first:
                self.drop(file, writer)
            else:
                self.refuse(file, writer, offset, error, now)
            raise

    def _current(
        self, key: tuple[Hashable, Hashable], offset: int, data: bytes, now: float, *, appends: bool
    ) -> _Unfinished | None:
        known = self._unfinished.get(key)
        if known is None:
            return None
        is_old = is_overdue(now - known.touched)
        if known.refusal is not None and known.refused_at == offset and not is_old and not _is_whole(data):
            known.touched = now
            raise known.refusal.with_traceback(None)
        # A file position that is back at the start is a file opened again: without OPEN nothing else tells. But a
        # writer with O_APPEND is sent back to the start whenever somebody else truncates the file.
        restarted = offset == 0 and not appends
        if known.refusal is not None or restarted or is_old:
            self.drop(*key)
            return None
        return known

    def _add(self, key: tuple[Hashable, Hashable], known: _Unfinished, data: bytes, now: float) -> Message | None:
        if known.size + len(data) > self._limit:
            raise TooLargeError(f"the message is larger than {self._limit} bytes")
        scanned, self._scanned = self._scanned, None
        if not known.scanner.use(scanned, data):
            if key[1] is None:
                raise InvalidError("a writer that has no process id here must send its message in one write")
            if self._size + len(data) > self._total_limit:
                raise TooLargeError("too many unfinished messages")
            known.pieces.append(data)
            known.size += len(data)
            known.touched = now
            self._size += len(data)
            self._unfinished[key] = known
            return None
        self.drop(*key)
        return Message(b"".join([*known.pieces, data]), bool(known.pieces))

    def refuse(self, file: Hashable, writer: Hashable | None, offset: int, error: KataError, now: float) -> None:
        """Remember that the write at ``offset``, the last of several, was refused after it was complete."""
        self.drop(file, writer)
        self._unfinished[(file, writer)] = _Unfinished(now, refused_at=offset, refusal=error)

    def refusal(self, file: Hashable, writer: Hashable | None) -> KataError | None:
        known = self._unfinished.get((file, writer))
        return known.refusal if known is not None else None

    def is_unfinished(self, file: Hashable, writer: Hashable | None) -> bool:
        return self.size(file, writer) > 0

    def is_begun(self, file: Hashable, writer: Hashable | None) -> bool:
        """Whether something is kept of that writer: a part of a message, or its refusal."""
        return (file, writer) in self._unfinished

    def size(self, file: Hashable, writer: Hashable | None) -> int:
        """How many bytes of an unfinished message that writer has sent."""
        known = self._unfinished.get((file, writer))
        return known.size if known is not None else 0

    def drop(self, file: Hashable, writer: Hashable | None) -> bool:
        """Forget what that writer has sent; whether there was an unfinished message."""
        known = self._unfinished.pop((file, writer), None)
        if known is None:
            return False
        self._size -= known.size
        return known.refusal is None

    def __len__(self) -> int:
        return sum(known.refusal is None for known in self._unfinished.values())

    def expire(self, now: float, is_gone: Callable[[Hashable], bool] = lambda _writer: False) -> list[Hashable]:
        """Forget what has waited for too long, or has a writer who is gone; the control files whose messages were
        dropped."""
        unfinished = self._unfinished.items()
        old = [key for key, known in unfinished if is_overdue(now - known.touched) or is_gone(key[1])]
        return [key[0] for key in old if self.drop(*key)]


def _is_whole(data: bytes) -> bool:
    try:
        return data.lstrip(_BLANK)[:1] == b"{" and ObjectScanner().feed(data)
    except InvalidError:
        return False
