"""Control files: a message is written, an event is committed, and the outcome can be read back."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import cachetools

from katafs.errors import KataError
from katafs.kata.commit import Committed, record
from katafs.kata.inbox import Inbox, Message
from katafs.kata.kata import Kata
from katafs.kata.kinds import Kind
from katafs.kata.message import Act, parse_act
from katafs.text import pretty_bytes
from katafs.tree.nodes import NEVER, File, Owner
from katafs.tree.numbers import FIXED, Key

RAN_TESTS = 16  # the fixed entry of a kata

_EXPLANATION = """\
Write one JSON object to this file to record a test run. The write that completes it
commits the event; read this file again for the outcome. For example:

{{ "stdout": {{"content": "1 test passed"}}, "stderr": {{"content": ""}}, "status": "0",
  "summary": {{"colour": "green", "duration": 1.2, "predicted": "none"}} }}

The files stay as they are, unless the object has the complete new set of them:
  "files": {{ "{name}": {{"content": "…"}}, … }}
"""


class Controls:
    """Unfinished messages and outcomes of all control files, bounded. Belongs to one thread."""

    def __init__(self, outcomes: int = 10_000) -> None:
        self.inbox = Inbox()
        self._outcomes: cachetools.LRUCache[Key, tuple[bytes | None, int]] = cachetools.LRUCache(outcomes)

    def outcome(self, key: Key) -> tuple[bytes | None, int]:
        """The outcome of the last write to a control file, None if there was none; and the file's time in ns, or 0."""
        return self._outcomes.get(key, (None, 0))

    def tell(self, key: Key, outcome: dict[str, Any]) -> None:
        """Set the outcome."""
        self._outcomes[key] = (pretty_bytes(outcome), self._later(key))

    def touch(self, key: Key) -> None:
        """Something was written: the kernel put it over the outcome in its pages, and must drop these."""
        self._outcomes[key] = (self.outcome(key)[0], self._later(key))

    def _later(self, key: Key) -> int:
        """A new time for each change, by which the kernel sees that it has to read the file again."""
        return max(time.time_ns(), self.outcome(key)[1] + 1)

    def expire(self) -> None:
        """Drop the messages that were not finished in time, and say so in their outcomes."""
        for key in self.inbox.expire(time.monotonic()):
            self.tell_dropped(key)

    def tell_dropped(self, key: Hashable) -> None:
        assert isinstance(key, Key)
        self.tell(key, {"ok": False, "errno": "EINVAL", "message": "the message was not finished, and was dropped"})


class RanTestsFile(File):
    """``ran_tests``. Its size is that of what can be read from it, at any moment."""

    mode = stat.S_IFREG | 0o644
    attr_timeout = NEVER

    def __init__(self, controls: Controls, kata: Kata, owner: Owner) -> None:
        key = Key(FIXED, kata.kata_id, RAN_TESTS)
        tip = kata.tip()
        self._text, when = controls.outcome(key)
        super().__init__(key, owner, when or tip.time_ns)
        self._controls, self._kata, self._tip = controls, kata, tip

    @property
    def kata_id(self) -> str:
        return self._kata.kata_id

    def _content(self) -> bytes:
        if self._text is None:
            listing = self._kata.files(self._tip.last)
            name = next((listing.paths[position] for position in listing.files()), b"hiker.py")
            quoted = json.dumps(name.decode("utf-8", "replace"), ensure_ascii=False)[1:-1]
            self._text = _EXPLANATION.format(name=quoted).encode()
        return self._text

    def size(self) -> int:
        return len(self._content())

    def read(self, offset: int, length: int) -> bytes:
        return self._content()[offset : offset + length]

    def truncate(self, writer: Hashable | None) -> None:
        """The file was opened with O_TRUNC, or truncated to 0: the writer starts afresh; nothing is committed."""
        if self._controls.inbox.drop(self.key, writer):
            self._controls.tell_dropped(self.key)

    def feed(self, writer: Hashable | None, offset: int, data: bytes, *, appends: bool) -> Message | None:
        """Take one write; the message if it is complete. Raises what the writer is to hear."""
        self._controls.touch(self.key)
        inbox = self._controls.inbox
        known = inbox.refusal(self.key, writer)
        try:
            return inbox.feed(self.key, writer, offset, data, time.monotonic(), appends=appends)
        except KataError as error:
            # heard again, it is what the outcome says already
            if error is not known:
                self._tell_error(error, {})
            raise

    def parse(self, message: Message) -> Act:
        """The message as a value. Raises `InvalidError`."""
        return parse_act(Kind.RAN_TESTS, message.data)

    @staticmethod
    def commit(path: Path, kata_id: str, event: Act) -> Committed:
        """Record the event; called in a worker thread."""
        return record(path, kata_id, event)

    @property
    def path(self) -> Path:
        return self._kata.path

    def accepted(self, event: Act, committed: Committed) -> None:
        """The outcome of a message that was committed."""
        outcome = {"ok": True, "index": committed.index, "commit": committed.commit.hex()}
        self._controls.tell(self.key, {**outcome, **_identity(event)})

    def refused(self, error: KataError, event: Act | None, again_at: tuple[Hashable | None, int] | None) -> None:
        """The outcome of a message that was refused. ``again_at`` is the writer and offset of the last of its several
        writes, which will be repeated and is to hear the same."""
        if again_at is not None:
            self._controls.inbox.refuse(self.key, again_at[0], again_at[1], error, time.monotonic())
        self._tell_error(error, _identity(event) if event is not None else {})

    def _tell_error(self, error: KataError, identity: dict[str, Any]) -> None:
        outcome = {"ok": False, "errno": error.errno_name, "message": str(error), **identity}
        self._controls.tell(self.key, outcome)


def _identity(event: Act) -> dict[str, Any]:
    return {"laptop_id": event.laptop_id, "tab_seq": event.tab_seq.get("tab_seq")}
