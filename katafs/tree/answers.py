"""What requests ask of a node, wherever that is (`QUESTIONS`); and how questions about the tree are answered in another
process (`answer`): whole, by a tree of its own over the same store.

Numbers are computed, so any process can tell what a key is; what was written last to a control file is told with the
question, and what comes back is put into the reply as if it had been found here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cachetools

from katafs.errors import DamagedError, HeavyError, KataError, NoEventsError, NotFoundError, StaleError, TooLargeError
from katafs.git.beneath import is_shared
from katafs.git.budget import Budget
from katafs.kata.store import Store
from katafs.tree.context import Context
from katafs.tree.nodes import Entry, Later, Node
from katafs.tree.numbers import GROUP, PREFIX, Key
from katafs.tree.timeouts import NEVER
from katafs.tree.tree import Tree

# what a question may cost in a worker, in microseconds
_MOST = 10e6
# entries of one answer, and seconds after which it is as long as it is
_MOST_ENTRIES, _SECONDS = 200, 0.5
_LISTINGS, _HELD = 8, 200
# How long, in seconds, what another host is changing may seem to be damaged, and for how long what is not is taken for
# damaged in earnest.
_PATIENCE, _PAUSE, _IN_VAIN = 2.5, 0.05, 10.0
# whose first argument is a name in the directory
_OF_A_CHILD = ("lookup", "creator")


class Place(NamedTuple):
    """Where a worker finds what it is asked about, and whose it is to say that files are."""

    store: Path
    uid: int | None
    gid: int | None
    device: int
    groups: Path | None


class Question(NamedTuple):
    """``name`` is one of `ANSWERS`, by what the request is called; ``key`` whom it is about."""

    name: str
    key: Key
    arguments: tuple[Any, ...] = ()

    @property
    def kata_id(self) -> str:
        """The kata that the answer is in; what is not yet a whole id for what is above all katas."""
        if self.name in _OF_A_CHILD and self.key.kind == PREFIX and len(self.key.kata) == 4:
            name: bytes = self.arguments[0]
            return self.key.kata + name.decode("ascii", "replace")
        return self.key.kata


class Seen(Node):
    """A node as the kernel is told of it, and for how long, in seconds, its name holds."""

    def __init__(self, node: Node, timeout: float) -> None:
        super().__init__(node.key, node.owner, node.mtime_ns)
        self.generation, self.mode, self.attr_timeout = node.generation, node.mode, node.attr_timeout
        self.timeout = timeout
        self.known_size = node.size()
        #: of a content that is made: by what name its size is remembered
        self.identity: Hashable = getattr(node, "identity", None)

    def size(self) -> int | None:
        return self.known_size


# -- what is asked of a node, wherever that is


def find(directory: Node, name: bytes) -> Entry:
    """The entry of a name, with its size where that takes little."""
    entry = directory.child(name)
    if entry.node.size() is None:
        # what takes no longer than another request is made now; who reads it will hear what is wrong with it
        with contextlib.suppress(KataError):
            entry.node.prepare()
    return entry


def _dots(tree: Tree, directory: Node, name: bytes) -> Entry:
    return Entry(tree.node_of(directory.key if name == b"." else directory.parent()), NEVER)


#: by name: whether the content of a node is to be made before, and what it is asked then
QUESTIONS: dict[str, tuple[bool | Callable[[Node], bool], Callable[..., object]]] = {
    "lookup": (True, lambda _, node, name: find(node, name)),
    "dots": (False, _dots),
    "getattr": (lambda node: node.size() is None, lambda _, node: Entry(node, NEVER)),
    "read": (True, lambda _, node, offset, size: node.read_behind(offset, size)),
    "readlink": (False, lambda _, node: node.target()),
    "attributes": (lambda node: node.has_attributes, lambda _, node: node.attributes()),
    "parent": (True, lambda _, node: node.parent()),
    "creator": (True, lambda _, node, name, is_directory: node.to_create(name, is_directory=is_directory)),
}

# -- in the worker

_trees: dict[Place, Tree] = {}
_in_vain: cachetools.TTLCache[str, bool] = cachetools.TTLCache(1000, _IN_VAIN)
# what a listing began with, for its later parts
_listings: cachetools.LRUCache[Key, list[bytes]] = cachetools.LRUCache(_LISTINGS)


def answer(_say: object, place: Place, outcomes: Mapping[Key, tuple[bytes | None, int]], question: Question) -> object:
    """The answer to a question. Raises what is to be heard, and `TooLargeError` when it takes too much here as well."""
    tree = _trees.get(place)
    if tree is None:
        store = Store(place.store, budget=Budget(_MOST, may_wait=True))
        # it may have been unmounted since
        store.device = place.device
        tree = _trees[place] = Tree(Context(store, place.uid, place.gid, place.groups))
    tree.ctx.controls.take(outcomes)
    tree.ctx.git_files.trim(_HELD)
    kata_id = question.kata_id
    end = time.monotonic() + (_PATIENCE if is_shared(place.store) and kata_id not in _in_vain else 0.0)
    while True:
        try:
            return _answer(tree, question)
        except NoEventsError:
            raise
        except DamagedError:
            if time.monotonic() >= end:
                _in_vain[kata_id] = True
                raise
        time.sleep(_PAUSE)


def _answer(tree: Tree, question: Question) -> object:
    tree.ctx.store.new_epoch()
    try:
        if len(question.kata_id) == 6 and question.key.kind != GROUP:
            tree.ctx.store.refresh(question.kata_id)
        return ANSWERS[question.name](tree, question.key, *question.arguments)
    except HeavyError as error:
        raise TooLargeError(f"kata {question.kata_id}: {question.name} takes too long") from error
    except MemoryError as error:
        tree.clear_caches()
        raise TooLargeError(f"kata {question.kata_id}: {question.name} takes too much memory") from error


def _node(tree: Tree, key: Key) -> Node:
    try:
        return tree.node_of(key)
    except NotFoundError as error:
        raise StaleError(f"{key}: {error}") from error


def _prepared(tree: Tree, node: Node) -> Node:
    """The node with its content made, and asked again after that: the budget is for each part of the work."""
    while (work := node.prepare()) is not None:
        try:
            result = work()
            node.prepared(result.make() if isinstance(result, Later) else result)
        except TooLargeError as error:
            node.too_large(error)
            raise
        tree.ctx.store.new_epoch()
    return node


def _asked(name: str, tree: Tree, key: Key, *arguments: Any) -> object:
    prepares, ask = QUESTIONS[name]
    node = _node(tree, key)
    if prepares is True or (prepares and prepares(node)):
        node = _prepared(tree, node)
    said = ask(tree, node, *arguments)
    return Seen(*said) if isinstance(said, Entry) else said


def _readdir(tree: Tree, key: Key, start: int) -> list[tuple[int, bytes, Seen]]:
    """Entries from ``start`` on, each with the position after it: as many as can be found in a moment, but one."""
    names = _listings.get(key) if start else None
    directory = _prepared(tree, _node(tree, key))
    if names is None:
        names = _listings[key] = directory.names()
    entries: list[tuple[int, bytes, Seen]] = []
    end = time.monotonic() + _SECONDS
    for position, name in enumerate(names[start:], start + 1):
        try:
            entries.append((position, name, Seen(*directory.child(name))))
        except NotFoundError:
            pass  # it is gone by now
        except HeavyError:
            if not entries:
                raise
            break
        if len(entries) == _MOST_ENTRIES or (entries and time.monotonic() > end):
            break
    return entries


#: what a question of that name is answered with, by a tree for a key
ANSWERS: dict[str, Callable[..., object]] = {
    **{name: partial(_asked, name) for name in QUESTIONS},
    "readdir": _readdir,
    "sink": lambda tree, key: _node(tree, key).sink(),
    "tip": lambda tree, key: tree.tip(key.kata).commit.oid,
    "stale": lambda tree, key, before: tree.stale_since(key.kata, before),
}
