"""What one host's client of a network file system does with requests; see `tests.hosts.engine`."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import stat
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.hosts import wire
from tests.hosts.wire import Op

_FLOCKS = {fcntl.F_RDLCK: fcntl.LOCK_SH, fcntl.F_WRLCK: fcntl.LOCK_EX, fcntl.F_UNLCK: fcntl.LOCK_UN}
_LISTING_FLAGS = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True)
class Options:
    """How it fails. Seconds, but for ``close_fails``: a part of all."""

    seed: int = 0
    stale: float = 1.0
    replaced: float = 0.03
    close_fails: float = 0.02
    ahead: float = 90.0
    stale_entries: bool = False
    kind: str = "fuse.hosts"


@dataclass
class _Open:
    fd: int
    node: int
    is_synced: bool = True


@dataclass
class _Listing:
    """What a directory's names were."""

    when: float
    entries: list[os.DirEntry[bytes]] = field(default_factory=list)


class Client:
    """Answers requests, one at a time."""

    def __init__(self, root: str, options: Options) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self._random = random.Random(options.seed)
        self._nodes = {1: os.open(root, os.O_PATH)}
        self._lookups: Counter[int] = Counter({1: 1})
        self.opened: dict[int, _Open] = {}
        self._listings: dict[int, _Listing] = {}
        self._listed: dict[int, list[os.DirEntry[bytes]]] = {}
        self._removed: set[int] = set()
        # by name: what it was when last it was asked for here
        #: the name of what cannot be read
        self.broken = b""
        self._known: dict[tuple[int, bytes], int] = {}
        # by name: until when it is wrong, and how
        self._wrong: dict[tuple[int, bytes], tuple[float, int]] = {}
        self._answers: dict[Op, Callable[..., bytes]] = {
            op: getattr(self, f"_{op.name.lower()}") for op in Op if hasattr(self, f"_{op.name.lower()}")
        }

    def answer(self, op: int, node: int, uid: int, gid: int, body: bytes) -> bytes:
        """The answer to a request. Raises OSError."""
        try:
            found = Op(op)
            call = self._answers[found]
        except (KeyError, ValueError):
            raise OSError(errno.ENOSYS, "") from None
        self.counts[found.name] += 1
        self._owner = uid, gid
        try:
            return call(node, body)
        except KeyError:
            raise OSError(errno.ESTALE, "") from None

    # -- names

    def _at(self, node: int, name: bytes = b"") -> bytes:
        return f"/proc/self/fd/{self._nodes[node]}".encode() + (b"/" + name if name else b"")

    def _attr(self, node: int) -> tuple[float, bytes]:
        status = os.fstat(self._nodes[node])
        seconds = self.options.stale if stat.S_ISDIR(status.st_mode) or self.options.stale_entries else 0.0
        return seconds, wire.attr(status, int(self.options.ahead * 1e9))

    def _entry(self, parent: int, name: bytes) -> bytes:
        fd = os.open(self._at(parent, name), os.O_PATH | os.O_NOFOLLOW)
        node = os.fstat(fd).st_ino
        if node in self._nodes:
            os.close(fd)
        else:
            self._nodes[node] = fd
        self._lookups[node] += 1
        self._known[parent, name] = node
        return wire.entry(node, self.options.stale if self.options.stale_entries else 0.0, *self._attr(node))

    def _lookup(self, parent: int, body: bytes) -> bytes:
        name = body[:-1]
        if name == self.broken:
            raise OSError(errno.EIO, "")
        try:
            self._look_for_replaced(parent, name)
            return self._entry(parent, name)
        except FileNotFoundError:
            if (parent, name) in self._wrong:
                raise
            self._known.pop((parent, name), None)
            return wire.entry(0, self.options.stale, 0.0)

    def _look_for_replaced(self, parent: int, name: bytes) -> None:
        """Raise what is said of a file that another host has replaced since it was looked for here."""
        known, now = self._known.get((parent, name)), time.monotonic()
        status = os.lstat(self._at(parent, name))
        if known not in (None, status.st_ino) and stat.S_ISREG(status.st_mode):
            self._known[parent, name] = status.st_ino
            for_seconds = self._random.choice((0.0, self.options.replaced / 3, self.options.replaced))
            self._wrong[parent, name] = now + for_seconds, self._random.choice((errno.ESTALE, errno.ENOENT))
        until, number = self._wrong.get((parent, name), (0.0, 0))
        if now < until:
            self.counts["wrong"] += 1
            raise OSError(number, os.strerror(number))
        self._wrong.pop((parent, name), None)

    def _changed(self, *names: tuple[int, bytes]) -> None:
        """What this host itself changes it sees at once."""
        for parent, name in names:
            self._listings.pop(parent, None)
            self._known.pop((parent, name), None)
            self._wrong.pop((parent, name), None)

    def _made(self, parent: int, name: bytes) -> bytes:
        os.chown(self._at(parent, name), *self._owner, follow_symlinks=False)
        self._changed((parent, name))
        return self._entry(parent, name)

    def _drop(self, node: int, count: int) -> None:
        self._lookups[node] -= count
        if node != 1 and self._lookups[node] <= 0 and node in self._nodes:
            os.close(self._nodes.pop(node))
            self._removed.discard(node)

    def _forget(self, node: int, body: bytes) -> bytes:
        self._drop(node, *wire.LONG.unpack(body))
        return b""

    def _batch_forget(self, _node: int, body: bytes) -> bytes:
        for each in wire.FORGET.iter_unpack(body[8:]):
            self._drop(*each)
        return b""

    def _interrupt(self, _node: int, _body: bytes) -> bytes:
        return b""

    # -- attributes

    def _getattr(self, node: int, _body: bytes) -> bytes:
        return wire.told(*self._attr(node))

    def _setattr(self, node: int, body: bytes) -> bytes:
        valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _ = wire.SETATTR.unpack(body)
        path = self._at(node)
        if valid & wire.MODE:
            os.chmod(path, mode & 0o7777)
        if valid & (wire.UID | wire.GID):
            os.chown(path, uid if valid & wire.UID else -1, gid if valid & wire.GID else -1)
        if valid & wire.SIZE:
            os.truncate(path, size)
        if valid & (wire.ATIME | wire.MTIME):
            status, ahead = os.stat(path), int(self.options.ahead * 1e9)
            now = time.time_ns()
            times = [status.st_atime_ns, status.st_mtime_ns]
            for at, bit, now_bit, set_to in (
                (0, wire.ATIME, wire.ATIME_NOW, atime * 10**9 + atime_ns - ahead),
                (1, wire.MTIME, wire.MTIME_NOW, mtime * 10**9 + mtime_ns - ahead),
            ):
                times[at] = now if valid & now_bit else set_to if valid & bit else times[at]
            os.utime(path, ns=(times[0], times[1]))
        return self._getattr(node, body)

    def _readlink(self, node: int, _body: bytes) -> bytes:
        return os.fsencode(os.readlink("", dir_fd=self._nodes[node]))

    def _statfs(self, node: int, _body: bytes) -> bytes:
        s = os.fstatvfs(self._nodes[node])
        return wire.STATFS.pack(
            s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, s.f_bsize, s.f_namemax, s.f_frsize, 0
        )

    # -- what changes directories

    def _mkdir(self, parent: int, body: bytes) -> bytes:
        mode, _ = wire.MKDIR.unpack_from(body)
        name = body[wire.MKDIR.size : -1]
        os.mkdir(self._at(parent, name), mode)
        return self._made(parent, name)

    def _symlink(self, parent: int, body: bytes) -> bytes:
        name, target, _ = body.split(b"\0")
        os.symlink(target, self._at(parent, name))
        return self._made(parent, name)

    def _link(self, parent: int, body: bytes) -> bytes:
        (node,), name = wire.LONG.unpack_from(body), body[wire.LONG.size : -1]
        # linkat(2), which follows the link in /proc
        os.link(self._at(node), self._at(parent, name), src_dir_fd=self._nodes[1], follow_symlinks=True)
        self._changed((parent, name))
        return self._entry(parent, name)

    def _keep(self, parent: int, name: bytes) -> None:
        """Who removes a file goes on reading what he has open; on another host it is ESTALE."""
        with contextlib.suppress(FileNotFoundError):
            self._removed.add(os.lstat(self._at(parent, name)).st_ino)

    def _unlink(self, parent: int, body: bytes) -> bytes:
        self._keep(parent, body[:-1])
        os.unlink(self._at(parent, body[:-1]))
        self._changed((parent, body[:-1]))
        return b""

    def _rmdir(self, parent: int, body: bytes) -> bytes:
        os.rmdir(self._at(parent, body[:-1]))
        self._changed((parent, body[:-1]))
        return b""

    def _rename(self, parent: int, body: bytes) -> bytes:
        (new_parent,), (name, new_name, _) = wire.LONG.unpack_from(body), body[wire.LONG.size :].split(b"\0")
        self._keep(new_parent, new_name)
        os.rename(self._at(parent, name), self._at(new_parent, new_name))
        self._changed((parent, name), (new_parent, new_name))
        return b""

    # -- files

    def _handle(self, fd: int, node: int) -> bytes:
        self.opened[fd] = _Open(fd, node)
        return wire.OPENED.pack(fd, wire.KEEP_CACHE if self.options.stale_entries else 0, 0)

    def _open(self, node: int, body: bytes) -> bytes:
        self._check_there(node)
        flags, _ = wire.OPEN.unpack(body)
        flags &= ~(os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_APPEND | os.O_DIRECT)
        return self._handle(os.open(self._at(node), flags), node)

    def _check_there(self, node: int) -> None:
        is_gone = not os.fstat(self._nodes[node]).st_nlink and node not in self._removed
        if is_gone and not self.options.stale_entries:
            raise OSError(errno.ESTALE, "")

    def _create(self, parent: int, body: bytes) -> bytes:
        flags, mode, _, _ = wire.CREATE.unpack_from(body)
        name = body[wire.CREATE.size : -1]
        fd = os.open(self._at(parent, name), (flags | os.O_CREAT) & ~(os.O_APPEND | os.O_DIRECT), mode)
        entry = self._made(parent, name)
        return entry + self._handle(fd, os.fstat(fd).st_ino)

    def _read(self, node: int, body: bytes) -> bytes:
        fd, offset, size, *_ = wire.READ.unpack(body)
        self._check_there(node)
        return os.pread(self.opened[fd].fd, size, offset)

    def _write(self, _node: int, body: bytes) -> bytes:
        fd, offset, size, *_ = wire.READ.unpack_from(body)
        self.opened[fd].is_synced = False
        return wire.WRITTEN.pack(os.pwrite(fd, body[wire.READ.size : wire.READ.size + size], offset), 0)

    def _fsync(self, _node: int, body: bytes) -> bytes:
        (fd,) = wire.LONG.unpack_from(body)
        self.opened[fd].is_synced = True
        return b""

    def _flush(self, _node: int, body: bytes) -> bytes:
        (fd,) = wire.LONG.unpack_from(body)
        # what fails of a file that is not synced is lost
        if self.opened[fd].is_synced and self._random.random() < self.options.close_fails:
            self.counts["close failed"] += 1
            raise OSError(self._random.choice((errno.EIO, errno.ESTALE)), "")
        return b""

    def _release(self, _node: int, body: bytes) -> bytes:
        (fd,) = wire.LONG.unpack_from(body)
        os.close(self.opened.pop(fd).fd)
        return b""

    def _setlk(self, _node: int, body: bytes, wait: int = fcntl.LOCK_NB) -> bytes:
        fd, _, start, end, kind, _, flags, _ = wire.LOCK.unpack(body)
        if flags & wire.IS_FLOCK:
            if kind == fcntl.F_WRLCK and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                # as on NFS
                raise OSError(errno.EBADF, "")
            fcntl.flock(fd, _FLOCKS[kind] | wait)
        else:
            # of an open file, not of a process: all who lock are one process here
            length = 0 if end > wire.LAST else end - start + 1
            command = fcntl.F_OFD_SETLK if wait else fcntl.F_OFD_SETLKW
            fcntl.fcntl(fd, command, wire.FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
        return b""

    def _setlkw(self, node: int, body: bytes) -> bytes:
        return self._setlk(node, body, 0)

    def expire(self) -> None:
        """The server gives up this host: its locks are gone."""
        for fd in list(self.opened):
            fcntl.flock(fd, fcntl.LOCK_UN)

    # -- listings

    def _opendir(self, node: int, _body: bytes) -> bytes:
        now = time.monotonic()
        listing = self._listings.get(node)
        if listing is None or listing.when + self.options.stale < now:
            with os.scandir(self._at(node)) as entries:
                listing = self._listings[node] = _Listing(now, sorted(entries, key=lambda entry: entry.name))
        fd = os.open(self._at(node), _LISTING_FLAGS)
        self._listed[fd] = listing.entries
        return wire.OPENED.pack(fd, 0, 0)

    def _readdir(self, _node: int, body: bytes) -> bytes:
        fd, offset, size, *_ = wire.READ.unpack(body)
        data = b""
        for after, entry in enumerate(self._listed[fd][offset:], offset + 1):
            piece = wire.dirent(entry, after)
            if len(data) + len(piece) > size:
                break
            data += piece
        return data

    def _releasedir(self, _node: int, body: bytes) -> bytes:
        (fd,) = wire.LONG.unpack_from(body)
        del self._listed[fd]
        os.close(fd)
        return b""

    def _fsyncdir(self, _node: int, _body: bytes) -> bytes:
        return b""
