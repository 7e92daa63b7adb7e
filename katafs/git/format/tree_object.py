"""Trees: ``<octal mode> SP <name> NUL <20 bytes of id>``, repeated, sorted as if a directory's name ended in ``/``."""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

from katafs.git.format.loose import Oid
from katafs.git.format.pack import checksummed

MODE_TREE = 0o040000
MODE_BLOB = 0o100644
MODE_EXECUTABLE = 0o100755
MODE_SYMLINK = 0o120000
MODE_SUBMODULE = 0o160000
# What is no entry is one match without groups, to the end: to look for one further on takes quadratic time.
_ENTRY = re.compile(rb"([0-7]{1,7}) ([^\0]+)\0(.{20})|.+", re.DOTALL)
# one that git would not write, or whose id is cut off
_ODD_ENTRY = re.compile(rb"([0-7]{1,10}) ([^\0]*)\0(.{0,20})|.+", re.DOTALL)

# one that a file system can show (`is_component`)
_PLAIN_ENTRY = re.compile(rb"([0-7]{1,7}) (?!\.\.?\0)([^\0/]{1,255})\0(.{20})|.+", re.DOTALL)

_Content = TypeVar("_Content")
#: mode as it is stored, name, id
Stored = tuple[bytes, bytes, Oid]


class TreeEntry(NamedTuple):
    """One entry of a tree, its mode as stored (which may be odd in a hostile repository)."""

    name: bytes
    mode: int
    oid: Oid

    @property
    def is_tree(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_submodule(self) -> bool:
        """Whether there is nothing to follow: to git, whatever is neither a tree nor a file is a submodule."""
        return not (stat.S_ISDIR(self.mode) or stat.S_ISREG(self.mode) or stat.S_ISLNK(self.mode))


def parse_tree(data: bytes, entry: re.Pattern[bytes] = _ENTRY) -> list[Stored]:
    """All entries of a tree as they are stored."""
    entries = entry.findall(data)
    if entries and not entries[-1][0]:
        raise ValueError("a tree is damaged")
    return entries


def every_entry(data: bytes) -> list[Stored]:
    """All entries of a tree, also those that git would not write."""
    try:
        return parse_tree(data)
    except ValueError:
        return [entry for entry in parse_tree(data, _ODD_ENTRY) if len(entry[2]) == 20]


def tree_entries(data: bytes) -> list[TreeEntry]:
    """The entries of a tree that a file system can show: of two of one name the first."""
    plain = _PLAIN_ENTRY.findall(data)
    if plain and plain[-1][0] and len({name for _, name, _ in plain}) == len(plain):
        return [TreeEntry(name, int(mode, 8), oid) for mode, name, oid in plain]
    first: dict[bytes, TreeEntry] = {}
    for mode, name, oid in every_entry(data):
        if is_component(name):
            first.setdefault(name, TreeEntry(name, int(mode, 8), oid))
    return list(first.values())


def build_tree(entries: Iterable[Stored]) -> bytes:
    """A tree of these entries, in any order."""
    ordered = sorted(entries, key=lambda entry: entry[1] + b"/" * stat.S_ISDIR(int(entry[0], 8)))
    return b"".join([b"%b %b\0%b" % entry for entry in ordered])


def index_file(entries: Iterable[tuple[bytes, int, Oid, int]], mtime: int) -> bytes:
    """``.git/index`` (version 2; git's gitformat-index), which says: each file is in the work tree as it is in the tip,
    last changed at ``mtime``.

    Each has its path from the top, its mode in the tree, id and size. What git does not look at is zero, with
    ``core.checkStat=minimal`` and ``core.trustctime=false``.
    """
    ordered = sorted(entries)
    seconds = mtime & 0xFFFFFFFF
    data = bytearray(struct.pack(">4sII", b"DIRC", 2, len(ordered)))
    for path, mode, oid, size in ordered:
        kept = MODE_SYMLINK if stat.S_ISLNK(mode) else MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB
        data += struct.pack(">10I", seconds, 0, seconds, 0, 0, 0, kept, 0, 0, size & 0xFFFFFFFF)
        data += oid + struct.pack(">H", min(len(path), 0xFFF)) + path
        # at least one NUL, to a multiple of eight from the start of the entry
        data += b"\0" * (8 - (62 + len(path)) % 8)
    return checksummed(data)


def by_directory(
    paths: Mapping[bytes, _Content],
) -> tuple[dict[bytes, _Content], dict[bytes, dict[bytes, _Content]]]:
    """What is at these paths: here, by name; and below, by directory and what is left of the path."""
    here: dict[bytes, _Content] = {}
    below: dict[bytes, dict[bytes, _Content]] = {}
    for path, content in paths.items():
        first, slash, rest = path.partition(b"/")
        if slash:
            below.setdefault(first, {})[rest] = content
        else:
            here[first] = content
    return here, below


def is_component(name: bytes) -> bool:
    """Whether ``name`` can be one name in a directory: not empty, dots, too long, or with a ``/`` or NUL in it."""
    return 0 < len(name) <= 255 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name
