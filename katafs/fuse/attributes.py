"""What the kernel is told of nodes: their attributes, alone or in a listing."""

from __future__ import annotations

import stat

import pyfuse3

from katafs.tree.nodes import Node, PlusEntry
from katafs.tree.timeouts import NEVER


def reply_listed(token: pyfuse3.ReaddirToken, directory: Node, entries: list[PlusEntry], start: int) -> None:
    """Hand over the entries of a directory, the first with the number ``start``, until there is no more room."""
    answer = attributes(directory, directory.attr_timeout)
    for position, (name, number, mode, size) in enumerate(entries, start):
        answer.st_ino = number
        answer.st_mode = mode
        _set_size(answer, size)
        if not pyfuse3.readdir_reply(token, name, answer, position):
            return


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
    answer.st_ino = node.number
    answer.generation = node.generation
    answer.st_mode = node.mode
    answer.st_nlink = 1
    answer.st_uid, answer.st_gid = node.owner
    _set_size(answer, size or 0)
    answer.st_blksize = 131072
    answer.st_atime_ns = answer.st_mtime_ns = answer.st_ctime_ns = node.mtime_ns
    answer.attr_timeout = NEVER if size is None else node.attr_timeout
    answer.entry_timeout = entry_timeout


def _set_size(answer: pyfuse3.EntryAttributes, size: int) -> None:
    answer.st_size = size
    # tar -S takes a file without blocks for one great hole
    answer.st_blocks = (size + 511) // 512
