"""Objects: their kinds and ids, trees, commits, annotated tags; and the checksum in which packs and git's indexes end.

A loose object is zlib of ``<kind> SP <decimal size> NUL <data>``; its id is the SHA-1 of the same. A tree is ``<octal
mode> SP <name> NUL <20 bytes of id>``, repeated, sorted as if a directory's name ended in ``/``. Commits and tags are
lines of ``<word> SP <value>``, an empty line, the message.
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

Oid = bytes  # 20 bytes

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
WORDS = {kind: word for word, kind in KINDS.items()}
#: the longest header of an object, in bytes, that anybody can mean
HEADER = 64


def header(kind: int, size: int) -> bytes:
    """What is in front of the data of an object."""
    return b"%b %d\0" % (WORDS[kind], size)


def object_id(kind: int, data: bytes) -> Oid:
    digest = hashlib.sha1(b"%b %d\0" % (WORDS[kind], len(data)))
    digest.update(data)
    return digest.digest()


#: the only object that has no bytes, and is neither damaged nor the empty tree
EMPTY_BLOB = object_id(BLOB, b"")


def parse_header(text: bytes) -> tuple[int, int, int]:
    """Kind and size, and where the data starts."""
    end = text.index(b"\0", 0, HEADER)
    word, _, digits = text[:end].partition(b" ")
    if word not in KINDS or not digits.isdigit():
        raise ValueError("it has no header")
    return KINDS[word], int(digits), end + 1


def checksummed(data: bytes | bytearray) -> bytes:
    return bytes(data) + hashlib.sha1(data).digest()


def is_whole(data: bytes) -> bool:
    """Whether a file ends in its own checksum."""
    return hashlib.sha1(memoryview(data)[:-20]).digest() == data[-20:]


# -- trees


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
    last changed at ``mtime``. Each has its path from the top, its mode in the tree, id and size. What git does not look
    at is zero, with ``core.checkStat=minimal`` and ``core.trustctime=false``."""
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


def by_directory(paths: Mapping[bytes, _Content]) -> tuple[dict[bytes, _Content], dict[bytes, dict[bytes, _Content]]]:
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


# -- commits and tags


_HEAD = re.compile(rb"tree [0-9a-f]{40}\n(?:parent [0-9a-f]{40}\n)*")
_COMMITTER = re.compile(rb"^committer (.* (-?[0-9]{1,15}) [+-][0-9]+)$", re.MULTILINE)
_TAGGED = re.compile(rb"object ([0-9a-f]{40})\ntype (commit|tree|blob|tag)\n")


class Commit(NamedTuple):
    """The parts of a commit that katafs uses; `time` is the committer's, in seconds since the epoch."""

    oid: Oid
    tree: Oid
    parents: tuple[Oid, ...]
    time: int
    message: bytes

    @property
    def subject(self) -> bytes:
        return self.message.split(b"\n", 1)[0]

    @property
    def event(self) -> int | None:
        """The event whose commit it says that it is: its subject starts with a number and a blank."""
        word = self.subject.split(b" ", 1)[0]
        return int(word) if word.isdigit() and len(word) <= 9 else None


def parse_commit(oid: Oid, data: bytes) -> Commit:
    tree, parents = commit_links(data)
    head, _, message = data.partition(b"\n\n")
    if (committer := _COMMITTER.search(head)) is None:
        raise ValueError("a commit of nobody")
    return Commit(oid, tree, parents, int(committer[2]), message)


def commit_links(data: bytes) -> tuple[Oid, tuple[Oid, ...]]:
    head = _HEAD.match(data)
    if head is None:
        raise ValueError("a commit has no tree")
    tree, *parents = [bytes.fromhex(line.split(b" ")[1].decode()) for line in head[0].splitlines()]
    return tree, tuple(parents)


def committer(data: bytes) -> bytes:
    """Who committed, when: as it stands in the line of a log."""
    found = _COMMITTER.search(data)
    return found[1] if found is not None else b""


def links(
    kind: int, data: bytes, seen: Container[Oid], entries: Callable[[bytes], list[Stored]]
) -> list[tuple[Oid, int, bytes]]:
    """What an object refers to and is not in ``seen``: id, kind, and name in a tree, which ends in ``/`` for a tree.
    ``entries`` are those of a tree; submodules, which are elsewhere, are left out."""
    if kind == COMMIT:
        tree, parents = commit_links(data)
        return [(tree, TREE, b"/"), *((parent, COMMIT, b"") for parent in parents)]
    if kind == TAG:
        target = tag_target(data)
        return [(*target, b"")] if target is not None else []
    found = []
    for mode, name, oid in entries(data) if kind == TREE else ():
        if oid not in seen:
            entry = TreeEntry(name, int(mode, 8), oid)
            if entry.is_tree:
                found.append((oid, TREE, name + b"/"))
            elif not entry.is_submodule:
                found.append((oid, BLOB, name))
    return found


def tag_target(data: bytes) -> tuple[Oid, int] | None:
    """Id and kind of what an annotated tag is of; None when it does not say so."""
    found = _TAGGED.match(data)
    return (bytes.fromhex(found[1].decode()), KINDS[found[2]]) if found is not None else None


def build_commit(tree: Oid, parents: Sequence[Oid], message: str, name: str, email: str, time: int) -> bytes:
    """A commit whose author and committer are the same, in UTC; `message` gets no newline. What is before 1970 is 0."""
    links = [f"tree {tree.hex()}\n", *(f"parent {parent.hex()}\n" for parent in parents)]
    who = f"{name} <{email}> {max(time, 0)} +0000\n"
    return f"{''.join(links)}author {who}committer {who}\n{message}".encode()
