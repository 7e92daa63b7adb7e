"""``.katafs/groups/``: the classes, each with links to its katas and what is made of all of them.

They are not listed: there may be a million. Who is in a class, and which of its katas has changed, is looked at anew
after a moment, in a worker thread; what is made, in a process of its own, when somebody asks for it.
"""

from __future__ import annotations

import functools
import re
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from io import BufferedRandom
from pathlib import Path

from katafs import process
from katafs.errors import HeavyError, NotFoundError, TooLargeError
from katafs.html.process import write_class_page
from katafs.kata.groups import Group, look, status_of, write_events, write_history
from katafs.kata.model.ids import is_kata_id, kata_path
from katafs.kata.views.spool import FILE_LIMIT, Spool, SpoolFile
from katafs.tree.catalogue import FIRST_MEMBER, row_at, row_of
from katafs.tree.context import Context
from katafs.tree.dirs.contents import ChangingFile
from katafs.tree.made import make_elsewhere
from katafs.tree.makers import makes_from_store, rows_in
from katafs.tree.nodes import Entry, Later, Link, Node, Work
from katafs.tree.numbers import GROUP, Key
from katafs.tree.timeouts import NEVER

# what is made, and who joins, shows within a second
_FRESH_SECONDS = 0.25
# 64 katas of 100 events take half a second; somebody waits for it, as for a page
_LIMITS = process.Limits(file=FILE_LIMIT, processor_seconds=15, nice=0)
_GROUPS, _GROUP, _MEMBER = (
    row_at(path) for path in ("/.katafs/groups", "/.katafs/groups/ID", "/.katafs/groups/ID/N-ID")
)
_UNSEEN = (0.0, None)
_LINK = re.compile(rb"([0-9]{2})-([0-9A-Za-z]{6})")

#: Writes the content of a file that is made of a group, in a process of its own
_Write = Callable[[Group, BufferedRandom, Path], None]
_FILES: dict[bytes, _Write] = {b"events.csv": write_events, b"history": write_history, b"index.html": write_class_page}


def _root(ctx: Context) -> Path:
    if ctx.groups is None:
        raise NotFoundError("no groups are shown")
    if ctx.groups_status is not None:
        raise HeavyError("groups are looked at elsewhere")
    return ctx.groups


def _fresh(ctx: Context, group_id: str) -> Group | None:
    seen, group = ctx.seen_groups.get(group_id, _UNSEEN)
    return group if time.monotonic() - seen < _FRESH_SECONDS else None


def _keep(ctx: Context, group: Group) -> None:
    ctx.seen_groups.keep(group.group_id, (time.monotonic(), group))
    if group.left_out:
        more = f", and {len(group.left_out) - 1} more" if len(group.left_out) > 1 else ""
        ctx.store.read_caches.notes.note(group.group_id, f"no member is {group.left_out[0]}{more}", of="group")


@makes_from_store(_GROUPS.path)
class GroupsDir(Node):
    """``.katafs/groups/``: an id opens by name."""

    def __init__(self, ctx: Context, key: Key) -> None:
        try:
            status = ctx.groups_status or _root(ctx).stat()
        except OSError as error:
            raise NotFoundError(f"{ctx.groups}: {error.strerror}") from error
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_mtime_ns)
        self._ctx = ctx

    def names(self) -> list[bytes]:
        return []

    def child(self, name: bytes) -> Entry:
        group_id = name.decode("ascii", "replace")
        if not is_kata_id(group_id):
            raise NotFoundError(f"no {name!r} in .katafs/groups")
        return Entry(GroupDir(self._ctx, _GROUP.key(group_id)), NEVER)


