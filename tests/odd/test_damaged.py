"""Damaged repositories: no wrong byte with success, no crash, no hang, and nobody else notices."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import shutil
import signal
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import pytest

from katafs.errors import KataError
from katafs.git import GitRepo
from katafs.kata.model.ids import kata_path
from tests.katas import make_kata
from tests.mounts import Mount, patience
from tests.odd.damage import SIMPLE
from tests.odd.forging import forge
from tests.odd.looking import Neighbour, below, deadline, describe, is_summary, look, paths_of, peak_memory
from tests.odd.making import Odd, make_odd
from tests.odd.settings import SEED, dice_of, numbers
from tests.scratch import fast_directory

POOL = 16
#: bounds of the daemon, in MiB, and of one kata, in seconds
MEMORY, SLOW = 400, 10.0
#: of who waits for it, in seconds: the 99th percentile, and the most; where other tests run beside this one, and alone
BESIDE_OTHERS, ALONE = (0.5, 3.0), (0.1, 1.0)
LOG = "ERROR|WARNING"


class Case(NamedTuple):
    """A damaged copy of an odd kata, and what was done to it."""

    number: int
    odd: Odd
    path: Path
    name: str


@pytest.fixture
def store() -> Iterator[Path]:
    """An empty store, which another user may look into, where syncing costs nothing."""
    with tempfile.TemporaryDirectory(prefix="katafs-odd-", dir=fast_directory()) as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="module")
def pool() -> Iterator[list[Odd]]:
    """Odd katas that are to be damaged; none whose packed references are older than others, which damage would show."""
    with tempfile.TemporaryDirectory(prefix="katafs-odd-", dir=fast_directory()) as directory:
        odds = [make_odd(Path(directory), 100_000 + number) for number in range(POOL)]
        yield [odd for odd in odds if not _is_stale(odd)]


def _is_stale(odd: Odd) -> bool:
    packed = odd.path / ".git/packed-refs"
    lines = packed.read_bytes().splitlines() if packed.exists() else []
    mains = [line[:40].lower() for line in lines if line.endswith(b" refs/heads/main")]
    return mains not in ([], [odd.truth.main.hex().encode()])


def damage(path: Path, odd: Odd, dice: random.Random) -> str:
    """Damage a repository once or more: what was done."""
    done: list[str] = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        while True:
            # what was damaged once may be no object, or no file, any more
            try:
                if dice.random() < 0.2:
                    done.append(forge(path / ".git", odd.truth.objects, dice))
                    break
                if what := dice.choice(SIMPLE)(path / ".git", dice):
                    done.append(what)
                    break
            except (OSError, ValueError, IndexError, zlib.error, struct.error):
                if done:
                    break
    return "; ".join(done)


def make_case(odds: list[Odd], store: Path, number: int, mount: Mount | None = None) -> Case:
    """A copy of an odd kata, damaged; where there is a mount it may have been read before."""
    dice = dice_of(number, "damage")
    odd = dice.choice(odds)
    path = kata_path(store, f"{number:06}")
    shutil.copytree(odd.path, path, symlinks=True)
    if mount is not None and dice.random() < 0.3:
        for name in dice.sample(sorted(paths_of(odd.truth)), 5):
            look(os.fsencode(mount.kata(f"{number:06}")) + b"/" + name)
    how = damage(path, odd, dice)
    return Case(number, odd, path, f"KATAFS_ODD_SEED={SEED} KATAFS_ODD_ONLY={number} ({odd.number}: {how})")


@contextlib.contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """A TimeoutError of what takes longer."""

    def ring(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"not within {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(int(patience(seconds)))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def telling(found: list[str], what: str) -> Iterator[None]:
    """Within a minute there is an answer, or an error of ours: whatever else is raised is wrong, and told."""
    try:
        with alarm(60):
            yield
    except KataError:
        pass
    except Exception as error:  # noqa: BLE001 - told
        found.append(f"{what}: {error!r}")


def wrong_in_process(case: Case) -> list[str]:
    """What katafs says of a damaged repository that is neither right nor an error of ours."""
    truth = case.odd.truth
    found: list[str] = []
    try:
        with alarm(60):
            repo = GitRepo(case.path)
    except KataError:
        return found
    dice = dice_of(case.number, "objects")
    for oid in dice.sample(sorted(truth.objects), min(30, len(truth.objects))):
        with telling(found, f"object {oid.hex()}"):
            if repo.objects.read_any(oid) != truth.objects[oid]:
                found.append(f"object {oid.hex()} has other bytes")
        with telling(found, f"size of {oid.hex()}"):
            repo.blob_size(oid)
    with telling(found, "history"):
        if repo.main() not in (None, truth.main):
            found.append("main is another")
        list(repo.history(truth.main))
    found += [f"tag {index} is another" for index, oid in truth.tags().items() if repo.tag(index) not in (None, oid)]
    return found


def _read_some(top: bytes) -> None:
    """The start of some files below a directory, whatever is in them."""
    for name in itertools.islice(below(top), 40):
        with contextlib.suppress(OSError), open(os.path.join(top, name), "rb") as file:
            file.read(1 << 16)


def wrong_mounted(case: Case, mount: Mount) -> Iterator[str]:
    """What a mount shows of a damaged kata that is neither right nor an error that says so."""
    top = os.fsencode(mount.kata(f"{case.number:06}"))
    dice = dice_of(case.number, "paths")
    begun = time.monotonic()
    listed = look(top)
    expected = paths_of(case.odd.truth)
    if isinstance(listed, int):
        yield f"it cannot be listed: {describe(listed)}"
    # without a tip there is nothing of events
    allowed = {errno.EIO} if isinstance(listed, tuple) and b"events" in listed else {errno.EIO, errno.ENOENT}
    for name, data in dice.sample(sorted(expected.items()), min(len(expected), 15)):
        seen = look(top + b"/" + name)
        if seen != data and seen not in allowed:
            yield f"{name!r}: {describe(seen)}, not {len(data)} bytes"
    last = max(case.odd.truth.tags())
    for name in (b"events_summary.json", b"events/%d.json" % last, b"diff/0..%d" % last, b"history"):
        seen = look(top + b"/" + name)
        if isinstance(seen, int) and seen not in allowed:
            yield f"{name!r}: {describe(seen)}"
        if name == b"events_summary.json" and isinstance(seen, bytes) and not is_summary(seen, case.odd.truth):
            yield f"other rows: {seen!r}"
    if dice.random() < 0.2:
        look(top + b"/download.tgz")
        _read_some(top + b"/.git")
    if (took := time.monotonic() - begun) > patience(SLOW):
        yield f"it took {took:.1f} s"


def look_at_all(
    odds: list[Odd], store: Path, path: Path, wanted: list[int], patience: tuple[float, float]
) -> list[str]:
    """All that is wrong with what a mount shows of damaged katas, and with how it does so."""
    make_kata(store, "AbCdEf")
    mount = Mount(store, path, "fast", ("--allow-other",))
    mount.expected_log = LOG
    found: list[str] = []
    spans: list[tuple[float, Case]] = []
    try:
        mount.start()
        daemon, memory = mount.daemon, 0
        neighbour = Neighbour(mount.kata("AbCdEf"))
        try:
            for number in wanted:
                case = make_case(odds, store, number, mount)
                spans.append((time.monotonic(), case))
                with deadline(mount):
                    found += [f"{case.name}: {problem}" for problem in wrong_mounted(case, mount)]
                shutil.rmtree(case.path, ignore_errors=True)
                if mount.daemon != daemon:
                    return [*found, f"{case.name}: the daemon has died, or was killed as it did not answer"]
                if (peak := peak_memory(daemon)) > max(memory, MEMORY):
                    found.append(f"{case.name}: the daemon has {peak} MiB")
                    memory = peak
        finally:
            waits = neighbour.end()
    finally:
        problems = mount.stop()
    found += [line for line in mount.log_text().splitlines() if "Traceback" in line]
    return [*found, *([problems] if problems else []), *_impatience(waits, spans, *patience)]


def _impatience(
    waits: list[tuple[float, float]], spans: list[tuple[float, Case]], p99: float, most: float
) -> Iterator[str]:
    """Where the neighbour had to wait for long."""
    if waits and (seconds := waits[len(waits) // 100][1]) > patience(p99):
        yield f"the neighbour's p99 is {seconds:.3f} s"
    for begun, seconds in waits[:20]:
        if seconds > patience(most):
            case = [case for start, case in spans if start <= begun + seconds][-1:]
            yield f"{case[0].name if case else ''}: the neighbour waited {seconds:.2f} s"


def assert_none(found: list[str]) -> None:
    assert not found, f"{len(found)} problems\n" + "\n".join(found[:60])


def test_read_in_process(pool: list[Odd], store: Path) -> None:
    found: list[str] = []
    for number in numbers(35):
        case = make_case(pool, store, number)
        found += [f"{case.name}: {problem}" for problem in wrong_in_process(case)]
        shutil.rmtree(case.path, ignore_errors=True)
    assert_none(found)


@pytest.mark.thorough
def test_read_from_a_mount(pool: list[Odd], store: Path, tmp_path: Path, fuse: None) -> None:
    assert_none(look_at_all(pool, store, tmp_path / "mnt", numbers(28, 1000), BESIDE_OTHERS))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(10_000, 20_000, 500))
def test_many(pool: list[Odd], store: Path, tmp_path: Path, fuse: None, first: int) -> None:
    wanted = numbers(500, first)
    found = look_at_all(pool, store, tmp_path / "mnt", wanted, ALONE)
    for number in wanted:
        case = make_case(pool, store, number)
        found += [f"{case.name}: {problem}" for problem in wrong_in_process(case)]
        shutil.rmtree(case.path, ignore_errors=True)
    assert_none(found)
