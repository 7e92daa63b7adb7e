"""What a request may take: memory, time and disk of the daemon, and the patience of everybody else."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import re
import signal
import struct
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cachetools
import pytest
import trio

from katafs import process
from katafs.errors import DamagedError, HeavyError, StorageError, TooLargeError
from katafs.fuse.invalidating import Memory
from katafs.git import Commit, GitRepo
from katafs.git.budget import Budget
from katafs.kata.model.layouts import NATIVE
from katafs.kata.model.trees import Listing, Root
from katafs.kata.read.caches import ReadCaches
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import Snapshot
from katafs.kata.store import Store
from katafs.kata.views import diff
from katafs.kata.views.spool import Spool
from katafs.tree.context import Context
from katafs.tree.made import MadeCache
from katafs.tree.tree import Tree
from tests.benchmarks import hostile
from tests.katas import add_event, git, git_commit, make_kata, pretty_json, row_time, stored_rows
from tests.mounts import MakeMount, Mount, patience, wait_until

MIB = 1 << 20


def big_event(path: Path, **files: bytes) -> int:
    """Record an event with files of any size, with the git command; its index."""
    rows = stored_rows(path)
    row = {"colour": "amber", "index": len(rows), "time": row_time(60 * len(rows)), "type": "test"}
    changes = {"event.json": pretty_json(row), "events_summary.json": pretty_json([*rows, row])}
    changes |= {f"files/{name}": data for name, data in files.items()}
    assert git_commit(path, f"{len(rows)} ran tests, no prediction, got amber", changes)
    git(path, "update-ref", f"refs/tags/{len(rows)}", "main")
    return len(rows)


def lines(count: int, step: int = 1) -> bytes:
    return b"".join(b"line %d\n" % (number * step) for number in range(count))


def letters(count: int, seed: int) -> bytes:
    """Lines of one letter each: what takes libgit2 longest to compare."""
    return b"\n".join(bytes([letter]) for letter in random.Random(seed).choices(range(97, 123), k=count)) + b"\n"


def memory(pid: int) -> int:
    """The most that a process ever had in memory, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) >> 10


def children(pid: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        # a thread, or all of it, may end this moment
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def workers(pid: int) -> list[int]:
    """Those that do the work of a process: the children of its fork server."""
    return [worker for fork_server in children(pid) for worker in children(fork_server)]


@contextlib.contextmanager
def asking(path: Path) -> Iterator[list[float]]:
    """Look up names that are not there, all the while; how long each took, in seconds."""
    taken: list[float] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.01):
            start = time.monotonic()
            assert not os.path.lexists(path / f"nothing{len(taken)}")
            taken.append(time.monotonic() - start)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield taken
    finally:
        done.set()
        thread.join()


# -- a process of its own


def _write(file: object, text: str) -> int:
    assert hasattr(file, "write")
    return int(file.write(text.encode()))


def _spin(_file: object) -> None:
    while True:
        pass


def _sleep(_file: object) -> None:
    signal.pause()


def _swell(_file: object) -> int:
    return len(bytearray(2 << 30))


def _fill(file: object) -> None:
    for _ in range(64):
        _write(file, "x" * MIB)


def _damaged(_file: object) -> None:
    raise DamagedError("an object is damaged")


def test_work_in_a_process(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w+b") as file:
        assert process.run(process.Limits(), file, _write, "grüße") == 7
        assert os.pread(file.fileno(), 99, 0) == "grüße".encode()
        with pytest.raises(DamagedError, match="an object is damaged"):
            process.run(process.Limits(), file, _damaged)


@pytest.mark.parametrize(
    ("limits", "work", "said"),
    [
        (process.Limits(processor_seconds=1), _spin, "1 s of processor time"),
        (process.Limits(seconds=0.5), _sleep, "0.5 s"),
        (process.Limits(), _swell, "1024 MiB of memory"),
        (process.Limits(file=4 * MIB), _fill, "4 MiB for its result"),
    ],
    ids=["processor", "time", "memory", "result"],
)
def test_a_process_that_takes_too_much(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, limits: process.Limits, work: process.Work, said: str
) -> None:
    # those that stay, of another test
    others = {*workers(os.getpid())}
    with open(tmp_path / "out", "w+b") as file, pytest.raises(TooLargeError, match=said):
        process.run(limits, file, work)
    assert said in caplog.text
    wait_until(lambda: others.issuperset(workers(os.getpid())), "the end of the worker")


# -- the spool


def test_the_spool_is_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path, limit=8 * MIB)
    one, other = spool.file(), spool.file()
    one.add([bytes(5 * MIB)])
    with pytest.raises(StorageError) as caught:
        other.add([bytes(MIB)] * 5)
    assert caught.value.errno == errno.ENOSPC
    assert one.read(5 * MIB - 3, 99) == bytes(3), "what is there stays there"
    other.close()
    one.is_kept = True
    one.last_used -= 60
    third = spool.file()
    spool.make_room()
    assert one.closed
    assert third.run(process.Limits(file=4 * MIB), _write, "abc") == 3
    assert (third.read(0, 9), third.size) == (b"abc", 3)
    with pytest.raises(StorageError) as caught:
        third.run(process.Limits(), _fill)
    assert caught.value.errno == errno.ENOSPC
    third.close()
    assert spool.taken == 0
    assert os.listdir(tmp_path) == []


