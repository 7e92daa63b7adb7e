"""Reading ahead: who walks from event to event gets the right answers before he asks, and others get none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from katafs.kata.model.ids import kata_path
from tests.conftest import MODES
from tests.katas import (
    GitCommit,
    GitFile,
    add_event,
    git_blobs,
    git_files,
    import_commits,
    loosen,
    make_kata,
    make_long_kata,
    make_odd_kata,
    message,
    pretty_json,
    stored_rows,
)
from tests.mounts import DEADLINE, MakeMount, Mount, patience, wait_until
from tests.tree.test_stats import stats_of

_EVENTS = 30
_SLOW_SECONDS = 0.1  # of an event; a table is used for 0.7
_SAID = [f"st_{key}" for key in ("ino", "mode", "nlink", "uid", "gid", "size", "blocks", "blksize")]
_SAID += [f"st_{key}_ns" for key in ("atime", "mtime", "ctime")]
Order = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module")
def two_katas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a long kata and an odd one, to be copied."""
    store = tmp_path_factory.mktemp("two")
    make_long_kata(store, "AbCdEf", _EVENTS)
    make_odd_kata(store, "GhJkLm")
    return store


@pytest.fixture
def mounted(two_katas: Path, store: Path, mount: MakeMount, mode: str) -> Mount:
    shutil.copytree(two_katas, store, dirs_exist_ok=True)
    return mount(store, mode)


def read_below(top: Path) -> dict[str, bytes]:
    """All files below a directory, each right after its directory was listed."""
    found = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                found[os.fspath(path.relative_to(top))] = path.read_bytes()
    return found


def ahead(mounted: Mount, operation: str) -> float:
    """How many requests had their answers before they came."""
    return stats_of(mounted)("katafs_read_ahead_total", operation=operation)


def asked(mounted: Mount, operation: str) -> float:
    """How many Python has answered."""
    return stats_of(mounted)("katafs_request_duration_seconds_count", operation=operation)


def entries_below(top: Path, order: Order) -> dict[str, tuple[object, ...]]:
    """What a listing says of everything below a directory, directories visited in an order."""
    found = {}
    for directory, below, names in os.walk(top):
        below[:] = order(below)
        for name in [*names, "."]:
            path = Path(directory, name)
            status = path.lstat()
            found[str(path.relative_to(top))] = tuple(getattr(status, key) for key in _SAID)
    return found


@pytest.mark.parametrize("kata_id", ["AbCdEf", "GhJkLm"])
def test_the_bytes_are_right(mounted: Mount, mount: MakeMount, mode: str, kata_id: str) -> None:
    """Those of git, and what a mount shows that was never listed."""
    found = read_below(mounted.kata(kata_id) / "events")
    other = mount(mounted.store, mode, path=mounted.path.parent / "other").kata(kata_id)
    assert found == {name: (other / "events" / name).read_bytes() for name in found}
    stored = mounted.store / kata_id[:2] / kata_id[2:4] / kata_id[4:]
    for index in range(len(stored_rows(stored))):
        ids = {name: oid for name, oid in git_files(stored, str(index)).items() if name.startswith(b"files/")}
        blobs = git_blobs(stored, ids.values())
        for name, oid in ids.items():
            assert found[f"{index}/{os.fsdecode(name)}"] == blobs[oid]


@pytest.mark.parametrize(
    ("kata_id", "order"), [("AbCdEf", sorted), ("AbCdEf", lambda names: names[::-1]), ("GhJkLm", list)]
)
def test_both_modes_say_the_same(two_katas: Path, mount: MakeMount, tmp_path: Path, kata_id: str, order: Order) -> None:
    """Of every entry: in the slower mode there are no tables."""
    fast, slower = (
        entries_below(mount(two_katas, mode, path=tmp_path / mode).kata(kata_id) / "events", order) for mode in MODES
    )
    assert len(fast) > 100
    assert fast == slower


def test_most_is_there_before_it_is_asked_for(mounted: Mount, mode: str) -> None:
    found = read_below(mounted.kata("AbCdEf") / "events")
    assert len(found) > 15 * _EVENTS
    for operation in ("readdir", "read"):
        assert (ahead(mounted, operation) > 0) == (mode == "fast")
    # of each event three directories, each to its end
    assert asked(mounted, "readdir") + ahead(mounted, "readdir") >= 6 * _EVENTS
    assert asked(mounted, "read") + ahead(mounted, "read") >= sum(map(bool, found.values()))


def test_of_many_files_most_is_there_too(store: Path, mount: MakeMount) -> None:
    path = make_kata(store, "AbCdEf")
    for index in range(1, 17):
        add_event(path, index, files={f"file{number}": f"{number} at {index}\n" for number in range(40)})
    mounted = mount(store, "fast")
    found = read_below(mounted.kata("AbCdEf") / "events")
    assert all(found[f"{index}/files/file7"] == b"7 at %d\n" % index for index in range(1, 17))
    for operation in ("readdir", "read"):
        assert ahead(mounted, operation) > asked(mounted, operation)


def test_for_who_lists_or_reads_one_file_no_bytes_are_fetched(mounted: Mount) -> None:
    events = mounted.kata("AbCdEf") / "events"
    subprocess.run(["ls", "-lR", events], check=True, capture_output=True)
    for index in range(_EVENTS):
        assert os.listdir(events / str(index))
        (events / str(index) / "stdout").read_bytes()
    assert ahead(mounted, "read") == 0


