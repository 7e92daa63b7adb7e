"""What makes the nodes of the catalogue: functions and classes, each bound to its rows where it is defined.

``.git`` is made here where git would take what a kata holds for a repository, and obey the configuration in it: git and
libgit2 look for ``.git`` before they look whether a directory is a bare repository. What they find there leads nowhere,
and they stop, with its text in a sentence: "fatal: not a git repository: …".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeVar

from katafs.errors import DamagedError, NotFoundError
from katafs.kata.read.kata import Kata
from katafs.tree.catalogue import Row, Shown, row_at, row_of, standing_in, thing_of
from katafs.tree.context import Context
from katafs.tree.nodes import BytesFile, Damaged, Entry, Node
from katafs.tree.numbers import FENCE, Key
from katafs.tree.timeouts import NEVER

#: Makes a node of a kata whose events can be read. Raises `NotFoundError`, `DamagedError`.
_OfKata = Callable[[Context, Kata, Key], Node]
#: The same, where it is not needed that they can be read.
_OfStore = Callable[[Context, Key], Node]
_K = TypeVar("_K", bound=_OfKata)
_S = TypeVar("_S", bound=_OfStore)

_FENCE = b"gitdir: what a kata holds is no repository\n"

_of_katas: dict[tuple[int, int], _OfKata] = {}
_of_store: dict[tuple[int, int], _OfStore] = {}


def makes(*paths: str, shown: Shown | None = None) -> Callable[[_K], _K]:
    """Bind what makes the nodes of these paths (`katafs.tree.catalogue.row_at`)."""

    def bind(maker: _K) -> _K:
        _of_katas.update({row_at(path, shown).id: maker for path in paths})
        return maker

    return bind


def makes_from_store(*paths: str, shown: Shown | None = None) -> Callable[[_S], _S]:
    """The same for what is there also where the events of a kata cannot be read."""

    def bind(maker: _S) -> _S:
        _of_store.update({row_at(path, shown).id: maker for path in paths})
        return maker

    return bind


def is_made(row: Row) -> bool:
    return row.id in _of_katas or row.id in _of_store


def make(ctx: Context, key: Key) -> Node:
    """The node of a key. Raises `NotFoundError`, also where nothing makes it."""
    of = thing_of(key)
    if (maker := _of_store.get(of)) is not None:
        return maker(ctx, key)
    if of not in _of_katas:
        raise NotFoundError(f"nothing is made of {key}")
    return _of_katas[of](ctx, ctx.store.kata(key.kata), key)


def entry(directory: Node, ctx: Context, kata: Kata, row: Row, key: Key) -> Entry:
    """The entry of a row; a damaged one where the node, or its size, cannot be read: so the directory can be listed,
    whatever is wrong with one of its entries. Raises `NotFoundError`."""
    try:
        maker = _of_katas.get(row.id)
        node = make(ctx, key) if maker is None else maker(ctx, kata, key)
        node.size()
    except DamagedError as error:
        return Entry(Damaged(key, directory, error), NEVER)
    return Entry(node, row.entry_timeout)


@cache
def rows_in(directory: str) -> dict[bytes, list[Row]]:
    """What stands in a directory and can be made, by its name; sorted (`katafs.tree.catalogue.standing_in`)."""
    found: dict[bytes, list[Row]] = {}
    for row in standing_in(directory):
        if is_made(row):
            found.setdefault(row.name, []).append(row)
    return found


def find(kata: Kata, directory: str, name: bytes) -> Row:
    """The row of a name in a directory of a kata. Raises `NotFoundError`."""
    for row in rows_in(directory).get(name, ()):
        if row.shown is Shown.ALWAYS or is_shown(row, kata):
            return row
    raise NotFoundError(f"no {name!r} in {directory or kata.kata_id}")


def listed(kata: Kata, directory: str) -> list[Row]:
    """What is listed in a directory of a kata and has a name of its own, sorted by it."""
    found = (row for rows in rows_in(directory).values() for row in rows if row.shown is not Shown.BY_NAME)
    return [row for row in found if row.shown is Shown.ALWAYS or is_shown(row, kata)]


def is_shown(row: Row, kata: Kata) -> bool:
    shown = row.shown
    if shown is Shown.WRITABLE:
        return kata.is_writable()
    if shown is Shown.STEPS:
        return kata.tip().last > 0
    if shown is Shown.VERSION_2:
        try:
            version = kata.manifest().get("version")
        except DamagedError:
            # nobody can tell, and the repository is what is left to be looked at
            return True
        return isinstance(version, (int, float)) and version >= 2
    if shown is Shown.AS_STORED:
        return row.name in kata.tip().layout.shown_as_stored and kata.tip().root.blob(row.name) is not None
    if shown is Shown.NOT_AS_STORED:
        return row.name not in kata.tip().layout.shown_as_stored
    return True


def fence(directory: Node) -> Entry:
    """The entry ``.git``, which is not listed, of a directory that git would take for a bare repository. Raises
    `NotFoundError`."""
    # as git's is_git_directory has it; files of these names are no less suspicious to us than directories
    names = set(directory.names())
    if b"HEAD" not in names or not ({b"objects", b"refs"} <= names or b"commondir" in names):
        raise NotFoundError("no b'.git' here")
    key = Key(FENCE, directory.key.kata, directory.number)
    # what is in a directory may change
    return Entry(BytesFile(key, directory.owner, directory.mtime_ns, _FENCE), NEVER)


class FixedDir(Node):
    """A directory that a kata has once, dated as the tip: what the catalogue says, to which heirs add."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        self._tip = kata.tip()
        super().__init__(key, ctx.owner(kata), self._tip.time_ns)
        self._ctx, self._kata = ctx, kata

    def names(self) -> list[bytes]:
        return [row.name for row in listed(self._kata, row_of(self.key).path)]

    def child(self, name: bytes) -> Entry:
        row = find(self._kata, row_of(self.key).path, name)
        return self._entry(row, row.key_at(self._kata.kata_id, self._tip.last))

    def _entry(self, row: Row, key: Key) -> Entry:
        return entry(self, self._ctx, self._kata, row, key)
