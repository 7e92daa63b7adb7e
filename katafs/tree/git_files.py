"""Files of ``.git/`` that somebody may have open or mapped: they stay readable, whole, when removed or replaced (see
*`.git` in the mount* in design.md)."""

from __future__ import annotations

import os
import resource
import stat
import time
from collections import OrderedDict
from hashlib import blake2b
from typing import NamedTuple

from katafs.errors import DamagedError, NotFoundError, unreadable
from katafs.git.beneath import GONE, close_quietly, open_beneath, real_path
from katafs.kata.read import stored_files
from katafs.kata.store import Store
from katafs.tree.numbers import PLAIN, Key, Numbers

#: descriptors that the daemon may have, where the system lets it
DESCRIPTORS = 65536
_MOST = 16384
# how long a pack that is gone can still be opened by its name: by who has listed the directory a moment ago
_LISTED_SECONDS = 10.0
# that are held before they are looked up: some milliseconds of work
_MOST_LISTED = 200
#: the directory of packs in a kata
PACKS = b".git/objects/pack"


class Held(NamedTuple):
    key: Key
    fd: int
    status: os.stat_result


def has_identity(path: bytes) -> bool:
    """Whether a regular file at a path of a kata is numbered by what it is: all but what grows where it is."""
    return path.startswith(b".git/") and path != b".git/config" and not path.startswith(b".git/logs/")


def identified(kata_id: str, path: bytes, status: os.stat_result) -> Key:
    identity = b"%d %d %d" % (status.st_ino, status.st_mtime_ns, status.st_size)
    # never 0, which is a path without an identity
    return Key(PLAIN, kata_id, 1 + int.from_bytes(blake2b(identity, digest_size=8).digest()), path=path)


class HeldFiles:
    """The files that are held open. Belongs to the event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: OrderedDict[int, Held] = OrderedDict()
        self._packs: dict[tuple[str, bytes], tuple[int, float]] = {}
        self._most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2, _MOST)

    def get(self, number: int) -> Held | None:
        return self._held.get(number)

    def hold(self, kata_id: str, path: bytes) -> Held | None:
        """Open what is at a path, or was a moment ago; None beyond the number that is held at a time. Raises
        `NotFoundError`, or `DamagedError` (EIO)."""
        root = self._store.path(kata_id)
        try:
            stored_files.status(root, path)
            fd = open_beneath(os.path.join(real_path(root), os.fsdecode(path)))
        except (NotFoundError, FileNotFoundError) as error:
            known = self._listed(kata_id, path)
            if known is None:
                raise NotFoundError(f"no {path!r}") from error
            return known
        except OSError as error:
            raise unreadable(f"{path!r}", error) from error
        status = os.fstat(fd)
        key = identified(kata_id, path, status)
        number = Numbers.number(key)
        known = self._held.get(number)
        if known is not None or len(self._held) >= self._most or not stat.S_ISREG(status.st_mode):
            close_quietly(fd)
        else:
            known = self._held[number] = Held(key, fd, status)
        if known is not None:
            self._held.move_to_end(number)
            if path.startswith(PACKS + b"/"):
                self._packs[kata_id, path] = number, time.monotonic()
        return known

    def hold_listed(self, kata_id: str, names: list[bytes]) -> bool:
        """Hold packs that were listed. False where one is gone before that, as its replacement may not be listed: who
        looks for an object is to find it in one of them."""
        try:
            for path in (PACKS + b"/" + name for name in names[:_MOST_LISTED]):
                if self._listed(kata_id, path) is None:
                    self.hold(kata_id, path)
        except NotFoundError:
            return False
        except DamagedError:
            # the same is heard by who opens it
            pass
        return True

    def _listed(self, kata_id: str, path: bytes) -> Held | None:
        number, when = self._packs.get((kata_id, path), (0, 0.0))
        return self._held.get(number) if time.monotonic() - when < _LISTED_SECONDS else None

    def release(self, number: int) -> None:
        """The kernel has forgotten a number: nobody has the file open."""
        held = self._held.pop(number, None)
        if held is not None:
            self._packs.pop((held.key.kata, held.key.path), None)
            close_quietly(held.fd)

    def trim(self, most: int) -> None:
        """Let go of the oldest beyond so many: to be called where nobody hears what the kernel has forgotten."""
        while len(self._held) > most:
            self.release(next(iter(self._held)))

    def looked_up(self) -> tuple[list[Key], list[Held]]:
        """The oldest of too many, and all others that are not to be opened by a name that was listed."""
        held = list(self._held.values())
        now = time.monotonic()
        listed = {number for number, when in self._packs.values() if now - when < _LISTED_SECONDS}
        count = max(0, len(held) - self._most // 2)
        others = [one for one in held[count:] if not listed or Numbers.number(one.key) not in listed]
        return [one.key for one in held[:count]], others

    def is_gone(self, held: Held) -> bool:
        """Whether it is not at its path any more. For a worker thread."""
        try:
            path = os.path.join(self._store.path(held.key.kata), os.fsdecode(held.key.path))
            return identified(held.key.kata, held.key.path, os.lstat(path)) != held.key
        except NotFoundError:
            return True
        except OSError as error:
            return error.errno in GONE

    def __len__(self) -> int:
        return len(self._held)
