"""``control/`` and ``config/``: a message or a value is written, and committed, and what became of it can be read."""

from __future__ import annotations

import json
import time
from abc import abstractmethod
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from katafs.errors import InvalidError, KataError, NotFoundError
from katafs.kata.legacy.plain_create import migrating
from katafs.kata.model.kinds import Kind
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import Committed, Job, record, set_option
from katafs.kata.record.inbox import Message
from katafs.kata.record.message import parse_act
from katafs.text import decode, visible
from katafs.tree.catalogue import FILE, row_of, standing_in
from katafs.tree.context import Context
from katafs.tree.dirs.contents import ContentFile
from katafs.tree.makers import FixedDir, makes
from katafs.tree.nodes import Node, Writable
from katafs.tree.numbers import Key
from katafs.tree.timeouts import MUTABLE

_EXPLANATION = """\
Write one JSON object to this file to record {what}.
The write that completes it commits the event; read this file again for the outcome. For example:

{example}

The files {otherwise}, unless the object has the complete new set of them{when}:
  "files": {{ {name}: {{"content": "…"}}, … }}
"""
_LONGEST = 64  # bytes of a value
_SECOND = 1_000_000_000


makes("config")(FixedDir)


@makes("control")
def _control(ctx: Context, kata: Kata, key: Key) -> FixedDir:
    directory = FixedDir(ctx, kata, key)
    directory.mtime_ns = kata.snapshot(0).time_ns
    return directory


class MessageFile(Writable):
    """A file to which messages are written. Its size is that of what can be read from it, at any moment."""

    is_direct = True

    def __init__(self, ctx: Context, kata: Kata, key: Key, mtime_ns: int) -> None:
        super().__init__(key, ctx.owner(kata), mtime_ns)
        self.kata_id = kata.kata_id
        self._path, self._is_legacy = kata.home, kata.plain_version() is not None
        self._controls = ctx.controls

    @abstractmethod
    def content(self) -> bytes:
        """What can be read."""

    @abstractmethod
    def job(self, message: Message) -> Job:
        """What a message says is to be done. Raises `InvalidError`."""

    def parse(self, message: Message, offset: int) -> Job:
        job = self.job(message)
        return migrating(job) if self._is_legacy else job

    def size(self) -> int:
        size = len(self.content())
        self._controls.told_size(self.key, size)
        return size

    def has_told(self, start: int, end: int, *, is_exact: bool) -> bool:
        return any(size == end if is_exact else start <= size <= end for size in self._controls.sizes(self.key))

    def read(self, offset: int, length: int) -> bytes:
        return self.content()[offset : offset + length]

    def taken(self, offset: int, data: bytes, message: Message) -> None:
        self._controls.taken(self.key, offset, data, message)

    def check_settable(self, length: int | None) -> None:
        """Tools set all that after they have copied; the length, to that of what they have copied."""
        if length and not self._controls.has_length(self.key, length):
            raise InvalidError("it can only be cut to 0, or to the length of what was taken lately")


