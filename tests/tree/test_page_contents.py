"""What pages say and where they lead: comparisons, names of files, marks, folds, and lights in time."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from pygments.lexers import get_all_lexers, get_lexer_for_filename

from katafs.git import GitRepo
from katafs.html.chart import WIDTH, Chart
from katafs.html.code import _USUAL as USUAL
from katafs.html.code import MAX_HIGHLIGHTED, _known_lines, _lexer, highlighted, pairs
from katafs.html.process import Page, render
from katafs.kata.model.steps import Step, history
from tests.katas import add_event, make_kata, stored_rows
from tests.lively_katas import make_lively_kata
from tests.mounts import MakeMount, patience
from tests.tree.test_pages import Reader, check


def page_of(path: Path, was: int = -1, now: int = -1, end: int = -1) -> str:
    """A page, made without a mount."""
    tip = GitRepo(path).main()
    assert tip is not None
    end = end if now >= 0 else len(stored_rows(path)) - 1
    return render(Page(path, "".join(path.parts[-3:]), tip, was, now, end)).decode()


def test_every_link_opens(mount: MakeMount, store: Path) -> None:
    """From any page to any other; from a comparison with the same event again."""
    make_lively_kata(store, "AAAAAA", 6)
    html = mount(store).kata("AAAAAA") / "html"
    names = set(os.listdir(html))
    compared = {"2..5.html", "5..2.html", "4..4.html"}
    targets: dict[str, set[str]] = {}
    for name in names | compared:
        links = {str(more["href"]) for tag, more in check((html / name).read_text(), names).tags if tag == "a"}
        targets[name] = {link for link in links if not link.startswith("#")}
    for link in set().union(*targets.values()):
        assert (html / link).stat().st_size > 0, link
    assert {f"{was}..5.html" for was in range(6)} <= targets["4..5.html"]
    assert {"2..4.html", "2..6.html"} <= targets["2..5.html"]
    assert {"3..3.html", "5..5.html"} <= targets["4..4.html"]
    assert "From event 5 to event 0" in (html / "5..0.html").read_text()
    assert "From event 5 to event 2" in (html / "5..2.html").read_text()


def test_a_step_is_compared_with_what_matters(store: Path) -> None:
    path = make_kata(store, "AAAAAA")
    for index, colour in enumerate(("red", "green", "amber", "red", "red"), 1):
        add_event(path, index, colour=colour)
    words = "".join(Reader(page_of(path, 4, 5, 5)).texts["a"])
    assert words.index("event 4") < words.index("last green, 2") < words.index("the start") < words.index("all files")
    assert "last light" not in words  # which is event 4


def test_the_list_names_every_file(store: Path) -> None:
    first = {f"f{number}.py": "1\n" for number in range(4)}
    path = make_kata(store, "AAAAAA", {**first, "old.txt": "some\ntext\n", "gone": "x\n"})
    changed = dict.fromkeys(first, "2\n") | {"new.txt": "some\ntext\n", "\u202emade": "y\n"}
    add_event(path, 1, files=changed, stdout={"content": "", "truncated": True})
    add_event(path, 2, files={**changed, **{f"{number:02}": "\n" for number in range(30)}})
    add_event(path, 3, files={**changed, "0" * 250: "long\n"})
    add_event(path, 4, files={f"{number}": "\n" for number in range(200)})
    words = Reader(page_of(path)).texts
    names = words["li"]
    for name in (*first, "old.txt → new.txt", "⟨U+202E⟩made", "gone", "and 18 more", "0" * 200 + "…", "many files"):
        assert name in names
    assert "cut short: stdout" in words["span"]
    drawing = next(text for text in words["title"] if "The list below has them all." in text)
    assert drawing.startswith("5 events in 4 min, from 2026-02-03 04:05 to 2026-02-03 04:09 UTC: 4 red.")


def test_an_edit_of_several_files_names_them(store: Path) -> None:
    path = make_lively_kata(store, "AAAAAA", 5)
    words = Reader(page_of(path)).texts
    assert "edited 4 files" in words["span"]
    assert words["li"][-4:] == ["cyber-dojo.sh", "readme.md", "square.py", "test_square.py"]


def test_long_changes_are_folded(store: Path) -> None:
    lines = [f"line {number}\n" for number in range(5_000)]
    path = make_kata(store, "AAAAAA", {"a.txt": "".join(lines)})
    add_event(path, 1, files={"b.txt": "".join(lines).replace("line", "other"), "c.txt": "".join(lines[:250])})
    page = page_of(path, 0, 1, 1)
    outside = re.sub(r'<details class="fold">.*?</details>', "", page, flags=re.DOTALL)
    assert page.count('class="l"') == 10_250
    assert outside.count('class="l"') == 60 + 60 + 250
    assert page.count("4940 more lines") == 2


def _marked(old: str, new: str) -> list[tuple[str, str]]:
    texts = [text.splitlines() for text in (old, new)]
    before, after = ([[("", line)] for line in lines] for lines in texts)
    return [(texts[0][at][slice(*marks[0])], texts[1][to][slice(*marks[1])]) for at, to, marks in pairs(before, after)]


def test_the_language_of_a_name_is_that_of_pygments() -> None:
    """Also where more of the name than its suffix says so."""
    patterns = {pattern for _, _, patterns, _ in get_all_lexers() for pattern in patterns}
    particular = {pattern for pattern in patterns if not re.fullmatch(r"\*\.\w+|.*\[.*", pattern)}
    usual = {f"*.{suffix.decode()}" for suffix in USUAL}
    for name in {pattern.replace("*", stem) for pattern in particular | usual for stem in ("a", "setup", "a.b")}:
        if not name.lower().endswith((".txt", ".md", ".log", "makefile", "gemfile")):
            assert type(_lexer(name.encode())) is type(get_lexer_for_filename(name)), name


def test_lines_of_unequal_changes_are_compared() -> None:
    old = "import os\ndef area(r):\n    return 3 * r\n"
    new = "import os.path\n# round\ndef area(r, precise):\n    x = 1\n    return 4 * r\n"
    assert _marked(old, new) == [("", ".path"), ("", ", precise"), ("3", "4")]
    assert _marked("one = 1\n", "wholly_different()\nother\n") == []
    assert _marked("first = 1\nsecond = 2\n", "second = 3\nfirst = 2\n") == [("2", "3")]
    many = "".join(f"value = {number}\n" for number in range(100))
    assert _marked(many, many.replace("value", "values")) == [("", "s")] * 100
    assert _marked(many, many + many) == []


def test_comparing_lines_takes_no_time() -> None:
    lines = [[("", f"{number}" + "x" * 3_900)] for number in range(20)]
    start = time.process_time()
    assert pairs(lines, lines[::-1])
    assert time.process_time() - start < 1


def _steps(seconds: list[float]) -> list[Step]:
    start = datetime(2026, 2, 3, 22, tzinfo=UTC)
    times = [start + timedelta(seconds=sum(seconds[: at + 1])) for at in range(len(seconds))]
    rows = [
        {"index": at, "colour": ("red", "amber", "green")[at % 3], "time": [*when.timetuple()[:6], 0], "type": "test"}
        for at, when in enumerate(times)
    ]
    return history(rows)


@pytest.mark.parametrize("count", [2, 8, 200])
def test_lights_in_time_can_be_read(count: int) -> None:
    """Nothing lies on another thing, or beyond the drawing; the order is that of time, line by line."""
    chart = Chart(_steps([20_000 if at % 60 == 50 else 7 + at * 37 % 120 for at in range(count)]))
    assert len(chart.dots) == count
    assert len(chart.lines) == {2: 1, 8: 1, 200: 6}[count]
    for line in chart.lines:
        places = [dot.x for dot in line.dots]
        assert all(after - before >= 22 for before, after in pairwise(places))
        assert 12 <= min(places) <= max(places) <= WIDTH - 12
        assert line.ticks
        ends = [(tick.x, tick.x + 7 * len(tick.text)) for tick in line.ticks]
        assert all(end < start for (_, end), (start, _) in pairwise(ends))
        assert ends[-1][1] <= WIDTH
        assert line.ticks[0].x == line.dots[0].x
    dates = [tick.text[:10] for line in chart.lines for tick in line.ticks if "-" in tick.text]
    assert dates == sorted(set(dates))
    assert dates[0] == "2026-02-03"
    breaks = [one for line in chart.lines for one in line.breaks]
    assert all(one.seconds == 20_000 for one in breaks)
    assert len(breaks) <= count // 60


def test_times_that_make_no_sense_are_drawn() -> None:
    """Years apart, backwards, all the same, one, none."""
    years = [{"index": at, "time": [1 + at % 2 * 9_997, 1, 1, 0, 0, 0, 0], "colour": "red"} for at in range(2_000)]
    start = time.process_time()
    assert len(Chart(history(years)).dots) == 2_000
    assert time.process_time() - start < patience(2)
    assert len(Chart(_steps([0.0] * 50)).dots) == 50
    assert len(Chart(_steps([1.0])).dots) == 1
    assert Chart([]).dots == []


def test_lines_that_take_more_memory_than_is_kept() -> None:
    """A piece takes more than its text: of a large file of short ones the lines are made each time."""
    small, large = b"a = 1\n", (b"1," * 500 + b"\n") * (MAX_HIGHLIGHTED // 1001)
    for data in (large, small):
        lines = highlighted(b"x.py", data, highlight=True)
        assert "".join(f"{''.join(text for _, text in line)}\n" for line in lines).encode() == data
        assert highlighted(b"x.py", data, highlight=True) == lines
    kept = _known_lines.kept()
    assert _known_lines.get(("Python", small)) is not None
    assert _known_lines.get(("Python", large)) is None
    assert kept.size <= kept.most
