"""The directories above all katas: the root of the mount, those on the way to a kata, and ``.katafs/``."""

from __future__ import annotations

import string
from functools import cache, partial
from importlib import resources

from katafs import __version__
from katafs.errors import NotFoundError
from katafs.kata.legacy.plain_create import make_new
from katafs.kata.model.ids import is_id_part
from katafs.tree.catalogue import kata_key, row_at, row_of
from katafs.tree.context import Context
from katafs.tree.dirs.group_dir import GroupsDir
from katafs.tree.dirs.kata_dir import KataDir
from katafs.tree.makers import makes_from_store, rows_in
from katafs.tree.nodes import BytesFile, Creator, Entry, Node, refuse_write
from katafs.tree.numbers import PREFIX, Key
from katafs.tree.stats import stats_text
from katafs.tree.timeouts import MUTABLE, PLACE

_WRITING = """\
    ran_tests                write a JSON object here to record a test run; read it for an example
    control/                 the same for predictions, reverts, and files made, removed, renamed or edited
"""
_CLASSES = """\
A class is `.katafs/groups/AbCdEf/`, with the id of the group: links to its katas, `index.html` with the lights of all
of them, `events.csv` and `history`. Groups are not listed.

"""
_TRY_WRITING = "    cat ran_tests"
_TRY_XATTR = "    getfattr -d events/latest"
_ROOT, _KATAFS, _GROUPS = row_at("/"), row_at("/.katafs"), row_at("/.katafs/groups")


@makes_from_store("/", "/Ab")
class PrefixDir(Node):
    """The root, ``Ab/`` or ``Ab/Cd/``: what of the store is named like a part of a kata id."""

    def __init__(self, ctx: Context, key: Key) -> None:
        status = ctx.store.status(key.kata)
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_mtime_ns)
        self._ctx, self._parts = ctx, key.kata

    def parent(self) -> Key:
        return Key(PREFIX, self._parts[:-2]) if len(self._parts) > 2 else _ROOT.key("")

    def names(self) -> list[bytes]:
        names = [name.encode() for name in self._ctx.store.names(self._parts)]
        return names if self._parts else [b".katafs", *names]

    def child(self, name: bytes) -> Entry:
        if not self._parts and name == b".katafs":
            return Entry(MetaDir(self._ctx, _KATAFS.key("")), _KATAFS.entry_timeout)
        text = name.decode("ascii", "replace")
        if not is_id_part(text):
            raise NotFoundError(f"no {name!r} here")
        parts = self._parts + text
        if len(parts) == 6:
            return Entry(KataDir(self._ctx, kata_key(parts)), MUTABLE)
        return Entry(PrefixDir(self._ctx, Key(PREFIX, parts)), PLACE)

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        """mkdir(2) of what is named like a part of a kata id: how a service begins a kata."""
        if not is_directory or not is_id_part(name.decode("ascii", "replace")):
            raise refuse_write()
        self._ctx.store.check_there()
        path = self._ctx.store.path(self._parts + name.decode())
        return partial(make_new, path, True)


@makes_from_store("/.katafs")
class MetaDir(Node):
    """``.katafs/``: about the file system itself."""

    def __init__(self, ctx: Context, key: Key) -> None:
        status = ctx.store.status("")
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_ctime_ns)
        self._ctx = ctx

    def names(self) -> list[bytes]:
        return [name for name in rows_in(_KATAFS.path) if name != _GROUPS.name or self._ctx.groups is not None]

    def child(self, name: bytes) -> Entry:
        for row in rows_in(_KATAFS.path).get(name, ()):
            key = row.key("")
            node = GroupsDir(self._ctx, key) if row is _GROUPS else _about(self._ctx, key, is_fresh=True)
            return Entry(node, row.entry_timeout)
        raise NotFoundError(f"no {name!r} in .katafs")


@makes_from_store("/.katafs/README.md", "/.katafs/version", "/.katafs/stats")
def _about(ctx: Context, key: Key, *, is_fresh: bool = False) -> Node:
    """``is_fresh`` if it is about to be opened."""
    # the next daemon may have others
    made_ns, name, status = ctx.about.began_ns, row_of(key).name, ctx.store.status("")
    if name == b"stats":
        data, made_ns = stats_text(ctx, fresh=is_fresh)
    else:
        data = f"{__version__}\n".encode() if name == b"version" else _readme(ctx).encode()
    return BytesFile(key, ctx.owner_of(status.st_uid, status.st_gid), made_ns, data)


@cache
def _text() -> string.Template:
    return string.Template(resources.files("katafs.tree").joinpath("help.md").read_text(encoding="utf-8"))


def _readme(ctx: Context) -> str:
    """What a person finds who has just run ``ls``. It says of a mount only what is true of it."""
    about = ctx.about
    tries = [] if about.read_only else [_TRY_WRITING]
    tries += [_TRY_XATTR] if about.xattr else []
    mode = "read-only" if about.read_only else "for reading and writing"
    return _text().substitute(
        options="" if about.read_only else "; write a value to change one",
        groups=_CLASSES if ctx.groups is not None else "",
        writing="" if about.read_only else _WRITING,
        **{"try": "\n".join(tries)},
        version=__version__,
        mode=f"{mode}, in the {'fast' if about.is_fast() else 'slower'} mode",
        store=str(ctx.store.root).encode("utf-8", "replace").decode(),
    )
