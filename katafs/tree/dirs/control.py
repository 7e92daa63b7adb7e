"""``control/`` and the files in it: a message is written, an event is committed, and the outcome can be read back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from katafs.errors import KataError, NotFoundError
from katafs.kata.model.kinds import Kind
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import Committed, Job, record
from katafs.kata.record.inbox import Message
from katafs.kata.record.message import parse_act
from katafs.text import visible
from katafs.tree.catalogue import row_of, standing_in
from katafs.tree.context import Context
from katafs.tree.makers import FixedDir, makes
from katafs.tree.nodes import Node, Owner
from katafs.tree.numbers import Key
from katafs.tree.writable import Controls, MessageFile

_EXPLANATION = """\
Write one JSON object to this file to record {what}.
The write that completes it commits the event; read this file again for the outcome. For example:

{example}

The files {otherwise}, unless the object has the complete new set of them{when}:
  "files": {{ {name}: {{"content": "…"}}, … }}
"""


@makes("control")
class ControlDir(FixedDir):
    """``control/``: the control files."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        super().__init__(ctx, kata, key)
        self.mtime_ns = kata.snapshot(0).time_ns


@makes(*(row.path for row in standing_in("control")))
def _control(ctx: Context, kata: Kata, key: Key) -> Node:
    if not kata.is_writable():
        raise NotFoundError(f"kata {kata.kata_id} is stored in a layout that is read-only")
    return ControlFile(key, ctx.controls, kata, ctx.owner(kata))


class ControlFile(MessageFile):
    """``ran_tests`` or one of its kind."""

    takes_pieces = True

    def __init__(self, key: Key, controls: Controls, kata: Kata, owner: Owner) -> None:
        tip = kata.tip()
        self._text, when = controls.outcome(key)
        super().__init__(key, owner, when or tip.time_ns, controls, kata)
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
            if message is None and inbox.is_unfinished(self.key, writer):
                self._tell_unfinished(inbox.size(self.key, writer))
            return message
        except KataError as error:
            # heard again, it is what the outcome says already
            if error is not known:
                self._tell_error(error)
            raise

    def _tell_unfinished(self, size: int) -> None:
        text = f"the message is not finished: {size} bytes of it are there"
        self._controls.tell(self.key, {"ok": False, "errno": "EINPROGRESS", "message": text})

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
            self._controls.inbox.refuse(self.key, again_at[0], again_at[1], error, time.monotonic())
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
