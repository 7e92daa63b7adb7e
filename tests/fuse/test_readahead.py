"""Reading ahead: the kernel has the right bytes before it asks, of those only who go on reading."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.katas import git_blobs, git_files, loosen, make_kata, make_long_kata, make_odd_kata, message, stored_rows
from tests.mounts import DEADLINE, MakeMount, Mount, patience, wait_until
from tests.tree.test_stats import Stats, stats_of

_EVENTS = 30


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


def sent(mounted: Mount) -> float:
    return stats_of(mounted)("katafs_read_ahead_total")


def reads(stats: Stats) -> float:
    return stats("katafs_request_duration_seconds_count", operation="read")


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


def test_most_is_sent_before_it_is_asked_for(mounted: Mount) -> None:
    found = read_below(mounted.kata("AbCdEf") / "events")
    stats = stats_of(mounted)
    assert len(found) > 15 * _EVENTS
    assert stats("katafs_read_ahead_total") > len(found) / 2
    assert reads(stats) < len(found) * 0.8


def test_who_lists_or_reads_one_file_is_sent_nothing(mounted: Mount) -> None:
    events = mounted.kata("AbCdEf") / "events"
    subprocess.run(["ls", "-lR", events], check=True, capture_output=True)
    for index in range(_EVENTS):
        assert os.listdir(events / str(index))
        (events / str(index) / "stdout").read_bytes()
    assert sent(mounted) == 0


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
    wait_until(lambda: sent(mounted) > 20 or reader.poll() is not None, "something that is sent")
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
