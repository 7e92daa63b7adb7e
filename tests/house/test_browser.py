"""The pages in a real browser: chromium through its driver, both Debian's. Runs with --browser, and in CI.

``--browser DIR`` leaves screenshots in DIR, to be looked at.
"""

from __future__ import annotations

import functools
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.conftest import unavailable
from tests.katas import add_event, long_store, make_kata
from tests.lively_katas import make_lively_kata
from tests.mounts import Mount, katafs, patience, wait_until
from tests.tree.test_groups import make_class

PICTURES = Path(__file__).resolve().parents[2] / "katafs/docs/pictures"


@pytest.fixture(scope="module")
def driver(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a chromedriver."""
    if request.config.getoption("--browser") is None:
        pytest.skip("needs a browser: run with --browser")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        unavailable("the Debian packages chromium and chromium-driver are not there")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    process = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(is_up, "chromedriver")
        yield port
    finally:
        process.terminate()
        process.wait(patience(20))


@pytest.fixture(scope="module")
def katas(driver: int, fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    store = tmp_path_factory.mktemp("browser") / "store"
    groups = store.with_name("groups")
    katafs("demo", "--groups", groups, store)
    evil = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">\n"
    add_event(make_kata(store, "HHHHHH", {"a.html": "a\n"}), 1, files={"a.html": evil}, stdout={"content": evil})
    make_lively_kata(store, "Lvy8Ev", 8)
    make_lively_kata(store, "LvyMny", 300)
    shutil.copytree(long_store(tmp_path_factory.getbasetemp()) / "Ln", store / "Ln")
    lines = [f"def function_{number}(a, b): return a + {number} * b  # {number}\n" for number in range(5_000)]
    long = make_kata(store, "BBBBBB", {"long.py": "".join(lines)})
    changed = "".join([*lines[:2_500], "changed\n", *lines[2_501:]])
    add_event(long, 1, files={"long.py": changed})
    add_event(long, 2, files={"long.py": changed, "new.py": changed.replace("function", "procedure")})
    with Mount(store, store.parent / "mnt", "fast", (f"--groups={groups}",)) as mount:
        yield mount


@pytest.fixture
def browser(driver: int) -> Iterator[Browser]:
    session = Browser(driver)
    try:
        yield session
    finally:
        session.close()


def is_at(browser: Browser, page: str) -> bool:
    return browser.page == page


def test_from_step_to_step(browser: Browser, katas: Mount) -> None:
    """By clicks and by keys; in one column, and in two."""
    browser.look(1200, "light")
    browser.open(katas.kata("BashWc") / "html" / "index.html")
    browser.click(".strip a:nth-child(13)")
    assert browser.page == "11..12.html"
    for act, page in (("right", "12..13.html"), ("left", "11..12.html"), ("u", "index.html")):
        browser.press(act)
        wait_until(functools.partial(is_at, browser, page), f"{page} after {act}")
    browser.open(katas.kata("BashWc") / "html" / "12..13.html")
    browser.click("#next")
    assert browser.page == "13..14.html"
    columns = "return getComputedStyle(document.querySelector('.change')).display"
    assert browser.run(columns) == "grid"
    browser.press("s")
    assert browser.run(columns) == "block"
    browser.click("#side")
    assert browser.run(columns) == "grid"
    browser.look(400, "dark")
    assert browser.run(columns) == "block"
    assert browser.log() == []


def test_nothing_hostile_runs(browser: Browser, katas: Mount) -> None:
    for name in ("index.html", "0..1.html"):
        browser.open(katas.kata("HHHHHH") / "html" / name)
        assert "owned" not in browser.run("return document.title")
        assert browser.run("return document.images.length") == 0
        assert browser.log() == []
    # the policy holds: what is put into the page afterwards neither runs nor loads
    browser.run("const s = document.createElement('script'); s.text = 'document.title = 1'; document.body.append(s)")
    browser.run("const i = new Image(); i.src = 'index.html'; document.body.append(i)")
    assert browser.run("return document.title") != "1"
    wait_until(lambda: sum("Content Security Policy" in line for line in seen(browser)) >= 2, "two complaints")


_SEEN: list[str] = []


def seen(browser: Browser) -> list[str]:
    _SEEN.extend(browser.log())
    return _SEEN


def test_without_scripts(driver: int, katas: Mount) -> None:
    browser = Browser(driver, scripts=False)
    try:
        browser.open(katas.kata("PyFzBz") / "html" / "12..13.html")
        browser.click("#inline")
        browser.click("#next")
        assert browser.page == "13..14.html"
        browser.click("#up")
        assert browser.page == "index.html"
        filter_and_compare(browser, katas)
    finally:
        browser.close()


def filter_and_compare(browser: Browser, katas: Mount) -> None:
    """By light and by wrong prediction; from a step to what it is compared with, and on from there; files by names."""
    browser.look(1200, "light")
    browser.open(katas.kata("LvyMny") / "html" / "index.html")
    for chosen, shown in (("red", ".red"), ("wrong", ".wrong"), ("quiet", ":is(.event, .outage)"), ("all", "")):
        browser.click(f"#only-{chosen}")
        rows = "[...document.querySelectorAll('tbody tr')].filter(row => row.offsetHeight)"
        count = browser.run(f"return {rows}.length")
        assert count == browser.run(f"return document.querySelectorAll('tbody tr{shown}').length") > 0
        bright = "[...document.querySelectorAll('.strip a')].filter(one => getComputedStyle(one).opacity == 1)"
        assert browser.run(f"return {bright}.length") == count
    browser.open(katas.kata("LvyMny") / "html" / "149..150.html")
    browser.click(".others summary")
    browser.click(".pick a[href='141..150.html']")
    assert browser.page == "141..150.html"
    assert browser.run("return document.querySelector('.pick [aria-current]').textContent") == "141"
    heights = "return [...document.querySelectorAll('.file[id] .code')].filter(code => code.offsetHeight).length"
    files = browser.run(heights)
    assert files > 5
    browser.click("label:has(#names)")
    assert browser.run(heights) == 0
    browser.click("#file-3 .alone")
    assert browser.run(heights) == 1
    browser.click("label:has(#names)")
    assert browser.run(heights) == files
    browser.click("#next")
    assert browser.page == "141..151.html"


def test_files_by_key(browser: Browser, katas: Mount) -> None:
    """From one to the next, whose name stays in sight; all folded but one."""
    browser.look(1200, "dark")
    browser.open(katas.kata("LvyMny") / "html" / "0..300.html")
    for key, file in (("n", 1), ("n", 2), ("n", 3), ("p", 2)):
        browser.press(key)
        top = "return Math.abs(document.querySelector(':target > summary').getBoundingClientRect().top"
        assert browser.run("return location.hash") == f"#file-{file}"
        assert browser.run(f"{top} - document.querySelector('.bar').getBoundingClientRect().bottom) < 20")
    files = browser.run("return document.querySelectorAll('.file[id]').length")
    for _ in range(files):
        browser.press("n")
    assert browser.run("return location.hash") == f"#file-{files}"
    longest = "[...document.querySelectorAll('.file[id]')].sort((a, b) => a.offsetHeight - b.offsetHeight).pop()"
    browser.run(f"const file = {longest}; scrollBy(0, file.getBoundingClientRect().bottom - 300)")
    name = f"{longest}.querySelector('summary').getBoundingClientRect()"
    assert browser.run(f"return {name}.top >= 0 && {name}.bottom <= 300")
    browser.press("c")
    assert browser.run("return document.querySelectorAll('#names:checked').length") == 1
    assert browser.log() == []


LOOKED_AT = [
    *(("PyFzBz", "index.html"), ("BashWc", "index.html"), ("JsRmNs", "index.html"), ("LngKat", "index.html")),
    *(("JsRmNs", "13..14.html"), ("CPrmFc", "4..5.html"), ("BashWc", "12..13.html"), ("RbLeap", "index.html")),
    *(("Lvy8Ev", "index.html"), ("LvyMny", "index.html"), ("LvyMny", "149..150.html"), ("LvyMny", "120..150.html")),
    ("BBBBBB", "1..2.html"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1920, 1280, 400])
def test_how_it_looks(
    browser: Browser, katas: Mount, request: pytest.FixtureRequest, tmp_path: Path, scheme: str, width: int
) -> None:
    """Screenshots; nothing is wider than the window, and the paper is as light or dark as the room."""
    directory = Path(request.config.getoption("--browser") or tmp_path)
    directory.mkdir(exist_ok=True, parents=True)
    browser.look(width, scheme)
    for kata_id, name in LOOKED_AT:
        browser.open(katas.kata(kata_id) / "html" / name)
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (int(paper.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        checked = "[...document.querySelectorAll('.views > label')].map(one => getComputedStyle(one).backgroundColor)"
        assert browser.run(f"const colours = new Set({checked}); return colours.size == 2 || colours.size == 0")
        picture = browser.screenshot()
        assert picture.startswith(b"\x89PNG")
        (directory / f"{kata_id}-{name}-{scheme}-{width}.png").write_bytes(picture)


def test_on_paper(browser: Browser, katas: Mount, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Black on white from a dark room too, without what is to be clicked."""
    directory = Path(request.config.getoption("--browser") or tmp_path)
    browser.look(794, "dark", "print")
    pages = (("BashWc", "index.html"), ("BashWc", "12..13.html"), ("LvyMny", "index.html"))
    for kata_id, name in pages:
        browser.open(katas.kata(kata_id) / "html" / name)
        assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert not browser.run(
            "return [...document.querySelectorAll('.bar, .views:not(.only)')].some(e => e.offsetHeight)"
        )
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        (directory / f"paper-{kata_id}-{name}.png").write_bytes(browser.screenshot())


@pytest.fixture(scope="module")
def classes(driver: int, fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``.katafs/groups`` with classes of 1, 8 and 64 katas of up to 100 events."""
    top = tmp_path_factory.mktemp("classes")
    for members in (64, 8, 1):
        make_class(top / "store", top / "groups", members, 100, f"C1ss{members:02}", min(members, 8))
    with Mount(top / "store", top / "mnt", "fast", (f"--groups={top / 'groups'}",)) as mount:
        yield mount.path / ".katafs/groups"


def test_the_pictures_of_the_readme(
    browser: Browser, katas: Mount, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Small enough for a repository; ``--pictures`` puts them there."""
    directory = PICTURES if request.config.getoption("--pictures") else tmp_path
    pages = {"kata": (katas.kata("PyFzBz") / "html", 500), "class": (katas.path / ".katafs/groups/C1ass0", 640)}
    for name, (page, height) in pages.items():
        browser.look(1000, "light", height=height)
        browser.open(page / "index.html")
        picture = browser.screenshot()
        assert len(picture) < 150_000
        (directory / f"{name}.png").write_bytes(picture)
    assert {path.name for path in PICTURES.iterdir()} == {f"{name}.png" for name in pages}


@pytest.mark.parametrize("members", [1, 8, 64])
@pytest.mark.parametrize(("width", "scheme", "medium"), [
    *((1280, "light", ""), (1280, "dark", ""), (400, "light", ""), (794, "dark", "print")),
])  # fmt: skip
def test_a_class(
    browser: Browser,
    classes: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    members: int,
    width: int,
    scheme: str,
    medium: str,
) -> None:
    """By time and by step; nothing is wider than the window, and a light leads to its step."""
    directory = Path(request.config.getoption("--browser") or tmp_path)
    directory.mkdir(exist_ok=True, parents=True)
    browser.look(width, scheme, medium)
    browser.open(classes / f"C1ss{members:02}" / "index.html")
    heights = []
    for order in ("by-step", "by-time"):
        if medium != "print":
            browser.click(f"#{order}")
        heights.append(browser.run("return document.querySelector('.lights').offsetHeight"))
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        name = f"class-{members}-{order}-{scheme}-{width}{medium}.png"
        (directory / name).write_bytes(browser.screenshot())
    # a hundred lights are more than one line, and one time axis
    assert (heights[0] > heights[1]) == (medium != "print")
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (int(paper.split("(")[1].split(",")[0]) < 128) == (scheme == "dark" and medium != "print")
    assert browser.run("return document.scripts.length ? document.scripts[0].text : ''") == ""
    if medium != "print":
        browser.click("#k00 .lights a:last-child")
        assert browser.page == "99..100.html"
    assert browser.log() == []


@pytest.mark.parametrize("page", ["LngKat/index.html", "BBBBBB/0..1.html", "BBBBBB/1..2.html", "BBBBBB/0..0.html"])
def test_large_pages_stay_pleasant(browser: Browser, katas: Mount, page: str) -> None:
    """300 events, and a file of 5,000 lines, folded and whole: all is there, and keys are answered."""
    kata_id, name = page.split("/")
    browser.look(1280, "light")
    browser.open(katas.kata(kata_id) / "html" / name)
    things = browser.run("return document.querySelectorAll('.strip .light, .l').length")
    assert things >= (300 if kata_id == "LngKat" else 5_000)
    assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
    browser.press("s")
    assert browser.run("return document.querySelectorAll('#inline:checked').length") == (
        name in ("0..1.html", "1..2.html")
    )
