"""What the kernel is told of nodes: their attributes, alone or in a listing."""

from __future__ import annotations

import stat

import pyfuse3

from katafs.tree.nodes import Node, PlusEntry
from katafs.tree.timeouts import IMMUTABLE, NEVER


def dot_entry(number: int) -> pyfuse3.EntryAttributes:
    """What a listing says of ``.`` and ``..``: the kernel looks at nothing but number and type."""
    answer = pyfuse3.EntryAttributes()
    answer.st_ino = number
    answer.st_mode = stat.S_IFDIR
    answer.attr_timeout = answer.entry_timeout = NEVER
    return answer


def attributes(node: Node, entry_timeout: float) -> pyfuse3.EntryAttributes:
    """What the kernel is told of a node, and for how long, in seconds, of its name."""
    answer = pyfuse3.EntryAttributes()
    describe(answer, node, entry_timeout)
    return answer


def describe(answer: pyfuse3.EntryAttributes, node: Node, entry_timeout: float) -> None:
    """Set all attributes: of an answer that may have been another node's."""
    size = node.size()
    describe_entry(answer, node, PlusEntry(b"", node.number, node.mode, size or 0, node.mtime_ns))
    answer.generation = node.generation
    answer.attr_timeout = NEVER if size is None else node.attr_timeout
    answer.entry_timeout = entry_timeout


def describe_entry(answer: pyfuse3.EntryAttributes, directory: Node, entry: PlusEntry) -> None:
    """The same of an entry of a directory that never changes."""
    _, answer.st_ino, answer.st_mode, size, mtime_ns = entry
    answer.generation = 0
    answer.st_nlink = 1
    answer.st_uid, answer.st_gid = directory.owner
    answer.st_size = size
    # tar -S takes a file without blocks for one great hole
    answer.st_blocks = (size + 511) // 512
    answer.st_blksize = 131072
    answer.st_atime_ns = answer.st_mtime_ns = answer.st_ctime_ns = mtime_ns
    answer.attr_timeout = answer.entry_timeout = IMMUTABLE
