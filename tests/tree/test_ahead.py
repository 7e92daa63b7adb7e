"""What is told of an event at once, and before it is asked for, is what its nodes say, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import islice
from pathlib import Path

import pytest

from katafs.kata.model.ids import kata_path
from katafs.kata.model.layouts import SAVER
from katafs.kata.record.commit import set_option
from katafs.kata.record.create import create_kata
from katafs.tree.catalogue import row_at
from katafs.tree.dirs.event_directory import Sized
from katafs.tree.nodes import Node, PlusEntry
from katafs.tree.numbers import Numbers
from katafs.tree.timeouts import IMMUTABLE
from tests.katas import (
    START,
    GitCommit,
    GitFile,
    add_event,
    git,
    import_commits,
    make_kata,
    make_long_kata,
    make_odd_kata,
    pretty_json,
    row_time,
)
from tests.odd.making import make_odd
from tests.odd.settings import numbers
from tests.plain_katas import make_plain_kata
from tests.tree.test_tree import fresh

_ID = "AbCdEf"


def _of_saver(store: Path) -> None:
    """In saver's layout, with an outage, options that are set, and outputs that are cut short."""
    manifest = {"display_name": "X", "exercise": "Y", "visible_files": {"a.txt": {"content": "a"}}}
    create_kata(store, manifest, _ID, START, layout=SAVER)
    path = kata_path(store, _ID)
    for index in (1, 2, 5, 6, 9):
        cut = {"content": "x" * index, "truncated": index == 2}
        add_event(path, index, files={"a.txt": "a" * index, "b/c.txt": "c", "b/d/e": "e"}, stdout=cut)
    set_option(path, _ID, "theme", "dark")
    add_event(path, 10, files={})


def _of_nothing(store: Path) -> None:
    """Events without files, and with nothing else, and with nothing at all beside rows."""
    rows = [{"index": index, "colour": "red", "time": row_time(60 * index)} for index in range(6)]
    commits = []
    for index in range(6):
        named = {"events_summary.json": pretty_json(rows[: index + 1]), "config/theme": b"dark\n"}
        named |= {"files/a/b/c": b"c" * index, "files/z": b""} if index % 2 else {}
        named |= {"truncations.json": pretty_json({"files": {"z": True}}), "stdout": b"o"} if index > 3 else {}
        commits.append(GitCommit(f"{index} x", [GitFile(*each) for each in named.items()], [index]))
    import_commits(kata_path(store, _ID), commits)


def _without_tags(store: Path) -> None:
    path = make_long_kata(store, _ID, 12)
    git(path, "tag", "-d", "3", "4", "9")
    git(path, "pack-refs", "--all")
    add_event(path, 13, files={"new": "new"})


def _without_rows(store: Path) -> None:
    """An event that has no commit, and one whose time is none."""
    rows = [{"index": index, "colour": "red", "time": row_time(60 * index)} for index in range(5)]
    rows[2]["time"] = "noon"
    commits = [
        GitCommit(f"{index} x", [GitFile("events.json", pretty_json(rows)), GitFile("options.json", b"{}")], [index])
        for index in range(4)
    ]
    import_commits(kata_path(store, _ID), commits)


KATAS: dict[str, Callable[[Path], object]] = {
    "long": lambda store: make_long_kata(store, _ID, 20),
    "odd names": lambda store: make_odd_kata(store, _ID),
    "no files": lambda store: make_kata(store, _ID, {}),
    "saver": _of_saver,
    "nothing": _of_nothing,
    "without tags": _without_tags,
    "without rows": _without_rows,
    "version 0": lambda store: make_plain_kata(store, _ID, 0, 1, 6),
    "version 1": lambda store: make_plain_kata(store, _ID, 1, 1, 6),
    **{f"odd {number}": lambda store, number=number: make_odd(store, number) for number in numbers(10)},  # type: ignore[misc]
}


