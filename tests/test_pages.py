"""The pages of a kata: every one of the demo's, hostile ones, large ones, and what they cost."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import signal
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from katafs.git import GitRepo
from katafs.html import process, serve
from katafs.html.process import Page, render
from tests.katas import add_event, git_commit, long_store, make_kata, pretty_json, row_time, stored_rows
from tests.katas import git as run_git
from tests.mounts import MakeMount, Mount, katafs

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
        if tag not in ("meta", "input"):
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
    """A page that can run nothing, load nothing, and leads nowhere but to its neighbours."""
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
            assert more["href"] in names
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
    assert pages == 76
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


def _processes(mount: Mount) -> list[int]:
    children = Path(f"/proc/{mount.daemon}/task").glob("*/children")
    return [int(pid) for file in children for pid in file.read_text().split()]


def test_listing_makes_nothing_and_a_killed_process_is_replaced(mount: MakeMount, store: Path) -> None:
    make_kata(store, "AAAAAA")
    mounted = mount(store)
    kata = mounted.kata("AAAAAA")
    os.listdir(kata / "html")
    os.listdir(kata)
    assert _processes(mounted) == []
    assert (kata / "html" / "index.html").read_bytes()
    (worker,) = _processes(mounted)
    os.kill(worker, signal.SIGKILL)
    assert (kata / "html" / "0..0.html").read_bytes()
    assert _processes(mounted) not in ([], [worker])


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LIMIT", 3.0)


def _take_for_ever(page: Page, *, highlight: bool) -> bytes:
    if highlight:
        signal.pause()
    return serve.make(page, highlight=highlight)


def _make_slowly(_file: None, page: Page, highlight: bool) -> bytes:
    return _take_for_ever(page, highlight=highlight)


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


def test_long_histories_and_long_files(limit: None, store: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """300 events, and a file of 5,000 lines in which a few change."""
    path = long_store(tmp_path_factory.getbasetemp()) / "Ln/gK/at"
    lines = [f"def function_{number}(a, b): return a + {number} * b  # {number}\n" for number in range(5_000)]
    long = make_kata(store, "BBBBBB", {"long.py": "".join(lines)})
    lines[2_500] = "changed\n"
    add_event(long, 1, files={"long.py": "".join(lines)})
    for at, page in ((path, (-1, -1, -1)), (long, (0, 1, 1))):
        tip = GitRepo(at).main()
        assert tip is not None
        start = time.monotonic()
        data = render(Page(at, "LngKat", tip, *page))
        assert time.monotonic() - start < 4
        assert len(data) < 2_500_000
        assert data == render(Page(at, "LngKat", tip, *page))
