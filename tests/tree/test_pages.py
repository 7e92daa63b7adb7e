"""The pages of a kata: every one of the demo's, hostile ones, large ones, and what they cost."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from katafs.git import GitRepo
from katafs.html import process
from katafs.html.process import Page, _make, render
from katafs.kata.model.kinds import Kind
from katafs.kata.model.steps import LIGHTS
from katafs.kata.record.commit import record
from katafs.kata.record.message import parse_act
from katafs.process.pool import Pool
from tests.katas import (
    add_event,
    git_commit,
    long_store,
    make_kata,
    make_long_kata,
    pretty_json,
    row_time,
    stored_rows,
    unpack,
)
from tests.katas import git as run_git
from tests.mount.test_bounds import children, workers
from tests.mounts import MakeMount, katafs, patience, wait_until

HOSTILE = {
    "<script>alert(1)</script>.py": "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)>\n",
    "quo\"te'.html": "<style>body{display:none}</style>{{ 7*7 }}{% raw %}</details>\n",
    "bidi.js": "if (admin\u202e \u2066// not\u2069) {\u200b}\n\x1b[31mred\x01?\r\n",
    "nul.py": "a\0<script>\n",
    "long.txt": "<b>" * 100_000,
    "a&amp;b/&lt;.md": "&lt;script&gt;\n]]>\n<!--\n",
}


class Reader(HTMLParser):
    """What a page has in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}>"

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "footer", "script"),
    *("p", "h1", "h2", "small", "ul", "li", "b", "i", "div", "a", "span", "time", "code", "mark", "pre", "kbd"),
    *("svg", "line", "polyline", "text", "circle", "table", "thead", "tbody", "tr", "th", "td"),
    *("details", "summary", "fieldset", "legend", "label", "input"),
}


