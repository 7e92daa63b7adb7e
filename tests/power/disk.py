"""A disk in memory, on which recorded calls are done again, and what may be left of it after a power cut.

The model stands at the head of `tests.power.test_power`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from tests.power.file import File
from tests.power.trace import Call

#: what is on a disk, or in a part of it: a directory is None, a file its bytes, a link its target in a tuple
Tree = dict[bytes, "bytes | tuple[bytes] | None"]


def read_tree(path: Path) -> Tree:
    """All below a directory of a real disk."""
    disk = Disk(path)
    return disk.whole().tree(disk.root)


class Directory:
    """A directory. It knows no names: these are what changes made of it."""


class Link:
    """A symbolic link."""

    def __init__(self, target: bytes) -> None:
        self.target = target


Node = File | Directory | Link
Slot = tuple[Directory, bytes]


@dataclass(eq=False)
class Change:
    """A change of directories by one call: ``node`` gets the name ``to``, and no more has ``gone``."""

    call: Call
    node: Node
    to: Slot | None
    gone: Slot | None = None

    def slots(self) -> list[Slot]:
        return [slot for slot in (self.to, self.gone) if slot is not None]


class Names:
    """The names in all directories, after some changes."""

    def __init__(self, names: dict[Directory, dict[bytes, Node]]) -> None:
        self._names = {directory: dict(inside) for directory, inside in names.items()}

    def inside(self, directory: Directory) -> dict[bytes, Node]:
        return self._names.setdefault(directory, {})

    def copy(self) -> Names:
        return Names(self._names)

    def do(self, change: Change) -> None:
        """Do a change, as far as the changes that it rests on were done."""
        if change.gone is not None:
            directory, name = change.gone
            is_there = self.inside(directory).get(name) is change.node
            if not is_there or (change.to is None and isinstance(change.node, Directory) and self.inside(change.node)):
                return
            del self.inside(directory)[name]
        if change.to is not None:
            self.inside(change.to[0])[change.to[1]] = change.node

    def find(self, root: Directory, path: bytes) -> Node | None:
        node: Node | None = root
        for part in path.split(b"/"):
            if part:
                node = self.inside(node).get(part) if isinstance(node, Directory) else None
        return node


@dataclass
class Left:
    """What a power cut may leave: the moment, the names, and the files that are not as they were last."""

    moment: int
    what: str
    names: Names
    files: dict[File, bytes] = field(default_factory=dict)

    def tree(self, top: Node | None) -> Tree:
        """All below a directory, by path; empty where it is not there."""
        found: Tree = {}
        if isinstance(top, Directory):
            self._add(top, b"", found)
        return found

    def _add(self, directory: Directory, path: bytes, found: Tree) -> None:
        for name, node in self.names.inside(directory).items():
            if isinstance(node, Directory):
                found[path + name] = None
                self._add(node, path + name + b"/", found)
            elif isinstance(node, Link):
                found[path + name] = (node.target,)
            else:
                data = self.files.get(node)
                found[path + name] = data if data is not None else node.now(self.moment)


class Disk:
    """A directory as it was when recording began, and each call since."""

    def __init__(self, path: Path) -> None:
        self.root = Directory()
        self.path = os.fsencode(path)
        first: dict[Directory, dict[bytes, Node]] = {}
        self._read(self.path, self.root, first)
        self._before = Names(first)
        self._now = Names(first)
        self._changes: list[Change] = []
        self._files: list[File] = []
        self._synced: list[tuple[int, int, Directory | None]] = []  # returned, begun; None: all
        self._unnamed: dict[bytes, File] = {}

    def _read(self, path: bytes, directory: Directory, names: dict[Directory, dict[bytes, Node]]) -> None:
        inside = names.setdefault(directory, {})
        for entry in os.scandir(path):
            if entry.is_symlink():
                inside[entry.name] = Link(os.readlink(entry.path))
            elif entry.is_dir():
                node = inside[entry.name] = Directory()
                self._read(entry.path, node, names)
            else:
                with open(entry.path, "rb") as file:
                    inside[entry.name] = File(-1, file.read())

    # -- doing the calls

    def do(self, call: Call) -> None:
        """Do a call, whatever it is."""
        if call.kind == "sync-all":
            self._synced.append((call.number, call.start, None))
            for file in self._files:
                file.synced.append((call.number, call.start))
        elif call.kind in ("mkdir", "symlink"):
            self._change(call, Directory() if call.kind == "mkdir" else Link(call.other), to=self._slot(call.path))
        elif call.kind in ("unlink", "rmdir"):
            gone = self._slot(call.path)
            self._change(call, self._now.inside(gone[0])[gone[1]], gone=gone)
        elif call.kind in ("rename", "link"):
            node = self._unnamed.get(call.path) or self._find(call.path)
            assert node is not None, call
            self._change(call, node, self._slot(call.other), self._slot(call.path) if call.kind == "rename" else None)
        else:
            self._do_file(call)

    def _do_file(self, call: Call) -> None:
        node = self._unnamed.get(call.path) or self._find(call.path)
        if call.kind == "sync" and isinstance(node, Directory):
            self._synced.append((call.number, call.start, node))
        elif call.kind == "open":
            self._open(call, node)
        elif isinstance(node, File):
            data = node.now(call.number)
            if call.kind == "sync":
                node.synced.append((call.number, call.start))
            elif call.kind == "seek":
                node.at = call.position or 0
            elif call.kind == "truncate":
                self._put(call, node, data[: call.position].ljust(call.position or 0, b"\0"))
            elif call.kind == "write":
                at = call.position if call.position is not None else len(data) if node.appends else node.at
                end = at + len(call.data)
                self._put(call, node, data[:at].ljust(at, b"\0") + call.data + data[end:])
                node.at = node.at if call.position is not None else end

    def _open(self, call: Call, node: Node | None) -> None:
        if "O_TMPFILE" in call.flags or (node is None and "O_CREAT" in call.flags):
            node = File(call.number, b"")
            self._files.append(node)
            if "O_TMPFILE" in call.flags:
                self._unnamed[call.path] = node
            else:
                self._change(call, node, to=self._slot(call.path))
        elif isinstance(node, File) and "O_TRUNC" in call.flags:
            self._put(call, node, b"")
        if isinstance(node, File):
            node.at, node.appends = 0, "O_APPEND" in call.flags

    def _put(self, call: Call, file: File, data: bytes) -> None:
        file.change(call.number, data)
        if file not in self._files:
            self._files.append(file)

    def _change(self, call: Call, node: Node, to: Slot | None = None, gone: Slot | None = None) -> None:
        change = Change(call, node, to, gone)
        self._changes.append(change)
        self._now.do(change)

    def _find(self, path: bytes) -> Node | None:
        if path != self.path and not path.startswith(self.path + b"/"):
            return None
        return self._now.find(self.root, path[len(self.path) :])

    def _slot(self, path: bytes) -> Slot:
        above, _, name = path.rstrip(b"/").rpartition(b"/")
        directory = self._find(above)
        assert isinstance(directory, Directory), f"{path!r} is not below the directory"
        return directory, name

    def whole(self) -> Left:
        """What is there when all was done, for those who read it."""
        return Left(1 << 62, "all of it", self._now)

    # -- what is left

    def one_deviation(self, moment: int) -> Iterator[Left]:
        """What may be left by a cut right after the call ``moment``: all, or all but one thing, or the least."""
        done = [change for change in self._changes if change.call.number <= moment]
        lasting, waiting = self._lasting(done, moment), self._waiting(moment)
        everything = self._after(done)
        yield Left(moment, "all of it", everything)
        floor = max((done.index(change) for change in lasting), default=-1) + 1
        for end in range(floor, len(done)):
            yield Left(moment, f"nothing since ({done[end].call})", self._after(done[:end]))
        for change in done[:-1]:
            if change not in lasting:
                names = self._after(other for other in done if other is not change)
                yield Left(moment, f"not ({change.call})", names)
        for file in waiting:
            for data in file.others(moment):
                yield Left(moment, f"{self._name(file, everything)}: {len(data)} bytes of it", everything, {file: data})
        least = {file: file.others(moment)[0] for file in waiting}
        yield Left(moment, "no more than was synced", self._after(c for c in done if c in lasting), least)

    def many_deviations(self, chance: random.Random, moments: list[int]) -> Left:
        """What may be left by a cut at some moment, of all that may be left."""
        moment = chance.choice(moments)
        done = [change for change in self._changes if change.call.number <= moment]
        lasting = self._lasting(done, moment)
        if chance.random() < 0.5:
            floor = max((done.index(change) for change in lasting), default=-1) + 1
            kept = done[: chance.randint(floor, len(done))]
        else:
            share = chance.random()
            kept = [change for change in done if change in lasting or chance.random() < share]
        some = [file for file in self._waiting(moment) if chance.random() < 0.6]
        files = {file: chance.choice(file.others(moment)) for file in some}
        missing = len(done) - len(kept)
        return Left(moment, f"{missing} changes of directories missing, {len(files)} files", self._after(kept), files)

    def _after(self, changes: Iterable[Change]) -> Names:
        names = self._before.copy()
        for change in changes:
            names.do(change)
        return names

    def _lasting(self, done: list[Change], moment: int) -> Set[Change]:
        """Which changes are on the disk for certain: those whose directory was synced since, and what they rest on."""
        synced: dict[Directory | None, int] = {}
        for end, start, directory in self._synced:
            if end <= moment:
                synced[directory] = max(start, synced.get(directory, -1))
        found: set[Change] = set()
        needed: set[Slot] = set()
        for change in reversed(done):
            slots = change.slots()
            begun = max(synced.get(directory, -1) for directory in (None, *(slot[0] for slot in slots)))
            if change.call.number < begun or needed.intersection(slots):
                found.add(change)
                needed.update(slots)
        return found

    def _waiting(self, moment: int) -> list[File]:
        return [file for file in self._files if file.others(moment)]

    def _name(self, file: File, names: Names) -> str:
        def look(directory: Directory, path: bytes) -> Iterator[bytes]:
            for name, node in names.inside(directory).items():
                if node is file:
                    yield path + name
                elif isinstance(node, Directory):
                    yield from look(node, path + name + b"/")

        return os.fsdecode(next(look(self.root, b""), b"a file without a name"))