# -- diffs


def test_what_is_compared_elsewhere(store: Path) -> None:
    """The same bytes as in the daemon, and it is the budget that decides."""
    path = make_kata(store, "AbCdEf")
    big_event(path, text=lines(20_000))
    big_event(path, text=lines(20_000, 2), other=b"x\n")
    trees = [bytes.fromhex(git(path, "rev-parse", f"{index}:files").decode()) for index in (1, 2)]
    with pytest.raises(HeavyError):
        diff.raw_diff(GitRepo(path, budget=Budget(diff.DIFF_BUDGET)), *trees)
    assert diff.line_counts(GitRepo(path), *trees) == diff._line_counts(GitRepo(path), *trees)
    assert diff.line_counts(GitRepo(path), *trees) == (10_001, 10_000)


def test_huge_diffs(store: Path, mount: MakeMount) -> None:
    """While they are made everybody else is answered, and the daemon's memory stays as it is."""
    path, other = make_kata(store, "AbCdEf"), make_kata(store, "GhJkLm")
    first = big_event(path, text=lines(250_000))
    big_event(path, text=lines(250_000, 2))
    mounted = mount(store)
    before = memory(mounted.daemon)
    with asking(mounted.kata("GhJkLm")) as taken:
        shown = (mounted.kata("AbCdEf") / f"diff/{first}..{first + 1}").read_bytes()
    assert other.is_dir()
    expected = git(path, "diff", "--no-color", "-U9999999", "1", "2", "--", "files")
    assert shown == expected
    assert max(taken) < patience(0.5)
    assert memory(mounted.daemon) - before < 16
    assert not workers(mounted.daemon)


@pytest.mark.slow
def test_a_diff_that_takes_too_much(store: Path, mount: MakeMount) -> None:
    """EFBIG, and at once when it is asked for again; everything else goes on."""
    path = make_kata(store, "AbCdEf")
    big_event(path, text=b"\n" * (8 * MIB))
    mounted = mount(store)
    mounted.expected_log = "takes more than"
    kata = mounted.kata("AbCdEf")
    for seconds in (20.0, 0.5):
        start = time.monotonic()
        with pytest.raises(OSError, match="File too large"):
            (kata / "diff/0..1.json").read_bytes()
        assert time.monotonic() - start < patience(seconds)
    assert mounted.log_text().count("_lines_json") == 1
    assert (kata / "files/text").read_bytes() == b"\n" * (8 * MIB)
    (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
    assert (kata / "events/2/status").read_bytes() == b"0"


@pytest.mark.slow
def test_the_process_dies_with_the_daemon(store: Path, mount: MakeMount) -> None:
    path = make_kata(store, "AbCdEf")
    big_event(path, text=letters(1_000_000, 1))
    big_event(path, text=letters(1_000_000, 2))
    mounted = mount(store)
    command = ["cat", str(mounted.kata("AbCdEf") / "diff/1..2")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        wait_until(lambda: workers(mounted.daemon), "the process")
        ended = [*children(mounted.daemon), *workers(mounted.daemon)]
        mounted.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ended), "the end of the processes", 5)
        assert reader.wait(patience(5)) != 0