@makes_from_store(_GROUP.path)
class GroupDir(Node):
    """A class: a link ``IDX-KATAID`` to each kata, ``events.csv``, ``history``, ``index.html``."""

    def __init__(self, ctx: Context, key: Key) -> None:
        status, permissions = status_of(_root(ctx), key.kata)
        super().__init__(key, ctx.owner_of(status.st_uid, status.st_gid), status.st_mtime_ns)
        # as of a kata: what is closed to group and others there is closed here
        self.mode &= permissions | stat.S_IFMT(self.mode) | stat.S_IRWXU
        self._ctx = ctx
        self._group = _fresh(ctx, key.kata)
        _, known = ctx.seen_groups.get(key.kata, _UNSEEN)
        self.mtime_ns = known.time_ns if known is not None else status.st_mtime_ns

    def size(self) -> int | None:
        """Asked for before the kernel believes the listing that it has: then the time must be that of the group."""
        return 0 if self._group is not None else None

    def prepare(self) -> Work | None:
        if self._group is not None:
            return None
        return functools.partial(look, _root(self._ctx), self._ctx.store.root, self.key.kata)

    def prepared(self, result: object) -> None:
        assert isinstance(result, Group)
        self._group, self.mtime_ns = result, result.time_ns
        _keep(self._ctx, result)

    def parent(self) -> Key:
        return _GROUPS.key("")

    def names(self) -> list[bytes]:
        assert self._group is not None, "prepare was not called"
        links = (b"%02d-%s" % (member.index, member.kata_id.encode()) for member in self._group.members)
        return [*links, *rows_in(_GROUP.path)]

    def child(self, name: bytes) -> Entry:
        assert self._group is not None, "prepare was not called"
        for row in rows_in(_GROUP.path).get(name, ()):
            return Entry(GroupFile(self._ctx, row.key(self.key.kata), self._group), row.entry_timeout)
        if found := _LINK.fullmatch(name):
            link = _link(self._ctx, Key(GROUP, self.key.kata, FIRST_MEMBER + int(found[1])), self._group)
            if link.target().replace(b"/", b"")[-6:] == found[2]:
                return Entry(link, _MEMBER.entry_timeout)
        raise NotFoundError(f"no {name!r} in group {self.key.kata}")


@makes_from_store(_MEMBER.path)
def _link(ctx: Context, key: Key, group: Group | None = None) -> Link:
    """The link to a kata, in the group as it was found last."""
    found = group or ctx.seen_groups.get(key.kata, _UNSEEN)[1]
    for member in found.members if found is not None else ():
        if FIRST_MEMBER + member.index == key.a:
            kata_id = member.kata_id
            above = GroupDir(ctx, _GROUP.key(key.kata))
            return Link(key, above.owner, above.mtime_ns, f"../../../{kata_id[:2]}/{kata_id[2:4]}/{kata_id[4:]}")
    raise NotFoundError(f"group {key.kata} has no such member")


@makes_from_store(*(f"{_GROUP.path}/{name.decode()}" for name in _FILES))
class GroupFile(ChangingFile):
    """What is made of all katas of a class; anew when one of them has changed, or somebody has joined."""

    def __init__(self, ctx: Context, key: Key, group: Group | None = None) -> None:
        status, _ = status_of(_root(ctx), key.kata)
        group = group or _fresh(ctx, key.kata)
        owner = ctx.owner_of(status.st_uid, status.st_gid)
        super().__init__(key, ctx.made, owner, group.time_ns if group is not None else 0, _identity(key, group))
        self._ctx, self._group = ctx, group

    def size(self) -> int | None:
        size = self._cache.size(self.identity) if self._group is not None else None
        if size is not None and self._group is not None:
            # without its members, which are many
            known = replace(self._group, members=(), left_out=())
            self._cache.told.keep(self.key, functools.partial(type(self), self._ctx, self.key, known))
        return size

    def prepare(self) -> Work | None:
        if self._group is None:
            self.identity = _identity(self.key, self._ctx.seen_groups.get(self.key.kata, _UNSEEN)[1])
        work = super().prepare()
        return None if work is None and self._group is not None else work or self._work()

    def _work(self) -> Work:
        self._cache.check(self.key)
        has = self.identity if self._made is not None else None
        write = _FILES[row_of(self.key).name]
        return functools.partial(_make, self._cache.spool, _root(self._ctx), self._ctx.store.root, self.key, write, has)

    def prepared(self, result: object) -> None:
        assert isinstance(result, tuple)
        group, made = result
        self._group = group
        _keep(self._ctx, group)
        self.mtime_ns, self.identity = group.time_ns, _identity(self.key, group)
        if made is not None:
            super().prepared(made)

    def too_large(self, error: TooLargeError) -> None:
        self._cache.refuse(self.key, error)


def _identity(key: Key, group: Group | None) -> tuple[Key, bytes | None]:
    return key, group.digest if group is not None else None


def _make(
    spool: Spool, root: Path, store: Path, key: Key, write: _Write, has: object
) -> Later | tuple[Group, SpoolFile | None]:
    """The group as it is now, and the content of a file, unless that is the one that is there."""
    group = look(root, store, key.kata)
    if _identity(key, group) == has:
        return group, None
    return Later(functools.partial(_write, spool, root, group, write))


def _write(spool: Spool, root: Path, group: Group, write: _Write) -> tuple[Group, SpoolFile]:
    return group, make_elsewhere(spool, kata_path(root, group.group_id), functools.partial(write, group), _LIMITS)
