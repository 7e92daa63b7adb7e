"""The catalogue: its numbers never change, and it says what is really seen, in katas of every layout."""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.errors import NotFoundError, StaleError
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import Pending
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.tree import makers
from katafs.tree.catalogue import (
    FIRST_MEMBER,
    FIRST_PATH,
    PLAIN_DIRECTORY,
    TABLE,
    Row,
    Shown,
    row_at,
    row_of,
    standing_in,
    thing_of,
)
from katafs.tree.dirs import contents
from katafs.tree.dirs.stored_nodes import PlainNode
from katafs.tree.nodes import Entry, Node
from katafs.tree.numbers import DIFF, EVENT, FENCE, FIXED, GROUP, META, PLAIN, Numbers
from katafs.tree.timeouts import MUTABLE
from katafs.tree.tree import Tree
from tests.katas import (
    GitCommit,
    GitFile,
    add_event,
    import_commits,
    make_kata,
    pretty_json,
    row_time,
    unpack,
)
from tests.plain_katas import make_plain_kata
from tests.tree.test_tree import fresh, made

# Kind, number, and where it stands: every number that was ever given out. Kernels and NFS clients hold them for weeks:
# a line is never changed or removed. What is new gets lines of its own, with numbers that are not here.
SHIPPED = """\
0 1: /
0 2: /.katafs
0 3: /.katafs/README.md
0 4: /.katafs/version
0 5: /.katafs/stats
0 6: /.katafs/groups
1 0: /Ab
2 0: .
2 1: files
2 2: events
2 3: events/latest
2 4: diff
2 5: diff/latest
2 6: download
2 7: download/NAME
2 8: download/NAME.tgz
2 9: download.tgz
2 10: .git
2 11: control
2 12: manifest.json
2 13: config
2 14: README.md
2 15: options.json
2 16: control/ran_tests, ran_tests
2 17: control/predicted_right
2 18: control/predicted_wrong
2 19: control/reverted
2 20: control/checked_out
2 21: control/file_create
2 22: control/file_delete
2 23: control/file_rename
2 24: control/file_edit
2 32: config/theme
2 33: config/colour
2 34: config/predict
2 35: config/revert_red
2 36: config/revert_amber
2 37: config/revert_green
2 40: html
2 41: html/index.html
2 42: history
2 65: theme:plain
2 66: colour:plain
2 67: predict:plain
2 68: revert_red:plain
2 69: revert_amber:plain
2 70: revert_green:plain
2 80: manifest.json:stored
2 81: events.json:stored
2 82: theme:stored
2 83: colour:stored
2 84: predict:stored
2 85: revert_red:stored
2 86: revert_amber:stored
2 87: revert_green:stored
3 0: events/N
3 1: events/N/files
3 2: events/N/config
3 3: events/N.json
3 4: events.json
3 5: events/N/stdout, stdout
3 6: events/N/stderr, stderr
3 7: events/N/status, status
3 8: events/N/truncations.json, truncations.json
3 9: events/N/manifest.json
3 10: event.json, events/N/event.json
3 11: events.json, events/N/events_summary.json, events_summary.json
3 16: events/N/config/theme
3 17: events/N/config/colour
3 18: events/N/config/predict
3 19: events/N/config/revert_red
3 20: events/N/config/revert_amber
3 21: events/N/config/revert_green
3 24: N.event.json:plain, N/event.json:plain
3 25: N:plain
3 26: N.event.json:stored, N/event.json:stored
3 27: N.event.json:waiting, N/event.json:waiting
3 28: N:waiting
3 29: events.json:plain
3 32: events/N/files/…, files/…
4 0: files/…/
5 0: download/NAME/…
6 0: diff/W..N
6 1: diff/W..N.json
6 2: diff/W..N.summary.json
6 3: html/W..N.html
7 0: .git/…
8 0: …/.git
9 0: /.katafs/groups/ID
9 1: /.katafs/groups/ID/events.csv
9 2: /.katafs/groups/ID/history
9 3: /.katafs/groups/ID/index.html
9 64: /.katafs/groups/ID/N-ID
"""


def test_numbers_are_those_that_were_shipped() -> None:
    found: dict[tuple[int, int], list[str]] = {}
    for row in TABLE:
        of = f":{row.shown.name.lower()}" if row.shown in (Shown.PLAIN, Shown.STORED, Shown.WAITING) else ""
        found.setdefault(row.id, []).append((row.path or ".") + of)
    lines = {f"{kind} {number}: {', '.join(sorted(paths))}" for (kind, number), paths in found.items()}
    shipped = set(SHIPPED.splitlines())
    assert not shipped - lines, "a number that was shipped has moved, or is gone, or is something else's, too"
    assert not lines - shipped, "new: if no number of it is used above, it is to be added there, and never to change"
    numbers = [line.partition(":")[0] for line in SHIPPED.splitlines()]
    assert len(set(numbers)) == len(numbers), "two things have one number"
    paths = Counter(path for line in SHIPPED.splitlines() for path in line.partition(": ")[2].split(", "))
    assert [path for path, count in paths.items() if count > 1] == ["events.json"], "stored by saver, or made"


