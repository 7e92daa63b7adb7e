"""Inode numbers that say what they name, so that nothing has to be remembered between requests or daemons.

A number is below 2^63 (Node.js shows larger ones wrong). The layout::

    1                                     the root
    2 … 63                                .katafs and what is in it
    2^16 + ab                             the directory Ab/ (ab: two characters in base 58)
    2^24 + abcd                           the directory Ab/Cd/
    (1 + abcdef) << 27 | code             something in a kata; the code has 27 bits:
        00 index:12 slot:13                   in event ``index``: a fixed entry, or the k-th path of its files
        01 00 0 version:14 which:8            one of a kata, such as ``events/``
        01 00 1 hash:22                       an archive, by its tip and how objects are packed
        01 01 hash:23                         a directory below the tip's ``files/``, by its path
        01 10 hash:23                         something in ``download/NAME/``, by its path
        01 11 0 version:14 which:8            one of the group of that id
        1 view:2 was:12 now:12                a diff
    TABLE … 2^63 - 1                      a hash of the key: what fits nowhere above

Keys in the table region cannot be turned back from the number alone: they are kept while the kernel holds them
(`Numbers.keep`, `Numbers.forget`), and a daemon that never gave one out answers ESTALE, upon which the kernel looks
the path up again. That concerns ``.git/**``, fences, files that are no kata's next to plain ones, pages of steps that
are to change yet, and what is absurdly large: events from 4096 on, paths from 8160 on. The plain paths of versions 0
and 1 are fixed entries of the kata and of its events, with one number as files of the store, and another made from git.

The k-th path is counted in the whole tree. Behind a directory that cannot be read nobody can count: while it is so,
the keys of paths hold the path.

Things of a mutable directory are never numbered by position: a file at the tip *is* the file of the newest event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import ClassVar, NamedTuple
from weakref import WeakKeyDictionary

from katafs.errors import StaleError
from katafs.kata.model.ids import BASE, ID_COUNT, from_number, to_number

ROOT = 1

# kinds of keys: they go into the numbers in the table, and never change
META, PREFIX, FIXED, EVENT, TIP_DIRECTORY, DOWNLOAD, DIFF, PLAIN, FENCE, GROUP = range(10)
# those of a number of 23 bits, in the order of the two bits before it
_BY_PLACE = (FIXED, TIP_DIRECTORY, DOWNLOAD, GROUP)

_PART_1 = 1 << 16
_PART_2 = 1 << 24
_CODE_BITS = 27
_INDEX_BITS = 12
_SLOT_BITS = 13
_HASH_BITS = 23
_WHICH_BITS, _VERSION_BITS = 8, 14
VERSIONS = 1 << _VERSION_BITS
_TABLE: int = (ID_COUNT + 1) << _CODE_BITS
_TABLE_SIZE: int = (1 << 63) - _TABLE

MAX_INDEX = 1 << _INDEX_BITS
MAX_SLOT = 1 << _SLOT_BITS


class Key(NamedTuple):
    """What a number names.

    ============== ============= ==================== ============ ====================
    kind           kata          a                    b            path
    ============== ============= ==================== ============ ====================
    META                         which, 1 = the root
    PREFIX         "Ab", "AbCd"
    FIXED          id            which, or a hash     version
    EVENT          id            index                slot         of a file behind one of the directories of the
                                                                   event that cannot be read: its path
    TIP_DIRECTORY  id            hash of the path     0, or 1 when the path is given
    DOWNLOAD       id            hash of the path     the same
    DIFF           id            was                  now, view    (b = now * 4 + view)
    PLAIN          id            of a file of .git:                path in the kata's directory
                                 which one it is
    FENCE          id            the directory's
                                 number
    GROUP          id            which                version
    ============== ============= ==================== ============ ====================

    What is made anew whenever there is something new is another thing each time, with a version; version 0 is how it is
    when it is asked for. A page (DIFF) that is to change yet has the newest event that it shows for a path.
    """

    kind: int
    kata: str = ""
    a: int = 0
    b: int = 0
    path: bytes = b""


def path_hash(path: bytes) -> int:
    """The hash of a path that a number has room for."""
    return int.from_bytes(blake2b(path, digest_size=4).digest()) >> (32 - _HASH_BITS)


class HashedPaths:
    """The paths of one tree, by their hashes: the keys of kinds that have room for a hash only.

    Where two paths have the same hash, neither is numbered by it: their keys hold the path, and go into the table.
    """

    _known: ClassVar[WeakKeyDictionary[object, HashedPaths]] = WeakKeyDictionary()

    @classmethod
    def of(cls, tree: object, paths: Callable[[], Iterable[bytes]]) -> HashedPaths:
        """Those of a tree that never changes, and may be kept elsewhere."""
        if tree not in cls._known:
            cls._known[tree] = cls(paths())
        return cls._known[tree]

    def __init__(self, paths: Iterable[bytes]) -> None:
        self._paths: dict[int, list[bytes]] = {}
        for path in paths:
            self._paths.setdefault(path_hash(path), []).append(path)

    def key(self, kind: int, kata: str, path: bytes) -> Key:
        number = path_hash(path)
        return Key(kind, kata, number) if len(self._paths[number]) == 1 else Key(kind, kata, number, 1, path)

    def path(self, key: Key) -> bytes | None:
        """The path of a key, or None when it has no such key (any more)."""
        return next((path for path in self._paths.get(key.a, ()) if self.key(key.kind, key.kata, path) == key), None)


class Numbers:
    """Keys to numbers and back. Belongs to one thread."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Key, int]] = {}

    @staticmethod
    def number(key: Key) -> int:
        """The number of a key; the same in every run."""
        kind = key.kind
        if kind == META:
            return key.a
        if kind == PREFIX:
            return (_PART_1 if len(key.kata) == 2 else _PART_2) + to_number(key.kata)
        base = (to_number(key.kata) + 1) << _CODE_BITS
        if kind == EVENT and key.a < MAX_INDEX and key.b < MAX_SLOT and not key.path:
            return base | key.a << _SLOT_BITS | key.b
        if kind in _BY_PLACE and key.b < VERSIONS and not key.path:
            return base | 1 << 25 | _BY_PLACE.index(kind) << 23 | key.b << _WHICH_BITS | key.a
        if kind == DIFF and key.a < MAX_INDEX and key.b < MAX_INDEX * 4 and not key.path:
            return base | 1 << 26 | (key.b & 3) << 24 | key.a << 12 | key.b >> 2
        digest = int.from_bytes(blake2b(repr(tuple(key)).encode(), digest_size=16).digest())
        return _TABLE + digest % _TABLE_SIZE

    @staticmethod
    def is_computed(number: int) -> bool:
        """Whether the key of a number follows from it alone, so that it need not be kept."""
        return number < _TABLE

    def key(self, number: int) -> Key:
        """The key of a number. Raises `StaleError` (ESTALE) for one that this daemon cannot resolve."""
        code = number & ((1 << _CODE_BITS) - 1)
        kata = (number >> _CODE_BITS) - 1
        if kata < 0:
            return self._small(number)
        if kata >= ID_COUNT:
            if number in self._kept:
                return self._kept[number][0]
            raise StaleError(f"inode {number} is not known")
        kata_id = from_number(kata)
        if code >> 26:
            return Key(DIFF, kata_id, code >> 12 & 0xFFF, (code & 0xFFF) << 2 | code >> 24 & 3)
        if not code >> 25:
            return Key(EVENT, kata_id, code >> _SLOT_BITS, code & (MAX_SLOT - 1))
        kind, which = _BY_PLACE[code >> _HASH_BITS & 3], code & ((1 << _HASH_BITS) - 1)
        if kind in (FIXED, GROUP) and which >> _WHICH_BITS < VERSIONS:
            return Key(kind, kata_id, which & ((1 << _WHICH_BITS) - 1), which >> _WHICH_BITS)
        return Key(kind, kata_id, which)

    @staticmethod
    def _small(number: int) -> Key:
        if number < _PART_1:
            return Key(META, "", number)
        for start, length in ((_PART_1, 2), (_PART_2, 4)):
            if start <= number < start + BASE**length:
                return Key(PREFIX, from_number(number - start, length))
        raise StaleError(f"inode {number} is not known")

    def keep(self, number: int, key: Key) -> None:
        """The kernel was told this number once more."""
        if number >= _TABLE:
            _, count = self._kept.get(number, (key, 0))
            self._kept[number] = (key, count + 1)

    def forget(self, number: int, count: int) -> bool:
        """The kernel has forgotten this number ``count`` times; whether it was kept, and is not any more."""
        kept = self._kept.get(number)
        if kept is None:
            return False
        if kept[1] <= count:
            del self._kept[number]
            return True
        self._kept[number] = (kept[0], kept[1] - count)
        return False

    def __len__(self) -> int:
        return len(self._kept)