def check(page: str, names: set[str]) -> Reader:
    """A page that can run nothing, load nothing, and leads nowhere but to pages of the same kata, ``names`` and such as
    compare two of its events."""
    last = max(int(end) for name in names for end in re.findall(r"\.\.(\d+)\.html", name))
    assert page.startswith("<!doctype html>\n<html lang=")
    read = Reader(page)
    assert {tag for tag, _ in read.tags} <= TAGS
    policy = next(str(more["content"]) for tag, more in read.tags if tag == "meta" and "http-equiv" in more)
    for tag in ("style", "script"):
        assert [found for found, _ in read.tags].count(tag) == 1
        digest = base64.b64encode(hashlib.sha256("".join(read.texts[tag]).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    for tag, more in read.tags:
        assert not [name for name in more if name.startswith("on") or name in ("style", "src", "srcset")], tag
        if "href" in more:
            assert tag == "a"
            href = str(more["href"])
            between = re.fullmatch(r"(\d+)\.\.(\d+)\.html", href)
            assert href in names or href.startswith("#file-") or (between and max(map(int, between.groups())) <= last)
    ids = [more["id"] for _, more in read.tags if "id" in more]
    assert len(ids) == len(set(ids))
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", page)
    return read


def check_all(kata: Path) -> dict[str, Reader]:
    """All pages of a kata in a mount."""
    names = set(os.listdir(kata / "html"))
    found = {}
    for name in names:
        data = (kata / "html" / name).read_bytes()
        assert (kata / "html" / name).stat().st_size == len(data)
        found[name] = check(data.decode(), names)
    return found


@pytest.mark.thorough
def test_every_page_of_the_demo(mount: MakeMount, store: Path) -> None:
    katafs("demo", store)
    path = mount(store).path
    pages = 0
    for kata in sorted(path.glob("??/??/??")):
        found = check_all(kata)
        events = len(os.listdir(kata / "events")) - 1
        assert found.keys() == {"index.html", "0..0.html", *(f"{at}..{at + 1}.html" for at in range(events - 1))}
        lights = [more for tag, more in found["index.html"].tags if tag == "a" and "aria-label" in more]
        assert len(lights) == events
        pages += len(found)
    assert pages == 89
    text = "".join(Reader((path / "Ba/sh/Wc/html/12..13.html").read_text()).texts["span"])
    assert "predicted green, wrong" in text


@pytest.fixture
def hostile(store: Path) -> Path:
    """A kata in which nothing is meant well."""
    path = make_kata(store, "HHHHHH", {"a.txt": "a\n"}, exercise="</title><script>alert(1)</script>")
    add_event(path, 1, files=HOSTILE, colour="red", stdout={"content": "</pre><script>x</script>\x1b]0;t\x07"})
    changed = {name: content + "<i>more" for name, content in HOSTILE.items()}
    add_event(path, 2, files=changed, colour="green")
    rows = stored_rows(path)
    row = {"colour": "<b>red</b>", "predicted": '"><script>', "revert": ["<i>", "<i>"], "index": 3, "time": row_time(9)}
    more = {"events_summary.json": pretty_json([*rows, row]), "event.json": pretty_json(row)}
    more |= {"files/bad.py": b"x = '\xff\xfe\x80'\n\xed\xa0\x80\n", "stdout": b"\xff<script>\0"}
    assert git_commit(path, "3 <script>", more)
    run_git(path, "update-ref", "refs/tags/3", "main")
    return path


def test_nothing_in_a_kata_is_obeyed(mount: MakeMount, store: Path, hostile: Path) -> None:
    kata = mount(store).kata("HHHHHH")
    found = check_all(kata)
    assert "<script>alert(1)</script>.py" in "".join(found["0..1.html"].texts["span"])
    code = "".join(found["0..1.html"].texts["code"]) + "".join(found["0..1.html"].texts["span"])
    assert "{{ 7*7 }}" in code
    assert "⟨U+202E⟩" in code
    assert "more characters" in code
    assert (kata / "html" / "2..1.html").read_bytes() != (kata / "html" / "1..2.html").read_bytes()


def _words(page: Reader) -> str:
    """All that can be read in a page, but for the style and the script."""
    return " ".join(part for tag, parts in page.texts.items() if tag not in ("style", "script") for part in parts)


def files(name: str) -> dict[str, dict[str, str]]:
    return {name: {"content": "1\n"}}


def test_everything_that_can_happen(mount: MakeMount, store: Path) -> None:
    """An outage, a special colour, predictions, a revert, a run that took too long."""
    cut = {"content": "\x1b[31mslow\x1b[0m\n", "truncated": True}
    path = make_kata(store, "AAAAAA", {"a.py": "1\n"})
    events: list[tuple[int, Kind, dict[str, Any]]] = [
        (1, Kind.PREDICTED_WRONG, {"summary": {"colour": "red_special", "predicted": "green"}}),
        (4, Kind.PREDICTED_RIGHT, {"summary": {"colour": "green", "predicted": "green"}, "files": files("b.py")}),
        (5, Kind.REVERTED, {"summary": {"colour": "red", "revert": ["AAAAAA", 0]}, "files": files("a.py")}),
        (
            6,
            Kind.RAN_TESTS,
            {"summary": {"colour": "timed_out"}, "stdout": cut},
        ),
    ]
    for index, kind, more in events:
        act = parse_act(kind, json.dumps({"index": index, **more}).encode())
        record(path, "AAAAAA", act, datetime(2026, 1, 1, 9, index, tzinfo=UTC))
    kata = mount(store).kata("AAAAAA")
    found = check_all(kata)
    assert found.keys() == {"index.html", "0..0.html", *(f"{at}..{at + 1}.html" for at in range(6))}
    told = _words(found["index.html"])
    for words in ("predicted green, wrong", "predicted green, right", "nothing recorded", "reverted to 0", "timed out"):
        assert words in told, words
    assert "special" not in told
    marked = [more["class"] for tag, more in found["index.html"].tags if tag == "a" and "aria-label" in more]
    assert marked == [
        *("light event", "light red wrong", "light outage", "light outage", "light green right", "light red"),
        "light timed_out",
    ]
    assert "No file has changed" in _words(found["1..2.html"])
    assert "slow" in _words(found["5..6.html"])
    assert [page for page in found if "Cut short by the runner" in _words(found[page])] == ["5..6.html"]
    assert "[31m" not in _words(found["5..6.html"])
    table = (kata / "history").read_text().splitlines()
    assert len(table) == 8
    assert "outage" not in table[4]
    assert "nothing recorded" in table[3]


@pytest.mark.parametrize("archive", ["v0-5rTJv5", "v1-5U2J18", "v1-38w9NC", "saver-v2-rG63fy"])
def test_katas_of_every_age(shared_katas: Path, mount: MakeMount, store: Path, archive: str) -> None:
    """Real ones: as they are stored, and the same once they are migrated."""
    unpack(shared_katas / f"{archive}.tgz", store)
    kata_id = archive.rpartition("-")[2]
    kata = mount(store).kata(kata_id)
    rows = json.loads((kata / "events_summary.json").read_text())
    last = len(rows) - 1
    names = set(os.listdir(kata / "html"))
    assert len(names) == last + 2
    wanted = ["index.html", "0..0.html", "0..1.html", f"{last - 1}..{last}.html", f"0..{last}.html"]
    names.add(wanted[-1])
    before = {name: (kata / "html" / name).read_text() for name in wanted}
    lights = [more for tag, more in check(before["index.html"], names).tags if tag == "a" and "aria-label" in more]
    shown = [str(more["class"]).split()[1] for more in lights]
    told = [str(row.get("colour", "")).removesuffix("_special") for row in rows]
    assert [light for light in shown if light in LIGHTS] == [colour for colour in told if colour in LIGHTS]
    for page in before.values():
        check(page, names)
    table = (kata / "history").read_text()
    assert len(table.splitlines()) == last + 2
    if archive.startswith("saver"):
        return
    katafs("migrate", store)
    wait_until(lambda: stat.S_ISDIR((store / kata.relative_to(kata.parents[2]) / ".git").lstat().st_mode), "git")
    assert (kata / "history").read_text() == table
    for name, page in before.items():
        assert (kata / "html" / name).read_text() == page, name


def test_pages_follow_the_events(mount: MakeMount, store: Path, mode: str) -> None:
    path = make_kata(store, "AAAAAA")
    add_event(path, 1, files={"a.py": "1\n"})
    kata = mount(store, mode).kata("AAAAAA")
    page, index = kata / "html" / "0..1.html", kata / "html" / "index.html"
    assert 'id="next"' not in page.read_text()
    before = index.read_text()
    (kata / "ran_tests").write_text('{"summary": {"colour": "green"}}')
    assert 'id="next" rel="next" href="1..2.html"' in page.read_text()
    assert "1..2.html" in index.read_text()
    assert "1..2.html" not in before
    assert "1..2.html" in os.listdir(kata / "html")
    for file in (page, index):
        assert file.stat().st_size == len(file.read_bytes())
    for name in ("0..3.html", "00..1.html", "1..2", "x.html", "1.html"):
        assert not (kata / "html" / name).exists()


def test_a_page_is_read_as_it_was_told(mount: MakeMount, store: Path, mode: str) -> None:
    """Somebody else has recorded an event since, of which the kernel has not heard: it asks for the bytes, and would
    cut a longer page off where the old one ended."""
    path = make_kata(store, "AAAAAA")
    add_event(path, 1)
    kata = mount(store, mode).kata("AAAAAA")
    for number, name in enumerate(["html/index.html", "html/0..1.html", "history"] * 3, 2):
        # made, and not read
        (kata / name).stat()
        with open(kata / name, "rb", buffering=0) as file:
            add_event(path, number)
            read = file.read(1 << 20)
        assert read is not None
        assert read.endswith((b"</html>", b"\n")), name


def begin_to_read(path: Path) -> tuple[io.FileIO, bytes]:
    """A file, open, and its beginning."""
    file = io.FileIO(path)
    # the kernel is to ask for what is read, and no more
    for advice in (os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM):
        os.posix_fadvise(file.fileno(), 0, 0, advice)
    return file, file.read(4096)


CHANGING = ("history", "html/index.html", "html/119..120.html", "html/0..118.html", "html/119..118.html")


@pytest.mark.parametrize("name", CHANGING)
def test_who_reads_a_page_for_long_reads_on_while_events_come(
    mount: MakeMount, store: Path, mode: str, name: str
) -> None:
    """Also when the next one is read meanwhile."""
    make_long_kata(store, "AAAAAA", 120)
    kata = mount(store, mode).kata("AAAAAA")
    seen = [(kata / name).read_bytes()]
    file, read = begin_to_read(kata / name)

    def is_another() -> bool:
        return (kata / name).read_bytes() != seen[-1]

    with file:
        for index in range(121, 124):
            (kata / "ran_tests").write_text(json.dumps({"index": index, "summary": {"colour": "red"}}))
            # that of two events that are no neighbours is not there at once
            wait_until(is_another, "the event", 1)
            seen.append((kata / name).read_bytes())
            read += file.read(4096)
        assert os.fstat(file.fileno()).st_size == len(seen[0])
        assert read + file.read() == seen[0]
    assert len(set(seen)) == len(seen)


def test_a_page_is_read_on_after_a_death(mount: MakeMount, store: Path) -> None:
    """Also where an event has come since; but one of a step that was to change yet is ESTALE."""
    make_long_kata(store, "AAAAAA", 120)
    mounted = mount(store, "fast")
    mounted.expected_log = "the daemon has died"
    kata = mounted.kata("AAAAAA")
    names = ("history", "html/index.html", "html/114..115.html", "html/119..120.html")
    before = [(kata / name).read_bytes() for name in names]
    begun = [begin_to_read(kata / name) for name in names]
    died = mounted.daemon
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: mounted.daemon not in (0, died), "the next daemon")
    (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
    for (file, part), whole in zip(begun[:3], before, strict=False):
        with file:
            assert part + file.read() == whole
    with begun[3][0] as file, pytest.raises(OSError, match="Stale"):
        file.read()
    assert (kata / names[3]).read_bytes() != before[3]


def test_a_page_with_all_its_neighbours(mount: MakeMount, store: Path, mode: str) -> None:
    """It was read when it had not all of them yet, and changes no more."""
    path = make_kata(store, "AAAAAA")
    add_event(path, 1)
    page = mount(store, mode).kata("AAAAAA") / "html/0..1.html"
    assert "5..6.html" not in page.read_text()
    for index in range(2, 8):
        add_event(path, index)
    wait_until(lambda: "5..6.html" in page.read_text(), "the neighbours")
    assert page.stat().st_size == len(page.read_bytes())


def test_listing_makes_nothing_and_a_killed_process_is_replaced(mount: MakeMount, store: Path) -> None:
    make_kata(store, "AAAAAA")
    mounted = mount(store)
    kata = mounted.kata("AAAAAA")
    os.listdir(kata / "html")
    os.listdir(kata)
    assert workers(mounted.daemon) == []
    assert (kata / "html" / "index.html").read_bytes()
    wait_until(lambda: len(children(mounted.daemon)) == 1, "the end of what has touched the mount")
    (first,) = children(mounted.daemon)
    left = children(first)
    os.kill(first, signal.SIGKILL)
    # who has made a page stays, and may make another one before it hears
    wait_until(lambda: not any(os.path.exists(f"/proc/{each}") for each in left), "the end of who has made it")
    assert (kata / "html" / "0..0.html").read_bytes()
    assert children(mounted.daemon) not in ([], [first])


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    limited = Pool(2, (process.__name__,), replace(process._LIMITS, seconds=patience(3.0)))
    monkeypatch.setattr(process, "workers", limited)
    yield
    for worker in limited._idle:
        worker.end()


def _take_for_ever(page: Page, *, highlight: bool) -> bytes:
    if highlight:
        signal.pause()
    return _make(None, page, highlight)


def _make_slowly(_file: None, page: Page, highlight: bool) -> bytes:
    return _take_for_ever(page, highlight=highlight)


@pytest.mark.thorough
def test_a_page_that_takes_too_long_is_made_without_colours(
    monkeypatch: pytest.MonkeyPatch, limit: None, store: Path
) -> None:
    path = make_kata(store, "AAAAAA")
    tip = GitRepo(path).main()
    assert tip is not None
    page = Page(path, "AAAAAA", tip, 0, 0, 0)
    coloured = render(page)
    assert b'<span class="k">def</span>' in coloured
    with monkeypatch.context() as patch:
        patch.setattr(process, "_make", _make_slowly)
        plain = render(page)
    assert b'class="k"' not in plain
    assert b"def answer()" in plain
    assert render(page) == coloured


def _number(_say: object, _page: Page, _highlight: bool) -> bytes:
    return b"%d" % os.getpid()


def test_pages_are_made_by_a_process_that_stays(monkeypatch: pytest.MonkeyPatch, store: Path) -> None:
    """It has the lines of files that did not change; when it is killed, another makes the next page."""
    path = make_kata(store, "AAAAAA")
    tip = GitRepo(path).main()
    assert tip is not None
    page = Page(path, "AAAAAA", tip, 0, 0, 0)
    monkeypatch.setattr(process, "_make", _number)
    first = int(render(page))
    assert int(render(page)) == first
    os.kill(first, signal.SIGKILL)
    assert int(render(page)) != first


def test_long_histories_and_long_files(limit: None, store: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """300 events, and a file of 5,000 lines in which a few change."""
    path = long_store(tmp_path_factory.getbasetemp()) / "Ln/gK/at"
    lines = [f"def function_{number}(a, b): return a + {number} * b  # {number}\n" for number in range(5_000)]
    long = make_kata(store, "BBBBBB", {"long.py": "".join(lines)})
    lines[2_500] = "changed\n"
    add_event(long, 1, files={"long.py": "".join(lines)})
    for at, page in ((path, (-1, -1, 300)), (long, (0, 1, 1))):
        tip = GitRepo(at).main()
        assert tip is not None
        start = time.monotonic()
        data = render(Page(at, "LngKat", tip, *page))
        assert time.monotonic() - start < patience(4)
        assert len(data) < 2_500_000
        assert data == render(Page(at, "LngKat", tip, *page))


def _palettes() -> dict[str, dict[str, str]]:
    """The colours of the style sheet, by name, in a light room and in a dark one."""
    style = resources.files("katafs.html").joinpath("templates", "style.css").read_text()
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in blocks[:2])
    return {"light": light, "dark": {**light, **dark}}


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, as WCAG 2.2 defines it."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("room", ["light", "dark"])
def test_everything_can_be_told_from_its_paper(room: str) -> None:
    """Level AA: 4.5 for text, 3 for the lights."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    colours = _palettes()[room]
    code = ("ink", "c", "k", "s", "m", "f", "b")
    on = {
        "paper": ("ink", "soft", "link", "red", "green"),
        "card": ("ink", "soft", "link", "red", "green", *code),
        "fold": ("ink", "soft", *code),
        "plus": (*code, "soft"),
        "minus": (*code, "soft"),
        "plus-mark": ("ink",),
        "minus-mark": ("ink",),
        "link": ("paper",),
    }
    for paper, inks in on.items():
        for ink in inks:
            ratio = contrast(colours[ink], colours[paper])
            assert ratio >= 4.5, f"--{ink} on --{paper} in a {room} room: {ratio:.2f}"
    for light in ("red", "green", "event", "other"):
        assert contrast(colours[light], colours["paper"]) >= 4.5
    # the amber light is told by its sign too
    assert contrast(colours["amber"], "#241a00") >= 4.5