@makes(*(row.path for row in standing_in("control")))
class ControlFile(MessageFile):
    takes_pieces = True

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        if not kata.is_writable():
            raise NotFoundError(f"kata {kata.kata_id} is stored in a layout that is read-only")
        tip = kata.tip()
        self._text, when = ctx.controls.outcome(key)
        super().__init__(ctx, kata, key, when or tip.time_ns)
        self._kind, self._kata, self._tip = Kind(row_of(key).name.decode()), kata, tip
        self._identity: dict[str, Any] = {}

    def content(self) -> bytes:
        if self._text is None:
            listing = self._kata.files(self._tip.last)
            name = next((listing.paths[position] for position in listing.files()), b"hiker.py")
            self._text = explanation(self._kind, self.kata_id, name).encode()
        return self._text

    def truncate(self, writer: Hashable | None) -> None:
        if self._controls.inbox.drop(self.key, writer):
            self._controls.tell_dropped(self.key)

    def scan(self, writer: Hashable | None, data: bytes) -> Callable[[], None]:
        inbox = self._controls.inbox
        return partial(inbox.expect, inbox.scan(self.key, writer, data))

    def feed(self, writer: Hashable | None, offset: int, data: bytes, *, appends: bool) -> Message | None:
        self._controls.touch(self.key)
        inbox = self._controls.inbox
        known = inbox.refusal(self.key, writer)
        try:
            message = inbox.feed(self.key, writer, offset, data, time.monotonic(), appends=appends)
        except KataError as error:
            # heard again, it is what the outcome says already
            if error is not known:
                self._tell_error(error)
            raise
        if message is None and self.is_unfinished(writer):
            text = f"the message is not finished: {inbox.size(self.key, writer)} bytes of it are there"
            self._controls.tell(self.key, {"ok": False, "errno": "EINPROGRESS", "message": text})
        return message

    def is_unfinished(self, writer: Hashable | None) -> bool:
        return self._controls.inbox.is_unfinished(self.key, writer)

    def job(self, message: Message) -> Job:
        act = parse_act(self._kind, message.data)
        self._identity = {"laptop_id": act.laptop_id, "tab_seq": act.tab_seq.get("tab_seq")}
        return Job(self._path, self.kata_id, record, (act,))

    def accepted(self, committed: Committed | None) -> None:
        assert committed is not None
        outcome = {"ok": True, "recorded": committed.is_new, "index": committed.index, "commit": committed.commit.hex()}
        said = {"message": committed.message} if committed.message else {}
        self._controls.tell(self.key, {**outcome, **said, **self._identity})

    def refused(self, error: KataError, again_at: tuple[Hashable | None, int] | None) -> None:
        if again_at is not None:
            self._controls.inbox.refuse(self.key, *again_at, error, time.monotonic())
        self._tell_error(error)

    def _tell_error(self, error: KataError) -> None:
        outcome = {"ok": False, "errno": error.errno_name, "message": visible(str(error), kept=""), **self._identity}
        self._controls.tell(self.key, outcome)


def explanation(kind: Kind, kata_id: str, name: bytes) -> str:
    """What is read from a control file before anything was written to it; ``name`` is a file of the kata."""
    quoted = json.dumps(name.decode("utf-8", "replace"), ensure_ascii=False)
    facts = kind.facts
    when = ", as they were before" if facts.file_names and kind is not Kind.FILE_EDIT else ""
    filled = facts.example.format(name=quoted, kata_id=kata_id)
    otherwise = "are those of the event that is named" if kind is Kind.REVERTED else "stay as they are"
    text = _EXPLANATION if kind is not Kind.CHECKED_OUT else _EXPLANATION.partition("The files")[0]
    return text.format(what=facts.explanation, example=filled, otherwise=otherwise, when=when, name=quoted)


@makes(*(row.path for row in standing_in("config")))
def _option(ctx: Context, kata: Kata, key: Key) -> Node:
    if kata.is_writable():
        return OptionFile(ctx, kata, key)
    name = row_of(key).name.decode()
    data = kata.options(kata.tip())[name].encode() + b"\n"
    file = ContentFile(key, ctx, kata.option_times()[name], kata, data)
    file.mode, file.attr_timeout = FILE, MUTABLE
    return file


class OptionFile(MessageFile):
    """``config/NAME``: the value and a newline. Every write is one whole value."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        self._name = row_of(key).name.decode()
        # A commit has whole seconds. The rest is of the last write, by which the kernel sees that there was one.
        mtime_ns = kata.option_times()[self._name] + ctx.controls.outcome(key)[1] % _SECOND
        super().__init__(ctx, kata, key, mtime_ns)
        self._value = kata.options(kata.tip())[self._name]

    def content(self) -> bytes:
        return self._value.encode() + b"\n"

    def feed(self, writer: Hashable | None, offset: int, data: bytes, *, appends: bool) -> Message | None:
        self._controls.touch(self.key)
        if len(data) > _LONGEST:
            raise InvalidError(f"{self._name}: the value is too long")
        return Message(data, in_pieces=False) if data.strip() else None

    def job(self, message: Message) -> Job:
        return Job(self._path, self.kata_id, set_option, (self._name, decode(message.data).strip()), "option")
