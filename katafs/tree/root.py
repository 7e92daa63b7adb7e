"""The root of the mount, the directories on the way to a kata, and ``.katafs/``."""

from __future__ import annotations

import stat
from importlib import resources

from katafs import __version__
from katafs.errors import NotFoundError
from katafs.kata.ids import is_id_part
from katafs.kata.plain_create import make_new
from katafs.tree.context import Context
from katafs.tree.kata_dir import KataDir
from katafs.tree.nodes import IMMUTABLE, MUTABLE, BytesFile, Creator, Directory, Entry, Node, refuse_write
from katafs.tree.numbers import META, PREFIX, ROOT, Key

_KATAFS, _FIRST_FILE = 2, 3
_ROOT_KEY = Key(META, "", ROOT)


class PrefixDir(Directory):
    """The root, ``Ab/`` or ``Ab/Cd/``: what of the store is named like a part of a kata id."""

    mode = stat.S_IFDIR | 0o755
    attr_timeout = MUTABLE

    def __init__(self, ctx: Context, parts: str) -> None:
        status = ctx.store.status(parts)
        key = Key(PREFIX, parts) if parts else _ROOT_KEY
        parent = Key(PREFIX, parts[:-2]) if len(parts) > 2 else _ROOT_KEY
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_mtime_ns, parent)
        self._ctx, self._parts = ctx, parts

    def names(self) -> list[bytes]:
        names = [name.encode() for name in self._ctx.store.names(self._parts)]
        return names if self._parts else [b".katafs", *names]

    def child(self, name: bytes) -> Entry:
        if not self._parts and name == b".katafs":
            return Entry(MetaDir(self._ctx), IMMUTABLE)
        text = name.decode("ascii", "replace")
        if not is_id_part(text):
            raise NotFoundError(f"no {name!r} here")
        parts = self._parts + text
        return Entry(KataDir(self._ctx, parts) if len(parts) == 6 else PrefixDir(self._ctx, parts), MUTABLE)

    def to_create(self, name: bytes, *, is_directory: bool) -> Creator:
        """mkdir(2) of what is named like a part of a kata id: how a service begins a kata."""
        if not is_directory or not is_id_part(name.decode("ascii", "replace")):
            raise refuse_write()
        path = self._ctx.store.path(self._parts + name.decode())
        return lambda attempt: make_new(path, is_directory=True, attempt=attempt)


class MetaDir(Directory):
    """``.katafs/``: about the file system itself."""

    def __init__(self, ctx: Context) -> None:
        status = ctx.store.status("")
        owner = ctx.owner_of(status.st_uid, status.st_gid)
        super().__init__(Key(META, "", _KATAFS), owner, status.st_ctime_ns, _ROOT_KEY)
        self._files = {
            b"README.md": resources.files("katafs.tree").joinpath("help.md").read_bytes(),
            b"version": f"{__version__}\n".encode(),
        }

    def names(self) -> list[bytes]:
        return list(self._files)

    def child(self, name: bytes) -> Entry:
        if name not in self._files:
            raise NotFoundError(f"no {name!r} in .katafs")
        number = _FIRST_FILE + list(self._files).index(name)
        return Entry(BytesFile(Key(META, "", number), self.owner, self.mtime_ns, self._files[name]), IMMUTABLE)


def meta_node(ctx: Context, key: Key) -> Node:
    """The node of a `META` key. Raises `NotFoundError`."""
    if key.a == ROOT:
        return PrefixDir(ctx, "")
    about = MetaDir(ctx)
    if key.a == _KATAFS:
        return about
    names = about.names()
    if not 0 <= key.a - _FIRST_FILE < len(names):
        raise NotFoundError(f"no entry {key.a}")
    return about.child(names[key.a - _FIRST_FILE]).node
