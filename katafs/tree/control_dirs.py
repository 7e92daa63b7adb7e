"""``config/`` and ``control/`` of a kata, and what is in them."""

from __future__ import annotations

from functools import partial

from katafs.errors import NotFoundError
from katafs.kata.model.kinds import Kind
from katafs.kata.read.kata import Kata
from katafs.tree.contents import ContentFile
from katafs.tree.context import Context
from katafs.tree.control import ControlFile
from katafs.tree.legacy.migrating import MigratingControl, MigratingOption
from katafs.tree.nodes import IMMUTABLE, MUTABLE, Directory, Entry, Node, entry_or_damaged
from katafs.tree.numbers import FIXED, Key
from katafs.tree.options import FIRST_OPTION, OPTIONS, OptionFile

# fixed entries of a kata
CONTROL, CONFIG = 11, 13


class TipBlob(ContentFile):
    """A blob of the tip that is no event's, such as ``options.json``."""

    attr_timeout = MUTABLE


def option(number: int, ctx: Context, kata: Kata) -> Node:
    """The file of an option in ``config/``."""
    if kata.is_writable():
        if kata.plain_version() is not None:
            return MigratingOption(number, ctx.controls, kata, ctx.owner(kata))
        return OptionFile(number, ctx.controls, kata, ctx.owner(kata))
    name = OPTIONS[number].decode()
    key = Key(FIXED, kata.kata_id, FIRST_OPTION + number)
    data = kata.options(kata.tip())[name].encode() + b"\n"
    return TipBlob(key, ctx, kata.option_times()[name], kata, data)


class ConfigDir(Directory):
    """``config/`` at the tip: the options as they are now."""

    attr_timeout = MUTABLE

    def __init__(self, ctx: Context, kata: Kata) -> None:
        key, parent = Key(FIXED, kata.kata_id, CONFIG), Key(FIXED, kata.kata_id, 0)
        super().__init__(key, ctx.owner(kata), kata.tip().time_ns, parent)
        self._ctx, self._kata = ctx, kata

    def names(self) -> list[bytes]:
        return sorted(OPTIONS)

    def child(self, name: bytes) -> Entry:
        if name not in OPTIONS:
            raise NotFoundError(f"no option {name!r}")
        number = OPTIONS.index(name)
        key = Key(FIXED, self._kata.kata_id, FIRST_OPTION + number)
        return entry_or_damaged(partial(option, number, self._ctx, self._kata), IMMUTABLE, key, self)


def control(kind: Kind, ctx: Context, kata: Kata) -> Node:
    """The control file of a kind. Raises `NotFoundError` where the kata is read-only."""
    if not kata.is_writable():
        raise NotFoundError(f"kata {kata.kata_id} is stored in a layout that is read-only")
    if kata.plain_version() is not None:
        return MigratingControl(kind, ctx.controls, kata, ctx.owner(kata))
    return ControlFile(kind, ctx.controls, kata, ctx.owner(kata))


_CONTROL_NAMES = {kind.value.encode(): kind for kind in Kind}


class ControlDir(Directory):
    """``control/``: the control files."""

    def __init__(self, ctx: Context, kata: Kata) -> None:
        key, parent = Key(FIXED, kata.kata_id, CONTROL), Key(FIXED, kata.kata_id, 0)
        super().__init__(key, ctx.owner(kata), kata.snapshot(0).time_ns, parent)
        self._ctx, self._kata = ctx, kata

    def names(self) -> list[bytes]:
        return sorted(_CONTROL_NAMES)

    def child(self, name: bytes) -> Entry:
        kind = _CONTROL_NAMES.get(name)
        if kind is None:
            raise NotFoundError(f"no control file {name!r}")
        return Entry(control(kind, self._ctx, self._kata), IMMUTABLE)