@pytest.mark.slow
def test_slow_requests_do_not_starve_others(store: Path, mount: MakeMount) -> None:
    """Many that take seconds: small diffs, files, downloads and writes are answered meanwhile."""
    slow, quick = make_kata(store, "AbCdEf"), make_kata(store, "GhJkLm")
    for seed in range(9):
        big_event(slow, text=letters(200_000, seed))
    add_event(quick, 1, files={"a.txt": "1\n"})
    mounted = mount(store)
    mounted.expected_log = "takes more than"
    pairs = [f"diff/{was}..{now}" for was in range(1, 10) for now in range(1, 10) if was != now]
    readers = []
    try:
        for pair in pairs:
            command = ["cat", str(mounted.kata("AbCdEf") / pair)]
            readers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        # two at a time, 48 at most: the rest has been told to try again
        wait_until(lambda: sum(reader.poll() is not None for reader in readers) >= 10, "those who were refused")
        assert len(workers(mounted.daemon)) <= 2
        start = time.monotonic()
        kata = mounted.kata("GhJkLm")
        (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
        for name in ("diff/0..1", "diff/0..2.json", "events/1.json", "download.tgz", "events/2/stdout", "files/a.txt"):
            (kata / name).read_bytes()
        assert time.monotonic() - start < patience(5)
        assert any(reader.poll() is None for reader in readers)
    finally:
        # a request that was taken is waited for, even by one who is killed
        mounted.kill()
        for reader in readers:
            reader.communicate()


# -- large files


@pytest.mark.slow
def test_large_files(store: Path, mount: MakeMount) -> None:
    """Several of 12 MB each, loose and packed, at once: right, with everybody answered and little memory."""
    path = make_kata(store, "AbCdEf")
    blocks = [random.Random(seed).randbytes(MIB) for seed in range(4)]
    contents = {f"f{number}": block * 12 for number, block in enumerate(blocks)}
    big_event(path, **{name: data for name, data in contents.items() if name < "f2"})
    git(path, "gc", "-q")
    big_event(path, **{name: data for name, data in contents.items() if name >= "f2"})
    mounted = mount(store)
    before = memory(mounted.daemon)
    command = ["sha1sum", *[str(mounted.kata("AbCdEf") / "files" / name) for name in contents]]
    with asking(mounted.kata("AbCdEf")) as taken:
        readers = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
        for reader in readers:
            said = reader.communicate()[0].decode().split()[::2]
            assert said == [hashlib.sha1(data).hexdigest() for data in contents.values()]
    assert max(taken) < patience(0.5)
    assert memory(mounted.daemon) - before < 40


def packed(path: Path, size: int, data: bytes) -> str:
    """Put a blob into a pack whose header claims a size; the id that it goes by."""
    head = bytearray([3 << 4 | size & 15])
    rest = size >> 4
    while rest:
        head[-1] |= 0x80
        head.append(rest & 0x7F)
        rest >>= 7
    pack = struct.pack(">4sII", b"PACK", 2, 1) + head + zlib.compress(data, 9)
    pack += hashlib.sha1(pack).digest()
    oid = hashlib.sha1(b"%d %d" % (size, len(data))).digest()
    fanout = [int(first >= oid[0]) for first in range(256)]
    idx = struct.pack(">4sI256I", b"\xfftOc", 2, *fanout) + oid + struct.pack(">II", 0, 12) + pack[-20:]
    directory = path / ".git/objects/pack"
    directory.mkdir(exist_ok=True)
    (directory / f"pack-{oid.hex()}.pack").write_bytes(pack)
    (directory / f"pack-{oid.hex()}.idx").write_bytes(idx + hashlib.sha1(idx).digest())
    return oid.hex()


def loose(path: Path, size: int, data: bytes) -> str:
    oid = hashlib.sha1(b"loose %d %d" % (size, len(data))).hexdigest()
    file = path / ".git/objects" / oid[:2] / oid[2:]
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(zlib.compress(b"blob %d\0" % size + data, 9))
    return oid


LIES = {"TiB": (1 << 40, b"x"), "GiB": (1 << 30, b"x"), "10": (10, bytes(60 * MIB)), "5 MiB": (5 * MIB, b"x" * MIB)}


def test_headers_that_lie(store: Path, mount: MakeMount) -> None:
    """Zip bombs and claims: errors, and no memory for what they say or hold."""
    path = make_kata(store, "AbCdEf")
    blobs = {f"{how.__name__} {name}": how(path, *lie) for how in (loose, packed) for name, lie in LIES.items()}
    tree = "".join(f"100644 blob {oid}\t{name}\n" for name, oid in blobs.items())
    files = git(path, "mktree", "--missing", stdin=tree.encode()).decode().strip()
    root = git(path, "ls-tree", "main").decode().splitlines()
    entries = [line if not line.endswith("\tfiles") else f"040000 tree {files}\tfiles" for line in root]
    new = git(path, "mktree", stdin="\n".join(entries).encode()).decode().strip()
    git(path, "update-ref", "refs/heads/main", git(path, "commit-tree", new, "-m", "0 kata creation").decode().strip())
    git(path, "update-ref", "refs/tags/0", "main")
    mounted = mount(store)
    mounted.expected_log = "ERROR|takes more than"
    kata = mounted.kata("AbCdEf")
    before = memory(mounted.daemon)
    assert set(os.listdir(kata / "files")) == set(blobs)
    for name in [f"files/{name}" for name in blobs] + ["events/0.json", "diff/0..0.json", "download.tgz"]:
        with pytest.raises(OSError, match=r"Input/output error|File too large"):
            (kata / name).read_bytes()
    assert memory(mounted.daemon) - before < 16
    assert "Traceback" not in mounted.log_text()


# -- downloads


def test_a_huge_download(store: Path, mount: MakeMount, tmp_path: Path) -> None:
    """More than the daemon reads itself: made elsewhere, the same bytes each time."""
    path = make_kata(store, "AbCdEf")
    data = random.Random(1).randbytes(5 * MIB)
    big_event(path, data=data)
    mounted = mount(store)
    before = memory(mounted.daemon)
    link = mounted.kata("AbCdEf") / "download.tgz"
    with asking(mounted.kata("AbCdEf")) as taken:
        archive = link.read_bytes()
    assert max(taken) < patience(0.5)
    assert memory(mounted.daemon) - before < 16
    subprocess.run(["tar", "xz", "-C", tmp_path], input=archive, check=True)
    unpacked = tmp_path / link.resolve().stem
    assert (unpacked / "files/data").read_bytes() == data
    assert git(unpacked, "status", "--porcelain") == b""
    assert git(unpacked, "fsck", "--full", "--strict") == b""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if os.getuid() != 0:
        pytest.skip("only root may mount a disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", path], check=True)
    yield path
    subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.slow
