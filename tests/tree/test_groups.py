"""Classes, in a mount with groups=: links, tables and a page; who joins, and what is nobody's business."""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from katafs.errors import StaleError
from katafs.html.class_axis import PLACES, Axis
from katafs.kata.model.ids import ALPHABET, kata_path
from katafs.tree.catalogue import row_at
from katafs.tree.dirs import group_dir
from katafs.tree.nodes import Node
from katafs.tree.numbers import Numbers
from katafs.tree.tree import Tree
from tests.conftest import unavailable
from tests.katas import (
    START,
    GitCommit,
    GitFile,
    add_event,
    import_commits,
    make_kata,
    make_long_kata,
    pretty_json,
    row_time,
)
from tests.katas import git as run_git
from tests.mounts import OTHER, MakeMount, Mount, command_line, katafs, patience, wait_until
from tests.plain_katas import make_plain_kata
from tests.tree.test_pages import TAGS, Reader, begin_to_read
from tests.tree.test_tree import content, fresh, made

CLASS = "Gr0up5"


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """An empty directory of groups."""
    directory = tmp_path / "groups"
    directory.mkdir()
    return directory


Serve = Callable[..., Path]


@pytest.fixture
def serve(store: Path, groups: Path, mount: MakeMount) -> Serve:
    """Mount the store with the groups: ``.katafs/groups``."""

    def serve_groups(mode: str = "fast", *options: str) -> Path:
        served: Mount = mount(store, mode, (f"--groups={groups}", *options))
        return served.path / ".katafs/groups"

    return serve_groups


def make_group(groups: Path, lines: str, group_id: str = CLASS, **manifest: str) -> Path:
    """A group of version 1 or 2 with such a ``katas.txt``: its directory."""
    path = kata_path(groups, group_id)
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"version": 2, "exercise": "Fizz Buzz", **manifest}))
    (path / "katas.txt").write_text(lines)
    return path


def links(shown: Path) -> dict[str, str]:
    """The links in a class, with their targets."""
    return {name: os.readlink(shown / name) for name in os.listdir(shown) if (shown / name).is_symlink()}


def table(shown: Path) -> list[dict[str, str]]:
    with open(shown / "events.csv", newline="") as file:
        return list(csv.DictReader(file))