def test_numbers_fit_and_differ() -> None:
    """A path or a view that is added here would be taken for something else."""
    limits = {META: range(1, 64), FIXED: range(1 << 23), EVENT: range(FIRST_PATH + 1), DIFF: range(4)}
    limits[GROUP] = range(FIRST_MEMBER + 1)
    assert all(row.number in limits.get(row.kind, range(1)) for row in TABLE)
    keys = {row.id: row.key("rG63fy", 3) for row in TABLE if row.kind in (FIXED, EVENT, GROUP)}
    assert {thing_of(key) for key in keys.values()} == set(keys)
    assert len({Numbers.number(key) for key in keys.values()}) == len(keys)


def test_what_stands_at_several_places_is_the_same_there() -> None:
    seen: dict[tuple[int, int], Row] = {}
    for row in TABLE:
        first = seen.setdefault(row.id, row)
        assert (row.mode, row.attr_timeout, row.changes) == (first.mode, first.attr_timeout, first.changes), row.path


def test_acts_and_options_have_their_files() -> None:
    """Whatever their order."""
    assert {row.name.decode() for row in standing_in("control")} == {kind.value for kind in Kind}
    for directory in ("config", "events/N/config"):
        assert {row.name.decode() for row in standing_in(directory)} == set(OPTION_DEFAULTS)
    for name in OPTION_DEFAULTS:
        assert row_at(name, Shown.PLAIN).kind == row_at(name, Shown.STORED).kind == FIXED


# -- what is made


def test_everything_can_be_made() -> None:
    # a fence is made by the directory that it is in
    assert [row.path for row in TABLE if not makers.is_made(row) and row.kind != FENCE] == []


