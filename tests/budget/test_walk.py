"""Every kind of node of repositories that are large in each way is looked at, while a neighbour is timed.

Figures are printed (``-s``); what decides is that nobody waits for a second, and what is read is right or refused.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from katafs.errors import HeavyError
from katafs.git.budget import Budget
from katafs.kata.model.rows import Rows
from katafs.mount.runtime import stat_fields
from tests.budget import large
from tests.katas import make_kata, message
from tests.mount.test_bounds import asking, memory, workers
from tests.mounts import MakeMount, patience, wait_until
from tests.tree.test_stats import stats_of

# of the names in a directory
_FIRST, _LAST = 2, 1
_UNLISTED = ("events/{n}.json", "diff/0..{n}", "diff/0..{n}.json", "diff/{n}..{n}.summary.json", "html/0..{n}.html")
# what takes too much is refused, or said to be damaged
_REFUSED = (errno.EIO, errno.EFBIG, errno.EAGAIN)

Large = Callable[[Path], None]
SMALL: dict[str, Large] = {
    "events": lambda path: large.events(path, 1_200, 1_000),
    "events without tags": lambda path: large.events(path, 1_100, tags=False),
    "options": lambda path: large.options(path, 2_500),
    "values": lambda path: large.values(path, 80_000),
    "references": lambda path: large.references(path, 60_000),
    "files": lambda path: large.files(path, 5_000),
    "indexes": lambda path: large.indexes(path, 4),
    "chain": lambda path: large.chain(path, 60),
}
QUICK = ("events", "references", "chain")
LARGE: dict[str, Large] = {
    "events": lambda path: large.events(path, 92_000),
    "events without tags": lambda path: large.events(path, 20_000, tags=False),
    "options": lambda path: large.options(path, 60_000),
    "references": lambda path: large.references(path, 200_000),
    "files": lambda path: large.files(path, 90_000),
    "indexes": lambda path: large.indexes(path, 30),
    "chain": lambda path: large.chain(path, 2_000, 16 << 20),
}


def look(path: Path) -> Iterator[int]:
    """Ask all that can be asked of what is at a path, and of some of what is below it; the errnos that were heard."""
    try:
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            os.readlink(path)
        elif stat.S_ISREG(status.st_mode):
            with path.open("rb", buffering=0) as file:
                data = file.read(300_000)
            assert len(data) == min(status.st_size, 300_000) or "control" in path.parts or path.name == "ran_tests"
        else:
            os.listxattr(path)
            names = os.listdir(path)
            for name in dict.fromkeys([*names[:_FIRST], *names[_FIRST:][-_LAST:]]):
                yield from look(path / name)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        yield error.errno


def walk(kata: Path, slow: tuple[str, ...]) -> list[int]:
    """All names of a kata, but for the slow ones."""
    heard = [each for name in sorted(os.listdir(kata)) if name not in slow for each in look(kata / name)]
    latest = os.readlink(kata / "events/latest")
    for name in _UNLISTED:
        if name.partition("/")[0] in slow:
            continue
        heard += look(kata / name.format(n=latest))
    return heard


def write(kata: Path) -> None:
    """An event and an option can still be recorded, and are seen at once."""
    last = int(os.readlink(kata / "events/latest"))
    (kata / "ran_tests").write_text(json.dumps(message({"a.txt": "new\n"}, index=last + 1)))
    assert os.readlink(kata / "events/latest") == str(last + 1)
    assert (kata / "files/a.txt").read_text() == "new\n"
    assert json.loads((kata / "ran_tests").read_text())["index"] == last + 1
    (kata / "config/theme").write_text("dark")
    assert (kata / "config/theme").read_text() == "dark\n"


def check(
    store: Path, mount: MakeMount, name: str, make: Large, slow: tuple[str, ...] = (), mode: str = "fast"
) -> None:
    make_kata(store, "GhJkLm")
    path = make_kata(store, "AbCdEf", {"a.txt": "hello 2\n", "cyber-dojo.sh": "true\n"})
    make(path)
    mounted = mount(store, mode, ("--xattr",))
    mounted.expected_log = "takes too (long|much)|takes more than|takes longer than"
    (mounted.kata("GhJkLm") / "events/0/event.json").read_bytes()
    with asking(mounted.kata("GhJkLm")) as taken:
        heard = walk(mounted.kata("AbCdEf"), slow)
        write(mounted.kata("AbCdEf"))
    said = stats_of(mounted)
    asked = said("katafs_elsewhere_total")
    p99, held = sorted(taken)[len(taken) * 99 // 100], said("katafs_loop_held_seconds_max")
    figures = [
        f"{name}: {asked:.0f} questions answered elsewhere, {len(heard)} refused",
        f"a neighbour waited {max(taken) * 1000:.0f} ms at most, p99 {p99 * 1000:.1f}",
        f"the event loop was held {held * 1000:.0f} ms at most; the daemon has {memory(mounted.daemon)} MB",
    ]
    sys.stdout.write("\n" + "; ".join(figures) + "\n")
    # what is in an index is found without reading all of it
    assert asked or name == "indexes"
    assert max(taken) < patience(1)
    assert memory(mounted.daemon) < 400


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.thorough) for name in SMALL]
)
def test_a_large_repository(store: Path, mount: MakeMount, name: str) -> None:
    # these are made in processes of their own, and of such katas for seconds
    check(store, mount, name, SMALL[name], ("html", "download", "download.tgz"))


def test_what_is_printed_is_paid_for() -> None:
    """A row of many values takes a hundred times as long as one of as many characters."""
    rows = Rows([{"index": 0, "x": [[]] * 10_000}, {"index": 1, "x": "y" * 100_000}], budget=Budget(10_000))
    assert len(rows.text(1)) > 100_000
    with pytest.raises(HeavyError):
        rows.text(0)


def test_a_large_repository_with_open(store: Path, mount: MakeMount) -> None:
    check(store, mount, "references", SMALL["references"], ("html", "download", "download.tgz"), "slower")


@pytest.fixture(scope="module", params=["events", "references"])
def large_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("large")
    SMALL[request.param](make_kata(store, "AbCdEf", {"a.txt": "hello 2\n", "cyber-dojo.sh": "true\n"}))
    return store


@pytest.mark.parametrize(("above", "below"), [("", "Ab"), ("Ab", "Cd"), ("Ab/Cd", "Ef")])
def test_directories_above_one_are_listed(large_store: Path, mount: MakeMount, above: str, below: str) -> None:
    """What a kata is said to be there is asked for elsewhere, too."""
    mounted = mount(large_store)
    listed = subprocess.run(["ls", "-l", mounted.path / above], capture_output=True, check=True, text=True)
    assert listed.stdout.split()[-1] == below
    assert stats_of(mounted)("katafs_elsewhere_total") or not above.count("/")


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_huge_repository(store: Path, mount: MakeMount, name: str) -> None:
    check(store, mount, name, LARGE[name])


def at_work(daemon: int) -> set[int]:
    """The workers that have used 50 ms of a processor."""
    return {pid for pid in workers(daemon) if int((stat_fields(pid) or ["0"] * 12)[11]) > 5}


def test_who_answers_is_killed(store: Path, mount: MakeMount) -> None:
    """The question is asked of another one, and only the third time refused."""
    for kata_id in ("AbCdEf", "GhJkLm"):
        large.options(make_kata(store, kata_id), 12_000)
    mounted = mount(store)
    mounted.expected_log = "ends each time"
    for kata_id, kills, expected in (("AbCdEf", 1, b"light\n"), ("GhJkLm", 3, b"")):
        # those that have nothing to do
        for pid in (known := at_work(mounted.daemon)):
            os.kill(pid, signal.SIGKILL)
        reader = subprocess.Popen(["cat", mounted.kata(kata_id) / "config/theme"], stdout=subprocess.PIPE)
        for _ in range(kills):
            wait_until(lambda: at_work(mounted.daemon) - known, "a worker")
            for pid in at_work(mounted.daemon) - known:
                os.kill(pid, signal.SIGKILL)
                known.add(pid)
        assert reader.communicate(timeout=patience(30))[0] == expected
    assert (mounted.path / ".katafs/version").read_text()