def files(path: Path) -> Mapping[str, bytes]:
    """All files below a directory."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("mode", ["fast", "slower"])
def test_a_class(store: Path, groups: Path, serve: Serve, mode: str) -> None:
    """What it shows, to whoever looks twice, too; who joins and what happens is there within a second."""
    for number, kata_id in enumerate(("AAAAAA", "BBBBBB", "CCCCCC")):
        for index in range(1, number + 1):
            add_event(make_kata(store, kata_id) if index == 1 else kata_path(store, kata_id), index, colour="green")
    make_kata(store, "AAAAAA")
    group = make_group(groups, "BBBBBB 7\nAAAAAA 0\n")
    stored = files(groups)
    top = serve(mode)
    assert os.listdir(top) == []
    shown = top / CLASS
    assert links(shown) == {"00-AAAAAA": "../../../AA/AA/AA", "07-BBBBBB": "../../../BB/BB/BB"}
    assert sorted({*os.listdir(shown)} - {*links(shown)}) == ["events.csv", "history", "index.html"]
    assert (shown / "07-BBBBBB/events/latest").readlink() == Path("1")
    logs = [katafs("log", "--csv", kata_path(store, kata_id)).stdout.decode() for kata_id in ("AAAAAA", "BBBBBB")]
    titles, *lines = logs[0].splitlines()
    lines = [f"0,{line}" for line in lines] + [f"7,{line}" for line in logs[1].splitlines()[1:]]
    assert (shown / "events.csv").read_text().splitlines() == [f"member,{titles}", *lines]
    history = [(kata_path(top.parent.parent, kata_id) / "history").read_text() for kata_id in ("AAAAAA", "BBBBBB")]
    assert (shown / "history").read_text() == f"00 AAAAAA\n{history[0]}\n07 BBBBBB\n{history[1]}"
    before = {name: (shown / name).stat() for name in ("history", "index.html")}
    assert [(shown / name).stat().st_mtime_ns for name in before] == [one.st_mtime_ns for one in before.values()]

    with open(shown / "events.csv") as reader:
        reader.readline()
        add_event(kata_path(store, "AAAAAA"), 1, colour="red")
        wait_until(lambda: len(table(shown)) == 4, "the event", 1)
        assert [row["light"] for row in table(shown)] == ["", "red", "", "green"]
    assert (shown / "index.html").stat().st_mtime_ns != before["index.html"].st_mtime_ns
    with open(group / "katas.txt", "a") as list_of_members:
        list_of_members.write("CCCCCC 63\n")
    wait_until(lambda: "63-CCCCCC" in links(shown), "the member", 1)
    wait_until(lambda: "63 CCCCCC" in (shown / "history").read_text(), "the member's events", 1)
    with pytest.raises(OSError, match="Read-only file system"):
        (shown / "new").touch()
    (group / "katas.txt").write_bytes(stored[f"{group.relative_to(groups)}/katas.txt"])
    assert files(groups) == stored


def test_a_class_of_version_0(store: Path, groups: Path, serve: Serve) -> None:
    for number, version in enumerate((0, 1)):
        make_plain_kata(store, f"P{version}P{version}P{version}", version, seed=3, events=4)
        member = kata_path(groups, CLASS) / str(number * 15)
        member.mkdir(parents=True)
        (member / "kata.id").write_text(f"P{version}P{version}P{version}")
    (kata_path(groups, CLASS) / "3").mkdir()
    shown = serve() / CLASS
    assert links(shown).keys() == {"00-P0P0P0", "15-P1P1P1"}
    for kata_id in ("P0P0P0", "P1P1P1"):
        log = katafs("log", "--csv", kata_path(store, kata_id)).stdout.decode().splitlines()[1:]
        of_kata = [row for row in table(shown) if row["kata"] == kata_id]
        assert len(of_kata) == len(log) > 3
    check_page(shown)


ODD_LINES = """\
AAAAAA 0
AAAAAA 1
BBBBBB 0
BBBBBB 64
BBBBBB -1
BBBBBB 007
IIIIII 2
../../ 3
ZZZZZZ 4