def test_no_room_for_temporary_files(
    store: Path, mount: MakeMount, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC for whoever wants something large, and for nobody else."""
    path = make_kata(store, "AbCdEf")
    big_event(path, data=random.Random(1).randbytes(20 * MIB))
    monkeypatch.setenv("TMPDIR", str(small_disk))
    mounted = mount(store)
    kata = mounted.kata("AbCdEf")
    for name in ("files/data", "download.tgz", "events/1.json", "diff/0..1"):
        with pytest.raises(OSError, match="No space left on device"):
            (kata / name).read_bytes()
    (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
    assert (kata / "events/0/files/hiker.py").read_bytes()
    assert (kata / "diff/1..2").read_bytes() == b""
    assert os.listdir(small_disk) == []
    assert _stays_mounted(mounted)


def _stays_mounted(mounted: Mount) -> bool:
    return mounted.process is not None and mounted.process.poll() is None


@pytest.mark.parametrize("count", [2_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_hostile_requests(fuse: None, tmp_path: Path, mode: str, count: int) -> None:
    told = hostile.run(tmp_path, count, mode)
    assert " ok " in told[1]


# -- caches


def test_rows_in_memory_are_bounded(store: Path) -> None:
    """By their bytes, whatever the number of katas; who was read first goes first, and can be read again."""
    caches = ReadCaches(rows_bytes=100_000)
    katas = [Kata(kata_id, make_kata(store, kata_id), (0, 0), caches) for kata_id in ("AbCdEf", "GhJkLm", "NpQrSt")]
    for kata in katas:
        rows = [*stored_rows(kata.path), {"index": 1, "colour": "red", "time": row_time(9), "x": "y" * 60_000}]
        assert git_commit(kata.path, "1 ran tests", {"events_summary.json": pretty_json(rows)})
        assert kata.tip().last == 1
        assert caches.held <= 100_000
    first, *_, last = katas
    assert first._tip is None
    assert last._tip is not None
    assert first.tip().last == 1
    assert last._tip is None


def test_a_kata_that_was_let_go_is_looked_at_afresh(store: Path) -> None:
    """Its history may be another by then."""
    caches = ReadCaches()
    path = make_kata(store, "AbCdEf")
    kata = Kata("AbCdEf", path, (0, 0), caches)
    add_event(path, 1, files={"a.txt": "one\n"})
    assert kata.files(1).position(b"a.txt") is not None
    git(path, "update-ref", "refs/heads/main", "refs/tags/0")
    git(path, "update-ref", "-d", "refs/tags/1")
    caches.clear()
    assert caches.held == 0
    add_event(path, 1, files={"b.txt": "two\n"})
    assert kata.files(1).position(b"b.txt") is not None


@pytest.mark.parametrize(
    ("cache", "fill", "most"),
    [
        ("listings", lambda caches, number: caches.listings.__setitem__((0, bytes([number])), _paths(40)), 100),
        ("snapshots", lambda caches, number: caches.snapshots.__setitem__((0, number), _snapshot()), 10),
        ("options", lambda caches, number: caches.options.__setitem__((0, bytes([number])), {}), 10),
        ("blobs", lambda caches, number: caches.blobs.__setitem__((0, bytes([number])), bytes(900)), 5_000),
    ],
)
def test_what_was_read_is_bounded(cache: str, fill: Callable[[ReadCaches, int], None], most: int) -> None:
    caches = ReadCaches(paths=100, snapshots=10, blob_bytes=5_000)
    for number in range(100):
        fill(caches, number)
        assert getattr(caches, cache).currsize <= most
    assert getattr(caches, cache).currsize > most / 2


def _snapshot() -> Snapshot:
    commit = Commit(bytes(20), bytes(20), (), 0, b"1 ran tests")
    return Snapshot(1, commit, NATIVE, Root(bytes(20), {}), 0, is_outage=False)


def _paths(count: int) -> Listing:
    listing = Listing.__new__(Listing)
    listing.paths = [b""] * count
    return listing


def test_what_was_made_is_bounded(tmp_path: Path) -> None:
    """In memory by bytes, on disk by files, of all that was ever made by sizes."""
    made = MadeCache(Spool(tmp_path), limit=10_000, sizes=50)
    for number in range(300):
        made.put(("text", number), bytes(900))
        made.put(("file", number), made.spool.file())
    for number in range(2 * int(made._refused.maxsize)):
        made.refuse(("huge", number), TooLargeError("too large"))
    assert made._contents.currsize <= 10_000
    assert [len(made._sizes), len(made._refused)] == [50, made._refused.maxsize]
    assert len(made._spooled) == made._spooled.maxsize
    assert made.get(("text", 299)) == bytes(900)
    assert made.get(("text", 0)) is None


def test_every_cache_of_a_mount_has_a_bound(store: Path) -> None:
    """None that grows with what is asked: whatever is called a cache has a largest size."""
    ctx = Context(Store(store))
    holders = [ctx, ctx.made, ctx.store, ctx.store.plain, ctx.store.read_caches, ctx.controls]
    caches = [value for holder in holders for value in vars(holder).values() if isinstance(value, cachetools.Cache)]
    assert len(caches) >= 15
    assert all(cache.maxsize < 1 << 28 for cache in caches)


def resident(pid: int) -> int:
    """What a process has in memory, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


def test_what_the_kernel_forgot_is_forgotten(store: Path) -> None:
    """A few inodes are nothing; when it was many, nothing stays that can be read again."""
    path = make_kata(store, "AbCdEf")
    ctx = Context(Store(store))
    kata = ctx.store.kata("AbCdEf")
    assert kata.path == path
    assert kata.files(0)
    ctx.made.put("text", b"made")
    memory = Memory(Tree(ctx))
    for forgotten, is_kept in ((10, True), (6_000, False), (10, False)):
        memory.forgotten(forgotten)
        trio.run(memory.look)
        assert (
            bool(ctx.store.read_caches.listings)
            == bool(ctx.made.get("text"))
            == bool(ctx.store.read_caches.held)
            == is_kept
        )
    assert ctx.made.size("text") == 4, "a size that was told must not be unknown again"
    assert kata.tip().last == 0


@pytest.mark.slow
def test_memory_comes_back_when_the_kernel_forgets(store: Path, mount: MakeMount) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may have the kernel forget")
    path = make_kata(store, "AbCdEf")
    for number in range(8):
        big_event(path, **{f"{number}-{each}": bytes([65 + number, 65 + each]) * 200_000 for each in range(8)})
    big_event(path, **{f"d{number % 90}/{number}": b"%d\n" % number for number in range(6_000)})
    mounted = mount(store)
    kata = mounted.kata("AbCdEf")
    for number in range(8):
        for name in (f"events/{number + 1}/files/{number}-{each}" for each in range(8)):
            with open(kata / name, "rb") as file:
                # in parts, so that the daemon keeps the rest
                while file.read(64 << 10):
                    pass
    subprocess.run(["find", str(kata / "events/9")], stdout=subprocess.DEVNULL, check=True)
    before = resident(mounted.daemon)
    Path("/proc/sys/vm/drop_caches").write_text("2\n")
    wait_until(lambda: resident(mounted.daemon) < before - 8, f"less than {before} MiB")
    assert (kata / "events/9/files/d0/0").read_bytes() == b"0\n"
