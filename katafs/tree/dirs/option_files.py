"""``config/`` and the options in it: a value is written, and committed."""

from __future__ import annotations

from collections.abc import Hashable

from katafs.errors import InvalidError
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import Job, set_option
from katafs.kata.record.inbox import Message
from katafs.text import decode
from katafs.tree.catalogue import FILE, row_of, standing_in
from katafs.tree.context import Context
from katafs.tree.dirs.contents import ContentFile
from katafs.tree.makers import FixedDir, makes
from katafs.tree.nodes import Node, Owner
from katafs.tree.numbers import Key
from katafs.tree.timeouts import MUTABLE
from katafs.tree.writable import Controls, MessageFile

_LONGEST = 64  # bytes
_SECOND = 1_000_000_000


makes("config")(FixedDir)


@makes(*(row.path for row in standing_in("config")))
def _option(ctx: Context, kata: Kata, key: Key) -> Node:
    if kata.is_writable():
        return OptionFile(key, ctx.controls, kata, ctx.owner(kata))
    name = row_of(key).name.decode()
    data = kata.options(kata.tip())[name].encode() + b"\n"
    file = ContentFile(key, ctx, kata.option_times()[name], kata, data)
    file.mode, file.attr_timeout = FILE, MUTABLE
    return file


class OptionFile(MessageFile):
    """``config/NAME``: the value and a newline. Every write is one whole value."""

    def __init__(self, key: Key, controls: Controls, kata: Kata, owner: Owner) -> None:
        self._name = row_of(key).name.decode()
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

    def job(self, message: Message) -> Job:
        return Job(self._path, self.kata_id, set_option, (self._name, decode(message.data).strip()), "option")