BBBBBB 9 9
\x00\x1b[31m\xff
BBBBBB 5\
"""


def test_what_is_no_member_is_left_out(store: Path, groups: Path, serve: Serve) -> None:
    for kata_id in ("AAAAAA", "BBBBBB"):
        make_kata(store, kata_id)
    make_group(groups, ODD_LINES)
    kata_path(groups, "EmptyG").mkdir(parents=True)
    top = serve()
    for _ in range(2):
        assert links(top / CLASS).keys() == {"00-AAAAAA", "05-BBBBBB"}
    assert links(top / "EmptyG") == {}
    check_page(top / "EmptyG")
    assert table(top / "EmptyG") == []
    log = (top.parent.parent.with_suffix(".log")).read_text()
    assert (
        len(re.findall(r"group Gr0up5: no member is 1 AAAAAA, since one of them was there before, and \d+ more", log))
        == 1
    )
    assert "\x1b" not in log
    for name in ("Zzzzzz", "Gr0up", "Gr0up55", "..x", f"{CLASS}/01-AAAAAA", f"{CLASS}/00-BBBBBB", f"{CLASS}/0-AAAAAA"):
        with pytest.raises(FileNotFoundError):
            os.lstat(top / name)


def test_hostile_groups(store: Path, groups: Path, serve: Serve, tmp_path: Path) -> None:
    """Links lead nowhere, nobody waits for a pipe, and of a list of a gigabyte the start is read."""
    make_kata(store, "AAAAAA")
    make_group(tmp_path, "AAAAAA 0\n", "Secret")
    (groups / "Se").symlink_to(tmp_path / "Se")
    for number, kind in enumerate(("link", "pipe", "directory", "large")):
        path = kata_path(groups, f"00000{number}")
        path.mkdir(parents=True)
        members = path / "katas.txt"
        if kind == "link":
            members.symlink_to(kata_path(tmp_path, "Secret") / "katas.txt")
        elif kind == "pipe":
            os.mkfifo(members)
        elif kind == "directory":
            members.mkdir()
        else:
            members.write_bytes(b"AAAAAA 1\n" + b"x" * 100_000)
            os.truncate(members, 1 << 30)
        (path / "manifest.json").symlink_to(kata_path(tmp_path, "Secret") / "manifest.json")
    os.symlink(kata_path(tmp_path, "Secret"), kata_path(groups, "000004"))
    top = serve()
    for name in ("Secret", "000004"):
        with pytest.raises(FileNotFoundError):
            os.listdir(top / name)
    for number in range(3):
        assert links(top / f"00000{number}") == {}
        assert "Fizz Buzz" not in (top / f"00000{number}/index.html").read_text()
    assert links(top / "000003").keys() == {"01-AAAAAA"}


def test_a_list_of_thousands(store: Path, groups: Path, serve: Serve) -> None:
    """Each line is looked for in the store, several times a second while somebody looks: those of a class are few."""
    make_kata(store, "AAAAAA")
    make_kata(store, "BBBBBB")
    make_group(groups, "AAAAAA 0\n" + "Zzzzzz 7\n" * 1_000 + "BBBBBB 1\n")
    top = serve()
    assert links(top / CLASS).keys() == {"00-AAAAAA"}
    assert "what of katas.txt is behind the first 4 KiB" in top.parent.parent.with_suffix(".log").read_text()


@pytest.mark.parametrize("closed", ["", "..", "../.."])
def test_of_a_closed_kata_there_is_its_link(store: Path, groups: Path, serve: Serve, closed: str) -> None:
    """Whichever of its directories is closed; and it is open again at once."""
    if os.geteuid() != 0:
        unavailable("only root reads what is closed")
    for kata_id in ("AAAAAA", "BBBBBB"):
        add_event(make_kata(store, kata_id), 1, colour="green")
    group = make_group(groups, "AAAAAA 0\nBBBBBB 1\n")
    group.chmod(0o750)
    os.chown(group, OTHER, OTHER - 1)
    (kata_path(store, "BBBBBB") / closed).chmod(0o750)
    top = serve("fast", "--allow-other")
    shown = top / CLASS
    status = shown.stat()
    assert (status.st_mode & 0o777, status.st_uid, status.st_gid) == (0o550, OTHER, OTHER - 1)
    assert {(one.lstat().st_uid, one.lstat().st_gid) for one in shown.iterdir()} == {(OTHER, OTHER - 1)}
    assert links(shown).keys() == {"00-AAAAAA", "01-BBBBBB"}
    assert {row["kata"] for row in table(shown)} == {"AAAAAA"}
    assert "BBBBBB" not in (shown / "history").read_text()
    page = (shown / "index.html").read_text()
    assert "closed to others" in page
    assert not re.search(r"01-BBBBBB/html/\d", page)
    (kata_path(store, "BBBBBB") / closed).chmod(0o755)
    wait_until(lambda: {row["kata"] for row in table(shown)} == {"AAAAAA", "BBBBBB"}, "the open kata", 1)


def test_a_damaged_kata_hides_no_other(store: Path, groups: Path, serve: Serve) -> None:
    for kata_id in ("AAAAAA", "BBBBBB", "CCCCCC"):
        add_event(make_kata(store, kata_id), 1, colour="amber")
    (kata_path(store, "AAAAAA") / ".git/refs/heads/main").write_text("rubbish")
    shutil.rmtree(kata_path(store, "BBBBBB") / ".git/objects")
    kata_path(store, "DDDDDD").mkdir(parents=True)
    make_group(groups, "AAAAAA 0\nBBBBBB 1\nCCCCCC 2\nDDDDDD 3\n")
    shown = serve() / CLASS
    assert len(links(shown)) == 4
    assert {row["kata"] for row in table(shown)} == {"CCCCCC"}
    assert (shown / "history").read_text().count("its events cannot be read") == 3
    assert (shown / "index.html").read_text().count("its events cannot be read") == 3


# -- the page


def check_page(shown: Path) -> Reader:
    """A page that runs and loads nothing, each of whose links leads to something in the mount."""
    page = (shown / "index.html").read_text()
    targets = re.findall(r'href="([^"#]+)"', page)
    read = Reader(page)
    assert {tag for tag, _ in read.tags} <= TAGS | {"h3", "ol", "br"}
    style = base64.b64encode(hashlib.sha256("".join(read.texts["style"]).encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'"
    assert policy in [more.get("content") for _, more in read.tags]
    assert not read.texts.get("script")
    assert not [more for _, more in read.tags if {"style", "src", "onclick", "onload", "onerror"} & more.keys()]
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", page)
    assert [target for target in targets if not (shown / target).exists()] == []
    ids = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids
    return read


def test_the_page_says_who_is_where(store: Path, groups: Path, serve: Serve) -> None:
    for kata_id, colours in {"AAAAAA": "rgrr", "BBBBBB": "rrrg", "CCCCCC": "rrrr", "DDDDDD": ""}.items():
        path = make_kata(store, kata_id)
        for index, colour in enumerate(colours, 1):
            add_event(path, index, colour={"r": "red", "g": "green"}[colour])
    make_group(
        groups,
        "AAAAAA 0\nBBBBBB 1\nCCCCCC 2\nDDDDDD 3\n",
        exercise="<script>alert(1)</script>",
        display_name="\u202eevil",
    )
    shown = serve() / CLASS
    page = (shown / "index.html").read_text()
    read = check_page(shown)
    lights = [attributes for tag, attributes in read.tags if tag == "a" and "title" in attributes]
    assert len(lights) == 12
    assert [light["href"] for light in lights[:4]] == [
        f"00-AAAAAA/html/{step - 1}..{step}.html" for step in range(1, 5)
    ]
    assert "Event 2: ran tests, green" in str(lights[1]["title"])
    green, _, rest = page.partition('id="h-red"')
    assert re.findall(r'href="#k(\d\d)"', green) == ["01"]
    assert re.findall(r'href="#k(\d\d)"', rest) == ["02", "00", "01"]
    assert re.findall(r"<b>(\d+ min)</b>(, and none before)?", rest) == [("4 min", ", and none before"), ("2 min", "")]
    assert "no light yet" in rest
    places = [int(re.findall(r" t(\d+)", str(light["class"]))[0]) for light in lights]
    assert places == [0, 67, 133, 200] * 3


def test_the_axis_cuts_pauses_short() -> None:
    """What somebody worked is to scale, a night is not; and each day is named."""
    evening = [START + timedelta(minutes=minute) for minute in (0, 20, 40, 60)]
    morning = [moment + timedelta(hours=20) for moment in evening]
    axis = Axis([*morning, *evening])
    places = [axis.place(moment) for moment in (*evening, *morning)]
    assert places[0] == 0
    assert places[-1] == PLACES
    assert {after - before for before, after in pairwise(places) if after - before > 10} == {32}
    assert 0 < places[4] - places[3] <= 10
    assert [tick.time for tick in axis.ticks if tick.is_after_pause] == [morning[0].replace(microsecond=0)]
    assert [tick.is_new_day for tick in axis.ticks].count(True) == 2
    assert all(tick.place - before.place >= 20 for before, tick in pairwise(axis.ticks))
    assert Axis([]).ticks == []
    assert [tick.place for tick in Axis([START, START]).ticks] == [0]


def test_the_page_of_hostile_katas(store: Path, groups: Path, serve: Serve) -> None:
    """Rows that make no sense, from all times, take no room from the others."""
    make_kata(store, "AAAAAA")
    words = ["<b>", "\u202e", "x" * 10_000, "event", 5, None, "red_special"]
    times = [[1, 1, 1, 0, 0, 0, 0], [9999, 12, 31, 23, 59, 59, 999999], None, [2026, 2, 30, 0, 0, 0, 0], row_time(60)]
    rows = [
        {"index": index, "colour": words[index % 7], "time": times[index % 5], "predicted": words[index % 6]}
        for index in range(500)
    ]
    files = [GitFile("events_summary.json", pretty_json(rows)), GitFile("config/theme", b"dark\n")]
    import_commits(kata_path(store, "BBBBBB"), [GitCommit("0 x", files, [0])])
    add_event(kata_path(store, "AAAAAA"), 1, colour="green")
    make_group(groups, "AAAAAA 0\nBBBBBB 1\n")
    page = (serve() / CLASS / "index.html").read_text()
    read = Reader(page)
    lights = [str(more["href"]) for tag, more in read.tags if tag == "a" and "title" in more]
    assert len(lights) == 301
    assert lights[0] == "00-AAAAAA/html/0..1.html"
    assert re.search(r">5\d earlier<", page)
    assert "<b>" not in "".join(re.findall(r'title="([^"]*)"', page))
    ticks = re.findall(r'<p class="t(\d+)', page)
    assert ticks == sorted(ticks, key=int)
    assert 2 <= len(ticks) <= 11


def make_class(
    store: Path, groups: Path, members: int, events: int, group_id: str = CLASS, kinds: int = 1
) -> list[str]:
    """A class of so many native katas, each with so many lights, of which so many differ. Their ids."""
    ids = [f"Kata{ALPHABET[number // 58]}{ALPHABET[number % 58]}" for number in range(members)]
    for number, kata_id in enumerate(ids):
        if number < kinds:
            _flat_kata(kata_path(store, kata_id), events - number * 9, number)
        else:
            shutil.copytree(kata_path(store, ids[number % kinds]), kata_path(store, kata_id), dirs_exist_ok=True)
    make_group(groups, "".join(f"{kata_id} {number}\n" for number, kata_id in enumerate(ids)), group_id)
    return ids


def _flat_kata(path: Path, events: int, seed: int) -> None:
    """A native kata whose rows alone differ; made by git, in one pack."""
    chance = random.Random(seed)
    now = chance.randrange(300)
    rows: list[dict[str, object]] = [{"index": 0, "event": "created", "time": row_time(now), "type": "created"}]
    commits = []
    for index in range(events + 1):
        if index:
            now += chance.choice([20, 30, 60, 90])
            colour = chance.choice(["red", "red", "red", "amber", "green", "green", "timed_out"])
            row = {"colour": colour, "index": index, "time": row_time(now)}
            rows.append({**row, "duration": 1.5, "predicted": "none", "laptop_id": "a" * 64, "type": "test"})
        named = {
            "events_summary.json": rows,
            "event.json": rows[-1],
            "manifest.json": {"version": 2},
            "config/theme": 0,
        }
        files = [GitFile(name, pretty_json(value)) for name, value in named.items()]
        commits.append(GitCommit(f"{index} x", files, [index]))
    import_commits(path, commits)
    run_git(path, "repack", "-adq")
    run_git(path, "pack-refs", "--all")


def test_a_large_class_is_made_quickly(store: Path, groups: Path, serve: Serve) -> None:
    """64 katas of 100 events: within 5 s, and after another event within one."""
    ids = make_class(store, groups, 64, 100)
    shown = serve() / CLASS
    start = time.monotonic()
    page = (shown / "index.html").read_text()
    assert time.monotonic() - start < patience(5)
    assert page.count(" title=") == 6_400
    add_event(kata_path(store, ids[7]), 101, colour="green")
    wait_until(lambda: f"07-{ids[7]}/html/100..101.html" in (shown / "index.html").read_text(), "the event", 1.5)
    start = time.monotonic()
    assert (shown / "index.html").read_text().count(" title=") == 6_401
    assert time.monotonic() - start < patience(1)


# -- the option


@pytest.mark.parametrize("places", ["store mnt store/groups", "groups/store mnt groups", "store groups/mnt groups"])
def test_directories_that_contain_one_another(places: str) -> None:
    with command_line() as cli:
        store, mountpoint, groups = (cli.directory / place for place in places.split())
        for path in (store, mountpoint, groups):
            path.mkdir(parents=True, exist_ok=True)
        said = cli.refused("mount", "-o", f"groups={groups}", store, mountpoint, status=2)
        assert re.fullmatch(r"(store|mount point) \S+ and directory of groups \S+ must not contain one another", said)
        assert cli.refused("mount", f"--groups={groups}/none", store, mountpoint).endswith("none does not exist")


def test_groups_are_kept_over_a_reload(store: Path, groups: Path) -> None:
    if os.geteuid() != 0:
        unavailable("only the mounts of root can be reloaded")
    make_kata(store, "AAAAAA")
    make_group(groups, "AAAAAA 0\n")
    with command_line() as cli:
        cli.mount("-o", f"groups={groups}", store, "mnt")
        shown = cli.directory / "mnt/.katafs/groups" / CLASS
        before = (shown / "index.html").read_bytes()
        with open(shown / "history") as history:
            number = (shown / "00-AAAAAA").lstat().st_ino
            cli.done("reload", "mnt")
            assert history.read().startswith("00 AAAAAA")
        assert (shown / "00-AAAAAA").lstat().st_ino == number
        assert (shown / "index.html").read_bytes() == before


def class_file(tree: Tree, name: str) -> Node:
    """A file of the class, looked up as the kernel does."""
    tree.ctx.store.new_epoch()
    return made(tree.node_of(row_at("/.katafs/groups/ID").key(CLASS))).child(name.encode()).node


@pytest.mark.parametrize("name", ["events.csv", "history", "index.html"])
def test_what_is_made_of_a_class_is_another_thing_each_time(store: Path, groups: Path, name: str) -> None:
    """Somebody reads it when one of the katas has another event; he reads on as long as it is known how it was."""
    path = make_kata(store, "AbCdEf")
    make_group(groups, "AbCdEf 3\n")
    with fresh(store) as tree:
        tree.ctx.groups = groups

        before = made(class_file(tree, name))
        data, time = content(before), before.mtime_ns
        add_event(path, 1)
        wait_until(lambda: class_file(tree, name).number != before.number, "another one", 1)
        assert content(class_file(tree, name)) != data
        again = tree.node(before.number)
        assert (content(again), again.mtime_ns) == (data, time)
        shipped = tree.node(Numbers.number(row_at(f"/.katafs/groups/ID/{name}").key(CLASS)))
        assert content(shipped) == content(class_file(tree, name)) != data
        tree.ctx.seen_groups.clear()
        with pytest.raises(StaleError):
            content(tree.node(before.number))
        assert content(tree.node(shipped.number)) == content(shipped)


def test_who_has_asked_for_a_size_opens_what_he_asked_about(
    store: Path, groups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As cp does, which refuses another file: it takes a while to be made, and an event has come meanwhile."""
    path = make_kata(store, "AbCdEf")
    make_group(groups, "AbCdEf 3\n")
    monkeypatch.setattr(group_dir, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(group_dir, "_MADE_SECONDS", 60.0)
    with fresh(store) as tree:
        tree.ctx.groups = groups
        asked = class_file(tree, "history")
        add_event(path, 1)
        made(asked)
        assert class_file(tree, "history").number == asked.number


@pytest.mark.parametrize("name", ["events.csv", "history", "index.html"])
def test_who_reads_what_is_made_of_a_class_for_long_reads_on(
    store: Path, groups: Path, serve: Serve, name: str, mode: str
) -> None:
    path = make_long_kata(store, "AbCdEf", 120)
    make_group(groups, "AbCdEf 3\n")
    file = serve(mode) / CLASS / name
    whole = file.read_bytes()
    begun, read = begin_to_read(file)

    def shows(index: int) -> bool:
        return b"%d" % index in file.read_bytes()

    with begun:
        for index in range(121, 124):
            add_event(path, index)
            wait_until(functools.partial(shows, index), "the event", 1)
            read += begun.read(4096)
        assert os.fstat(begun.fileno()).st_size == len(whole)
        assert read + begun.read() == whole


def test_without_the_option_there_are_none(store: Path, mount: MakeMount) -> None:
    top = mount(store).path / ".katafs"
    assert "groups" not in os.listdir(top)
    with pytest.raises(FileNotFoundError):
        os.listdir(top / "groups")