def _said(directory: Node, name: bytes) -> PlusEntry:
    """What the node of an entry says, of which all is to be kept for long."""
    node, timeout = directory.child(name)
    assert (timeout, node.attr_timeout) == (IMMUTABLE, IMMUTABLE)
    assert Numbers.is_computed(node.number)
    assert (node.owner, node.generation) == (directory.owner, 0)
    return PlusEntry(name, node.number, node.mode, node.size() or 0, node.mtime_ns)


@pytest.mark.parametrize("kind", KATAS)
@pytest.mark.parametrize("step", [1, -1])
def test_of_all_directories_of_events(store: Path, kind: str, step: int) -> None:
    KATAS[kind](store)
    kata_id = f"{int(kind[4:]):06}" if kind[4:].isdigit() else _ID
    with fresh(store) as tree:
        kata = tree.ctx.store.kata(kata_id)
        known: dict[Hashable, Sized] = {}
        told = 0
        events = range(kata.tip().last + 1)[::step]
        for index, directories in tree.directories_of_events(kata_id, events):
            for directory in directories if index != 4 or kind != "without rows" else ():
                sized = directory.sized(known)
                if sized is None:
                    continue
                base, time = directory.base, directory.mtime_ns
                entries = [PlusEntry(name, base + slot, mode, size, time) for name, slot, mode, size in sized]
                assert entries == directory.fast_listing()
                assert entries == [_said(directory, name) for name in directory.names()]
                contents = dict(directory.contents({slot for _, slot, _, _ in sized}))
                for name, slot, _, size in sized:
                    if slot in contents:
                        node = directory.child(name).node
                        assert contents[slot] == node.read(0, size + 1)
                        assert len(contents[slot]) == size
                told += 1
        assert told > len(events)


def _history(path: Path, text: bytes) -> Path:
    rows = [{"index": index, "colour": "red", "time": row_time(len(text) * index)} for index in range(3)]
    commits = []
    for index in range(3):
        named = {"events_summary.json": pretty_json(rows[: index + 1]), "files/a/b": text, "files/c/d": text}
        commits.append(GitCommit(f"{index} x", [GitFile(*each) for each in named.items()], [index]))
    return import_commits(path, commits)


@pytest.mark.parametrize("told", range(6))
def test_another_history_comes_in_the_middle(store: Path, told: int) -> None:
    """Nothing is told ahead of the one before once the other is seen: it would be kept for that of the other. An
    event's own directory, and that of its options, look themselves."""
    path = _history(kata_path(store, _ID), b"before")
    other = _history(store.parent / "other", b"another")
    with fresh(store) as tree:
        tree.ctx.store.new_epoch()
        kata = tree.ctx.store.kata(_ID)
        _, directories = next(tree.directories_of_events(_ID, range(1, 2)))
        made = list(islice(directories, told))
        assert all(directory.is_lasting() and directory.sized({}) for directory in made)
        git(path, "fetch", "-q", "--update-head-ok", other, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        tree.ctx.store.new_epoch()
        assert [directory.sized({}) for directory in made[:2]] == [None] * len(made[:2])
        kata.tip()
        for directory in (*made, *directories):
            assert not directory.is_lasting() or directory.mtime_ns == kata.snapshot(1).time_ns
            assert not directory.is_lasting() or b"before" not in dict(directory.contents(range(99))).values()


@pytest.mark.parametrize("kind", KATAS)
def test_of_events(store: Path, kind: str) -> None:
    """Of those of which not all is told, the name."""
    KATAS[kind](store)
    kata_id = f"{int(kind[4:]):06}" if kind[4:].isdigit() else _ID
    with fresh(store) as tree:
        tree.ctx.store.new_epoch()
        directory = tree.node(Numbers.number(row_at("events").key(kata_id)))
        listed = directory.fast_listing()
        assert listed is not None
        assert [entry if isinstance(entry, bytes) else entry.name for entry in listed] == directory.names()
        told = [entry for entry in listed if isinstance(entry, PlusEntry)]
        assert told == [_said(directory, entry.name) for entry in told]
        if not kind.startswith("odd ") or kind == "odd names":
            assert len(told) >= len(listed) / 2
