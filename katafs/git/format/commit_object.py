"""Commits and annotated tags: lines of ``<word> SP <value>``, an empty line, the message. What objects refer to."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple

from katafs.git.format.loose import BLOB, COMMIT, KINDS, TAG, TREE, Oid
from katafs.git.format.tree_object import Stored, TreeEntry

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
