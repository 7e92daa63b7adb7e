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
from io import BufferedRandom
from pathlib import Path

from katafs import process
from katafs.errors import HeavyError, NotFoundError, StaleError, TooLargeError
from katafs.html.process import write_class_page
from katafs.kata.groups import Group, look, status_of, write_events, write_history
from katafs.kata.model.ids import is_kata_id, kata_path
from katafs.kata.views.spool import FILE_LIMIT, Spool, SpoolFile
from katafs.tree.catalogue import FIRST_MEMBER, row_at, row_of
from katafs.tree.context import Context
from katafs.tree.dirs.contents import KeptFile
from katafs.tree.made import make_elsewhere
from katafs.tree.makers import makes_from_store, rows_in
from katafs.tree.nodes import Entry, Later, Link, Node, Work
from katafs.tree.numbers import GROUP, VERSIONS, Key
from katafs.tree.timeouts import NEVER

# What is made, and who joins, shows within a second. Who asks for the size of what is made then opens it: cp takes no
# other version.
_FRESH_SECONDS, _MADE_SECONDS = 0.25, 0.05
# 64 katas of 100 events take half a second; somebody waits for it, as for a page
_LIMITS = process.Limits(file=FILE_LIMIT, processor_seconds=15, nice=0)
_GROUPS, _GROUP, _MEMBER = (
    row_at(path) for path in ("/.katafs/groups", "/.katafs/groups/ID", "/.katafs/groups/ID/N-ID")
)
_UNSEEN = (0.0, None)
_NEWEST = 0
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


def _version(group: Group) -> int:
    """A number for a group as it was at one moment, for numbers of what is made of it."""
    return 1 + int.from_bytes(group.digest[:4]) % (VERSIONS - 1)


def _seen(ctx: Context, group_id: str, version: int = _NEWEST) -> tuple[float, Group | None]:
    """Until when it is known how a group is, in monotonic seconds, and how it was found; None if it was not."""
    return ctx.seen_groups.get((group_id, version), _UNSEEN)


def _keep(ctx: Context, group: Group) -> None:
    for version in (_NEWEST, _version(group)):
        ctx.seen_groups[group.group_id, version] = time.monotonic() + _FRESH_SECONDS, group
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
        until, known = _seen(ctx, key.kata)
        self._group = known if time.monotonic() < until else None
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
            key = Key(GROUP, self.key.kata, row.number, _version(self._group))
            return Entry(GroupFile(self._ctx, key), row.entry_timeout)
        if found := _LINK.fullmatch(name):
            link = _link(self._ctx, Key(GROUP, self.key.kata, FIRST_MEMBER + int(found[1])), self._group)
            if link.target().replace(b"/", b"")[-6:] == found[2]:
                return Entry(link, _MEMBER.entry_timeout)
        raise NotFoundError(f"no {name!r} in group {self.key.kata}")


@makes_from_store(_MEMBER.path)
def _link(ctx: Context, key: Key, group: Group | None = None) -> Link:
    """The link to a kata, in the group as it was found last."""
    found = group or _seen(ctx, key.kata)[1]
    for member in found.members if found is not None else ():
        if FIRST_MEMBER + member.index == key.a:
            kata_id = member.kata_id
            above = GroupDir(ctx, _GROUP.key(key.kata))
            return Link(key, above.owner, above.mtime_ns, f"../../../{kata_id[:2]}/{kata_id[2:4]}/{kata_id[4:]}")
    raise NotFoundError(f"group {key.kata} has no such member")


@makes_from_store(*(f"{_GROUP.path}/{name.decode()}" for name in _FILES))
class GroupFile(KeptFile):
    """What is made of all katas of a class as they were at one moment, which is the version: another thing when one of
    them has changed, or somebody has joined. Version 0, as an earlier release has numbered it, is how they were found
    last."""

    def __init__(self, ctx: Context, key: Key) -> None:
        status, _ = status_of(_root(ctx), key.kata)
        super().__init__(key, ctx.made, ctx.owner_of(status.st_uid, status.st_gid), 0, key)
        self._ctx = ctx
        self._group: Group | None = None
        if (group := _seen(ctx, key.kata, key.b)[1]) is not None:
            self._is_of(group)

    def _is_of(self, group: Group) -> None:
        self._group, self.mtime_ns, self.identity = group, group.time_ns, (self.key, group.digest)

    def _work(self) -> Work:
        # what takes too much does so of the next version, too
        self._cache.check(self.key._replace(b=_NEWEST))
        of = self._cache.spool, _root(self._ctx), self._ctx.store.root, self.key, self._group
        return functools.partial(_make, *of, _FILES[row_of(self.key).name])

    def prepared(self, result: object) -> None:
        assert isinstance(result, tuple)
        group, made = result
        if self._group is None:
            _keep(self._ctx, group)
            self._is_of(group)
        until, newest = _seen(self._ctx, self.key.kata)
        if newest is not None and newest.digest == group.digest:
            until = max(until, time.monotonic() + _MADE_SECONDS)
            self._ctx.seen_groups[self.key.kata, _NEWEST] = until, newest
        super().prepared(made)

    def too_large(self, error: TooLargeError) -> None:
        self._cache.refuse(self.key._replace(b=_NEWEST), error)


def _make(spool: Spool, root: Path, store: Path, key: Key, group: Group | None, write: _Write) -> Later:
    """The content of a file. Raises `StaleError` where nobody knows any more how the group was."""
    if group is None:
        group = look(root, store, key.kata)
        if key.b not in (_NEWEST, _version(group)):
            raise StaleError(f"group {key.kata} is not as it was then")
    return Later(functools.partial(_write, spool, root, group, write))


def _write(spool: Spool, root: Path, group: Group, write: _Write) -> tuple[Group, SpoolFile]:
    return group, make_elsewhere(spool, kata_path(root, group.group_id), functools.partial(write, group), _LIMITS)
