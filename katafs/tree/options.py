"""The option files in ``config/``: a value is written, and committed."""

from __future__ import annotations

from collections.abc import Hashable

from katafs.errors import InvalidError
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import Job, set_option
from katafs.kata.record.inbox import Message
from katafs.text import decode
from katafs.tree.nodes import Owner
from katafs.tree.numbers import FIXED, Key
from katafs.tree.writable import Controls, MessageFile

OPTIONS = [name.encode() for name in OPTION_DEFAULTS]
FIRST_OPTION = 32  # the fixed entry of the first one
_LONGEST = 64  # bytes
_SECOND = 1_000_000_000


class OptionFile(MessageFile):
    """``config/NAME``: the value and a newline. Every write is one whole value."""

    def __init__(self, position: int, controls: Controls, kata: Kata, owner: Owner) -> None:
        key = Key(FIXED, kata.kata_id, FIRST_OPTION + position)
        self._name = OPTIONS[position].decode()
        # A commit has whole seconds. The rest is of the last write, by which the kernel sees that there was one.
        mtime_ns = kata.option_times()[self._name] + controls.outcome(key)[1] % _SECOND
        super().__init__(key, owner, mtime_ns, controls, kata)
        self._value = kata.options(kata.tip())[self._name]

    def content(self) -> bytes:
        return self._value.encode() + b"\n"

    def feed(self, writer: Hashable | None, offset: int, data: bytes, *, appends: bool) -> Message | None:
        self._controls.touch(self.key)
        if len(data) > _LONGEST:
            raise InvalidError(f"{self._name}: the value is too long")
        return Message(data, in_pieces=False) if data.strip() else None

    def parse(self, message: Message, offset: int) -> Job:
        return Job(self._path, self.kata_id, set_option, (self._name, decode(message.data).strip()), "option")