@pytest.mark.parametrize("path", ["events/N/event.json", "history", "events/N/config/theme", "control/reverted"])
def test_what_nothing_makes_is_not_there(path: str, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither listed, nor found, nor made of another file's bytes."""
    add_event(make_kata(store, "AbCdEf"), 1)
    row = row_at(path)
    monkeypatch.delitem(makers._of_katas, row.id)
    makers.rows_in.cache_clear()
    try:
        with fresh(store) as tree:
            directories = {split(other.path)[0] for other in TABLE if other.id == row.id}
            for directory in (find(tree, "AbCdEf", place) for place in directories):
                assert row.name not in directory.names()
                with pytest.raises(NotFoundError):
                    directory.child(row.name)
                assert row.name not in [
                    entry if isinstance(entry, bytes) else entry.name for entry in directory.fast_listing() or ()
                ]
            with pytest.raises(StaleError):
                tree.node(Numbers.number(row.key("AbCdEf", 1)))
    finally:
        makers.rows_in.cache_clear()


def test_a_file_of_an_event_has_its_own_content(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing says what is in it, no other file's bytes are shown."""
    make_kata(store, "AbCdEf")
    monkeypatch.delitem(contents._contents, row_at("events/N/event.json").number)
    with fresh(store) as tree:
        directory = find(tree, "AbCdEf", "events/N")
        assert directory.fast_listing() is None
        with pytest.raises(NotFoundError):
            directory.child(b"event.json")


# -- what is seen

EVERY = {Shown.ALWAYS, Shown.BY_NAME, Shown.STEPS}
# by kata: how what it has is shown
KATAS = {
    "Nt1veK": EVERY | {Shown.WRITABLE, Shown.NOT_AS_STORED, Shown.VERSION_2},
    "rG63fy": EVERY | {Shown.WRITABLE, Shown.AS_STORED, Shown.VERSION_2},
    "Saver1": EVERY | {Shown.WRITABLE, Shown.AS_STORED, Shown.VERSION_2},
    "May202": EVERY | {Shown.NOT_AS_STORED, Shown.VERSION_2},
    "P0P0P0": EVERY | {Shown.WRITABLE, Shown.STORED},
    "P1P1P1": EVERY | {Shown.WRITABLE, Shown.STORED},
    "M0M0M0": EVERY | {Shown.WRITABLE, Shown.PLAIN, Shown.WAITING},
    "M1M1M1": EVERY | {Shown.WRITABLE, Shown.PLAIN, Shown.WAITING},
}
# and what it lacks all the same: the plain paths of the other version, and what it happens not to have
ABSENT: dict[str, set[tuple[str, Shown]]] = {
    "rG63fy": {("files/…/", Shown.ALWAYS)},
    "P0P0P0": {("N.event.json", Shown.STORED), ("manifest.json", Shown.ALWAYS)},
    "P1P1P1": {("N/event.json", Shown.STORED), ("manifest.json", Shown.ALWAYS)},
    "M0M0M0": {("N.event.json", shown) for shown in (Shown.PLAIN, Shown.WAITING)},
    "M1M1M1": {(path, shown) for path in ("N/event.json", "N") for shown in (Shown.PLAIN, Shown.WAITING)},
}
# a computed name, as it is in a path of the catalogue, and one that is opened though it is not listed
COMPUTED = (
    (r"^(events|)/?\d+", r"\1/N"),
    (r"^(diff|html)/\d+\.\.\d+", r"\1/W..N"),
    (r"^download/cyber-dojo-[\w-]+", "download/NAME"),
    (r"(^|/)(files|\.git|NAME)/.+", r"\1\2/…"),
)
BY_NAME = {"events": (b"0.json",), "diff": (b"0..0.json", b"0..0.summary.json")}


@pytest.fixture(scope="module")
def katas(tmp_path_factory: pytest.TempPathFactory, shared_katas: Path) -> Path:
    store = tmp_path_factory.mktemp("catalogue")
    add_event(make_kata(store, "Nt1veK", {"a/b": "0\n", "c": "1\n"}), 1)
    unpack(shared_katas / "saver-v2-rG63fy.tgz", store)
    rows = [{"index": index, "event": "created", "time": row_time(index)} for index in (0, 1)]
    other = [GitFile("events.json", pretty_json(rows)), GitFile("manifest.json", b'{"version": 2}')]
    other += [GitFile("files/a/b", b"0"), GitFile("files/c", b"1")]
    saver = [*other, GitFile("options.json", b"{}"), GitFile("README.md", b"hello\n")]
    for kata_id, files in (("Saver1", saver), ("May202", other)):
        import_commits(kata_path(store, kata_id), [GitCommit(f"{tag} x", files, [tag]) for tag in (0, 1)])
    for version in (0, 1):
        for state in "PM":
            kata_id = f"{state}{version}" * 3
            kata = make_plain_kata(store, kata_id, version, seed=3, events=4)
            for name in OPTION_DEFAULTS:
                (kata.path / name).write_text("\n" + ("dark" if name == "theme" else "on"))
            if state == "M":
                migrate_kata(kata.path, kata_id)
                pending = Pending(kata.path, kata_id)
                pending.begin(9)
                if not version:
                    pending.begin_file(9)
    return store


def split(path: str) -> tuple[str, str]:
    directory, _, name = path.rpartition("/")
    return directory, name


def find(tree: Tree, kata_id: str, path: str) -> Node:
    """The directory of a path of the catalogue."""
    return tree.node(Numbers.number(row_at(path).key(kata_id)))


def entries(top: Node, path: str = "") -> Iterator[tuple[str, Entry, bool]]:
    """The paths below a directory, with their entries and whether they are listed."""
    names = made(top).names()
    for name in (*names, *BY_NAME.get(path, ())):
        entry = top.child(name)
        here = f"{path}/{name.decode()}".removeprefix("/")
        yield here, entry, name in names
        if stat.S_ISDIR(entry.node.mode):
            yield from entries(entry.node, here)


def row_seen(path: str, node: Node) -> Row:
    """The row of what is seen at a path."""
    for found, computed in COMPUTED:
        path = re.sub(found, computed, path).removeprefix("/")
    places = (path, path + "/") if stat.S_ISDIR(node.mode) else (path,)
    rows = [row for row in TABLE if row.path in places and row.id == thing_of(node.key)]
    assert rows, f"{path} is not in the catalogue as {node.key}"
    return rows[0]


@pytest.mark.parametrize("kata_id", KATAS)
def test_what_is_seen_is_in_the_catalogue(katas: Path, kata_id: str) -> None:
    """Each thing that is seen has its row, and each row that is to be seen is: where, and as, it says."""
    seen = set()
    with fresh(katas) as tree:
        for path, (node, timeout), is_listed in entries(find(tree, kata_id, "")):
            row = row_seen(path, node)
            seen.add(row)
            # the directory of an event of version 0 has one number, stored plain or as git
            assert row.shown in KATAS[kata_id] or row.number == PLAIN_DIRECTORY, path
            assert is_listed == (row.shown is not Shown.BY_NAME), path
            assert tree.node_of(node.key).number == node.number, path
            if not is_real(node):
                # what is not written to now is shown so
                assert node.mode in (row.mode, row.mode & ~0o222) or "…" in row.path, path
                # the name of a page that is to change yet is soon another page's
                assert timeout == (MUTABLE if row.kind == DIFF and node.key.path else row.entry_timeout), path
    # the kata itself, and a fence, which nothing here needs
    absent = ABSENT.get(kata_id, set()) | {("", Shown.ALWAYS), ("…/.git", Shown.BY_NAME)}
    wanted = {row for row in TABLE if row.path[:1] != "/" and row.shown in KATAS[kata_id]}
    assert {(row.path, row.shown) for row in wanted - seen} == absent


def is_real(node: Node) -> bool:
    """Whether it is a file or directory of the store."""
    is_waiting = row_of(node.key).shown is Shown.WAITING
    return (isinstance(node, PlainNode) and not is_waiting) or node.key.kind == PLAIN