def test_whoever_reads_in_the_order_of_names_is_met(two_katas: Path, mount: MakeMount) -> None:
    """``10`` comes after ``1``, and ``2`` after ``19``: where he jumps to, one file is asked for, and no other."""
    mounted = mount(two_katas, "fast")
    events = mounted.kata("AbCdEf") / "events"
    names = [
        sorted(path for path in (events / index).rglob("*") if path.is_file()) for index in sorted(os.listdir(events))
    ]
    before = asked(mounted, "read")
    found = late = 0
    for event in names:
        begun = time.monotonic()
        found += sum(bool(path.read_bytes()) for path in event)
        # on a machine with too much to do tables are too old when he comes to them: he is met with few then
        late += time.monotonic() - begun > _SLOW_SECONDS
    assert found > 15 * _EVENTS
    # all of the first event, one file where tables end, and twice in ten events the way is left
    assert asked(mounted, "read") - before < 15 + _EVENTS + 3 * 15 * late


def test_another_kata_comes_in_the_middle(store: Path, mount: MakeMount, mode: str) -> None:
    """From the moment that it is seen nothing comes from tables of the one before."""
    text = "another\n" * 9
    (store.parent / "other").mkdir()
    paths = [make_long_kata(store, "AbCdEf", 12), make_kata(store.parent / "other", "AbCdEf", {"hiker.py": text})]
    for index in range(1, 13):
        add_event(paths[1], index, files={"hiker.py": text, "empty.txt": text})
    mounted = mount(store, mode)
    events = mounted.kata("AbCdEf") / "events"
    for index in range(3):
        read_below(events / str(index))
    paths[0].rename(store.parent / "gone")
    paths[1].rename(paths[0])
    wait_until(lambda: (mounted.kata("AbCdEf") / "files/empty.txt").read_text() == text, "the other")
    for index in range(3, 12):
        found = read_below(events / str(index) / "files")
        assert found == dict.fromkeys(("hiker.py", "empty.txt"), text.encode())


def test_times_that_take_more_room(store: Path, mount: MakeMount, mode: str) -> None:
    """A kata may say that it is from the year 9999."""
    rows = [{"index": index, "colour": "red", "time": [9999, 12, 31, 23, 59, 59, 0]} for index in range(6)]
    commits = []
    for index in range(6):
        named = {"events_summary.json": pretty_json(rows[: index + 1]), "config/theme": b"dark\n", "files/a": b"a"}
        commits.append(GitCommit(f"{index} x", [GitFile(*each) for each in named.items()], [index]))
    import_commits(kata_path(store, "AbCdEf"), commits)
    events = mount(store, mode).kata("AbCdEf") / "events"
    for index in range(6):
        assert (events / str(index) / "files").is_dir()
        assert os.listdir(events / str(index) / "files") == ["a"]


def test_a_damaged_file_between_others(store: Path, mount: MakeMount, mode: str) -> None:
    """It is an error for whoever reads it, and the others are as they should be."""
    files = {f"{name}.txt": f"{name}\n" for name in "abcdefgh"}
    path = make_kata(store, "AbCdEf", files)
    loosen(path)
    damaged = git_files(path, "0")[b"files/c.txt"]
    mounted = mount(store, mode)
    mounted.expected_log = damaged
    shown = mounted.kata("AbCdEf") / "events/0/files"
    assert sorted(os.listdir(shown)) == sorted(files)
    (path / ".git/objects" / damaged[:2] / damaged[2:]).unlink()
    for name, text in files.items():
        if name == "c.txt":
            with pytest.raises(OSError, match="Input/output"):
                (shown / name).read_bytes()
        else:
            assert (shown / name).read_text() == text


def test_events_that_come_meanwhile(mounted: Mount) -> None:
    shown = mounted.kata("AbCdEf")
    last = len(stored_rows(mounted.store / "Ab/Cd/Ef"))
    for index in range(last, last + 10):
        files = {"a.txt": f"{index}\n", "b.txt": "b\n"}
        (shown / "ran_tests").write_text(json.dumps(message(files, index=index)))
        read_below(shown / "events" / str(index - 1))
        wanted = {name: text.encode() for name, text in files.items()}
        assert read_below(shown / "events" / str(index) / "files") == wanted
        assert read_below(shown / "files") == wanted


def test_an_end_in_the_middle(mounted: Mount) -> None:
    """Whatever is being sent, the daemon ends (the fixture says so) and nobody hangs."""
    reader = subprocess.Popen(
        ["grep", "-r", "nothing", mounted.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(
        lambda: ahead(mounted, "readdir") > 20 or asked(mounted, "read") > 20 or reader.poll() is not None,
        "something that is sent",
    )
    assert mounted.stop() == ""
    assert reader.wait(patience(DEADLINE)) is not None


@pytest.mark.slow
def test_pages_that_the_kernel_drops(mounted: Mount) -> None:
    """Readers beside one another, while the kernel forgets pages, names and inodes again and again."""
    wanted = {kata_id: read_below(mounted.kata(kata_id) / "events") for kata_id in ("AbCdEf", "GhJkLm")}
    is_over = threading.Event()

    def forget() -> None:
        while not is_over.wait(0.02):
            Path("/proc/sys/vm/drop_caches").write_text("3\n")

    def read() -> None:
        for round_number in range(30):
            kata_id = ("AbCdEf", "GhJkLm")[round_number % 2]
            if read_below(mounted.kata(kata_id) / "events") != wanted[kata_id]:
                wrong.append(kata_id)

    wrong: list[str] = []
    threads = [threading.Thread(target=read) for _ in range(4)]
    forgetting = threading.Thread(target=forget)
    for thread in (*threads, forgetting):
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    forgetting.join()
    assert wrong == []
