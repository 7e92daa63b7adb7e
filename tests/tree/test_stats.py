"""``.katafs/stats``: read by Prometheus' own parser, true, and new at each read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import katafs
from katafs.kata.store import Store
from katafs.mount import runtime
from katafs.tree.context import Context
from katafs.tree.stats import stats_text
from tests.katas import make_kata
from tests.mounts import MakeMount, Mount, is_keeper, patience, wait_until

PAGE = Path(__file__).resolve().parents[2] / "katafs/docs/watching.md"

Labels = tuple[tuple[str, str], ...]


class Stats:
    """The samples of one text, by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in self.families:
            assert family.documentation, f"{family.name} has no help"
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self.samples, f"{key} is there twice"
                self.samples[key] = sample.value

    def __call__(self, sample: str, /, **labels: str) -> float:
        return self.samples.get((sample, tuple(sorted(labels.items()))), 0.0)


def stats_of(mount: Mount) -> Stats:
    """The stats as they are now: not those that were made for a reader a moment ago, and shown to the next one too."""
    path = mount.path / ".katafs" / "stats"
    earlier = path.stat().st_mtime_ns
    wait_until(lambda: path.stat().st_mtime_ns > earlier, "another text")
    return Stats(path.read_text())


def write(path: Path, message: dict[str, object]) -> None:
    # not with a file object, which would write once more when it is closed
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, json.dumps(message).encode())
    finally:
        os.close(fd)


