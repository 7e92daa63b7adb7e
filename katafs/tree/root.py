"""The root of the mount, the directories on the way to a kata, and ``.katafs/``."""

from __future__ import annotations

import stat
from functools import partial

from katafs import __version__
from katafs.errors import NotFoundError
from katafs.kata.legacy.plain_create import make_new
from katafs.kata.model.ids import is_id_part
from katafs.tree.context import Context
from katafs.tree.kata_dir import KataDir
from katafs.tree.nodes import IMMUTABLE, MUTABLE, NEVER, BytesFile, Creator, Directory, Entry, Node, refuse_write
from katafs.tree.numbers import META, PREFIX, ROOT, Key
from katafs.tree.readme import readme
from katafs.tree.stats import StatsFile

_KATAFS, _FIRST_FILE = 2, 3
_FILES = [b"README.md", b"version", b"stats"]
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
        self._ctx.store.check_there()
        path = self._ctx.store.path(self._parts + name.decode())
        return partial(make_new, path, True)


class AboutFile(BytesFile):
    """``version``, ``README.md``: the next daemon may have others."""

    attr_timeout = MUTABLE


class MetaDir(Directory):
    """``.katafs/``: about the file system itself."""

    def __init__(self, ctx: Context) -> None:
        status = ctx.store.status("")
        owner = ctx.owner_of(status.st_uid, status.st_gid)
        super().__init__(Key(META, "", _KATAFS), owner, status.st_ctime_ns, _ROOT_KEY)
        self._ctx = ctx

    def names(self) -> list[bytes]:
        return _FILES.copy()

    def child(self, name: bytes) -> Entry:
        if name not in _FILES:
            raise NotFoundError(f"no {name!r} in .katafs")
        return Entry(self.file(name, fresh=True), NEVER)

    def file(self, name: bytes, *, fresh: bool) -> Node:
        """One of the files; ``fresh`` if it is about to be opened."""
        key = Key(META, "", _FIRST_FILE + _FILES.index(name))
        if name == b"stats":
            return StatsFile(key, self.owner, self._ctx.stats, fresh=fresh)
        text = f"{__version__}\n" if name == b"version" else readme(self._ctx)
        return AboutFile(key, self.owner, self._ctx.about.began_ns, text.encode())


def meta_node(ctx: Context, key: Key) -> Node:
    """The node of a `META` key. Raises `NotFoundError`."""
    if key.a == ROOT:
        return PrefixDir(ctx, "")
    about = MetaDir(ctx)
    if key.a == _KATAFS:
        return about
    if not 0 <= key.a - _FIRST_FILE < len(_FILES):
        raise NotFoundError(f"no entry {key.a}")
    return about.file(_FILES[key.a - _FIRST_FILE], fresh=False)