def test_everything_is_there_and_named_by_the_conventions(mount: MakeMount, store: Path, mode: str) -> None:
    mounted = mount(store, mode)
    text = (mounted.path / ".katafs" / "stats").read_text()
    stats = Stats(text)
    for family in stats.families:
        ours = family.name.startswith("katafs_")
        assert ours or family.name.startswith("process_")
        if family.type == "counter":
            assert f"{family.name}_total" in text or not family.samples
        if family.type == "histogram":
            assert family.name.endswith("_seconds")
        assert not any(unit in family.name for unit in ("milli", "micro", "_ms", "_kb", "_mib"))
    assert stats("katafs_build_info", version=katafs.__version__, python=_python()) == 1
    assert stats("katafs_mount_info", mode=mode, read_only="false", store=str(store)) == 1
    assert stats("katafs_requests_waiting") == 0
    began = stats("process_start_time_seconds")
    assert 0 < time.time() - began < patience(60)
    memory = int(Path(f"/proc/{mounted.daemon}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    assert 0.5 < stats("process_resident_memory_bytes") / memory < 2
    status = (mounted.path / ".katafs" / "stats").stat()
    assert stat.S_IMODE(status.st_mode) == 0o444
    assert status.st_size > 1000


def _python() -> str:
    import platform

    return platform.python_version()


def test_requests_are_counted_and_fall_into_buckets(mount: MakeMount, store: Path, mode: str) -> None:
    kata = make_kata(store, "AbCdEf")
    mounted = mount(store, mode)
    before = stats_of(mounted)
    shown = mounted.kata("AbCdEf")
    for index in os.listdir(shown / "events"):
        (shown / "events" / index / "files" / "hiker.py").read_bytes()
    with pytest.raises(FileNotFoundError):
        (shown / "nothing").stat()
    after = stats_of(mounted)
    name = "katafs_request_duration_seconds"
    for operation in ("lookup", "getattr", "read", "readdir"):
        grown = after(f"{name}_count", operation=operation) - before(f"{name}_count", operation=operation)
        assert grown >= 1, operation
        buckets = [
            value
            for (sample, labels), value in after.samples.items()
            if sample == f"{name}_bucket" and ("operation", operation) in labels
        ]
        assert buckets == sorted(buckets)
        assert buckets[-1] == after(f"{name}_count", operation=operation)
        took = after(f"{name}_sum", operation=operation)
        assert 0 < took < patience(60)
    assert after("katafs_request_errors_total", operation="lookup", errno="ENOENT") >= 1
    assert after("katafs_open_repositories") == after("katafs_cache_entries", cache="katas") == 1
    most = [value for (name, _), value in after.samples.items() if name == "katafs_cache_bytes_max"]
    assert len(most) > 10
    assert sum(most) <= 64 << 20
    for cache in ("katas", "snapshots", "listings"):
        assert after("katafs_cache_misses_total", cache=cache) >= 1, cache
    assert after("katafs_cache_hits_total", cache="katas") > before("katafs_cache_hits_total", cache="katas")
    assert kata.is_dir()


def test_what_the_kernel_answers_is_not_counted(mount: MakeMount, store: Path) -> None:
    """A warm read costs the daemon nothing, counting included."""
    make_kata(store, "AbCdEf")
    mounted = mount(store)
    file = mounted.kata("AbCdEf") / "events" / "0" / "manifest.json"
    file.read_bytes()
    name = "katafs_request_duration_seconds_count"
    before = stats_of(mounted)(name, operation="read")
    with file.open("rb") as opened:
        for _ in range(50):
            opened.seek(0)
            opened.read()
    # the one read is that of the stats
    assert stats_of(mounted)(name, operation="read") - before <= 1


def test_writes_are_counted_by_what_became_of_them(mount: MakeMount, store: Path, mode: str) -> None:
    make_kata(store, "AbCdEf")
    mounted = mount(store, mode)
    kata = mounted.kata("AbCdEf")
    last = int(os.readlink(kata / "events" / "latest"))
    message = {"index": last + 1, "summary": {"colour": "red"}, "laptop_id": "a" * 64, "tab_seq": 1}
    write(kata / "ran_tests", message)
    write(kata / "ran_tests", message)
    with pytest.raises(FileExistsError):
        write(kata / "ran_tests", {"index": last + 1, "summary": {"colour": "green"}})
    with pytest.raises(OSError, match="Invalid argument"):
        write(kata / "ran_tests", {"summary": {}})
    (kata / "config" / "theme").write_text("dark")
    (kata / "config" / "theme").write_text("dark")
    with pytest.raises(OSError, match="Read-only"):
        (kata / "x").mkdir()
    stats = stats_of(mounted)
    assert stats("katafs_commits_total", written="control") == 1
    assert stats("katafs_commits_total", written="option") == 1
    assert stats("katafs_commits_total", written="plain") == 0
    assert stats("katafs_repetitions_total") == 1
    assert stats("katafs_conflicts_total") == 1
    assert stats("katafs_request_errors_total", operation="write", errno="EEXIST") == 1
    assert stats("katafs_request_errors_total", operation="write", errno="EINVAL") == 1
    assert stats("katafs_request_errors_total", operation="mkdir", errno="EROFS") == 1


def test_the_text_stays_while_it_is_read(mount: MakeMount, store: Path, mode: str) -> None:
    """In small pieces too, whatever is counted meanwhile; whoever opens the file later gets another."""
    make_kata(store, "AbCdEf")
    mounted = mount(store, mode)
    path = mounted.path / ".katafs" / "stats"
    with path.open("rb", buffering=0) as file:
        parts = []
        while part := file.read(512):
            parts.append(part)
            assert os.listdir(mounted.kata("AbCdEf") / "events")
            with pytest.raises(FileNotFoundError):
                (mounted.kata("AbCdEf") / f"{len(parts)}").stat()
    first = Stats(b"".join(parts).decode())
    assert len(parts) > 10
    assert len(first.samples) > 50
    name = {"operation": "lookup", "errno": "ENOENT"}
    assert stats_of(mounted)("katafs_request_errors_total", **name) >= len(parts)
    assert first("katafs_request_errors_total", **name) == 0


def test_who_comes_at_the_same_time_gets_the_same_text(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what one reads in two requests is of one text, though another opens the file between them."""
    ctx = Context(Store(store))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first = stats_text(ctx, fresh=True)
    ctx.counters.compactions += 1
    assert stats_text(ctx, fresh=True) == first
    now += 0.2
    assert stats_text(ctx, fresh=False) == first
    second = stats_text(ctx, fresh=True)
    assert Stats(second[0].decode())("katafs_compactions_total") == 1
    assert second[1] > first[1]


def test_a_file_that_stays_open_and_copies(mount: MakeMount, store: Path, tmp_path: Path, mode: str) -> None:
    mounted = mount(store, mode)
    path = mounted.path / ".katafs" / "stats"
    subprocess.run(["cp", path, tmp_path / "copy"], check=True)
    Stats((tmp_path / "copy").read_text())
    printed = subprocess.run(["cat", path], check=True, capture_output=True, text=True).stdout
    assert len(Stats(printed).samples) >= len(Stats((tmp_path / "copy").read_text()).samples)
    assert subprocess.run(["tail", "-n1", path], check=True, capture_output=True).stdout.startswith(b"process_max_fds")


def test_another_daemon_counts_anew(mount: MakeMount, store: Path) -> None:
    """The file says so by its start time, and how many have died."""
    mounted = mount(store)
    if not is_keeper(mounted.pid):
        pytest.skip("the mount is not kept alive here")
    mounted.expected_log = "has died"
    path = mounted.path / ".katafs" / "stats"
    first = mounted.daemon
    with path.open() as opened:
        before = Stats(opened.read())
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: mounted.daemon not in (0, first), "another daemon")
        device = path.stat().st_dev
        after = Stats(path.read_text())
        opened.seek(0)
        Stats(opened.read())
    assert before("katafs_daemon_deaths_total") == 0
    status = runtime.read(f"{os.major(device)}:{os.minor(device)}")
    assert status is not None
    wait_until(lambda: stats_of(mounted)("katafs_daemon_deaths_total") == 1, "the death is told")
    assert after("process_start_time_seconds") >= before("process_start_time_seconds")


def test_promtool_has_nothing_to_say(mount: MakeMount, store: Path) -> None:
    """Debian's package prometheus has it; not asked for."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is not here")
    mounted = mount(store)
    text = (mounted.path / ".katafs" / "stats").read_bytes()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()


def test_it_is_scraped_as_the_page_says(mount: MakeMount, store: Path, tmp_path: Path, mode: str) -> None:
    """By any web server over the directory, and by way of a copy."""
    mounted = mount(store, mode)
    about = mounted.path / ".katafs"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(about), str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def scraped() -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats", timeout=patience(20)) as answer:
                return str(answer.read().decode())
        except urllib.error.URLError:
            return ""

    try:
        wait_until(scraped, "the web server")
        first = Stats(scraped())
        count = "katafs_request_duration_seconds_count"
        assert first("process_resident_memory_bytes") > 0
        wait_until(lambda: Stats(scraped())(count, operation="lookup") > first(count, operation="lookup"), "another")
    finally:
        server.terminate()
        server.wait(patience(20))
    script = PAGE.read_text().split("    grep -v process_ ", 1)[1].split("\n", 1)[0]
    copy = f"grep -v process_ {script}".replace("/cyber-dojo/katas", str(mounted.path))
    subprocess.run(["bash", "-c", copy], cwd=tmp_path, check=True)
    copied = Stats((tmp_path / "katafs.prom").read_text())
    assert {family.name.split("_")[0] for family in copied.families} == {"katafs"}


def test_the_page_has_every_metric(mount: MakeMount, store: Path) -> None:
    text = PAGE.read_text()
    for family in stats_of(mount(store)).families:
        name = "process_…" if family.name.startswith("process_") else family.name
        name = name.replace("katafs_cache_", "") if name.startswith("katafs_cache_") else name
        assert name in text, name
