"""Hostile requests to a mount: ``python -m tests.benchmarks.hostile [REQUESTS]`` (200,000).

Names of random bytes, event numbers and diffs of any size, offsets and lengths beyond all bounds, every system call
that would change something. Prints how many got which answer, how fast, and the daemon's memory over time; fails when
the daemon ends, hangs, grows, has a traceback in its log, or a repository changed.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.katas import add_event, git, make_kata, make_odd_kata
from tests.mounts import Mount

KATAS = ("AbCdEf", "GhJkLm")
WORKERS = 4
ROUNDS = 20
# RSS may grow so much, in MiB, after the first quarter: caches are bounded, and full or not by then
MOST_GROWTH = 24
# a request of no size: what is slow by right takes less
MOST_SECONDS = 20.0


class Requests:
    """Requests of one client, from a seed."""

    def __init__(self, top: bytes, seed: int) -> None:
        self._dice = random.Random(seed)
        self._top = top
        self.answers: Counter[str] = Counter()
        self.longest = 0.0
        self._calls: list[Callable[[bytes], object]] = [self._read] * 12 + [os.lstat, os.listdir, os.readlink]
        self._calls += [
            os.unlink,
            os.rmdir,
            os.mkdir,
            self._write,
            self._truncate,
            self._rename,
            self._link,
            self._xattr,
        ]
        self._calls += [os.statvfs, self._chmod, self._make]

    def one(self) -> None:
        """One request; what came of it is counted."""
        call, path = self._dice.choice(self._calls), self._path()
        start = time.monotonic()
        try:
            call(path)
            answer = "ok"
        except OSError as error:
            answer = errno.errorcode.get(error.errno or 0, str(error.errno))
        except ValueError:
            answer = "not sent"  # a NUL in a name
        self.longest = max(self.longest, time.monotonic() - start)
        self.answers[answer] += 1

    def _number(self) -> bytes:
        dice = self._dice
        odd = (-1, 4095, 4096, 8159, 2**31, 2**32, 2**63, 2**64, 10**30, dice.getrandbits(70))
        number = dice.choice([dice.randrange(6)] * 4 + [dice.choice(odd)])
        return dice.choice([b"%d"] * 6 + [b"0%d", b"+%d", b" %d", b"%d\n", b"%d."]) % number

    def _name(self) -> bytes:
        dice = self._dice
        if dice.random() < 0.3:
            return dice.randbytes(dice.choice((1, 2, 6, 30, 255, 256))).translate(bytes.maketrans(b"/\0", b"\\\1"))
        known = (b"files", b"events", b"diff", b"download", b"config", b"control", b".git", b"objects", b"refs", b"..")
        more = (
            b".",
            b"stdout",
            b"ran_tests",
            b"manifest.json",
            b"events.json",
            b"latest",
            b"HEAD",
            b"hiker.py",
            b".katafs",
        )
        made = (self._number(), self._number() + b".json", self._diff(), b"x" * 5000)
        return dice.choice((*known, *more, *made))

    def _diff(self) -> bytes:
        end = self._dice.choice((b"", b".json", b".summary.json", b".html", b"..1"))
        return self._number() + b".." + self._number() + end

    def _likely(self) -> bytes:
        """A path that is there, more often than not."""
        number = b"%d" % self._dice.randrange(5)
        below = self._dice.choice(
            (b"stdout", b"event.json", b"files/hiker.py", b"files/large.txt", b"config/theme", b"")
        )
        shown = (
            b"files",
            b"diff",
            b"ran_tests",
            b"manifest.json",
            b"events.json",
            b".git/HEAD",
            b".git/objects",
            b"control",
        )
        made = (b"events/" + number + b".json", b"diff/" + self._diff(), b"download.tgz", b"download")
        return self._dice.choice((b"events/" + number + b"/" + below, *shown, *made))

    def _path(self) -> bytes:
        dice = self._dice
        kata = dice.choice([*KATAS] * 4 + ["ZzZzZz", "!!////", "Ab\n\x01\x7f\udc80"])
        encoded = os.fsencode(kata)
        path = b"/".join((self._top, encoded[:2], encoded[2:4], encoded[4:]))
        if dice.random() < 0.5:
            path += b"/" + self._likely()
        for _ in range(dice.choice((0, 0, 0, 1, 2, 3))):
            path += b"/" + self._name()
        # never out of the mount
        return path if b".." not in path.split(b"/") else path.replace(b"/..", b"/...")

    def _read(self, path: bytes) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            for _ in range(3):
                size = self._dice.choice((0, 1, 511, 4096, 1 << 20))
                offset = self._dice.choice((0, 1, 4095, 1 << 20, 2**31, 2**40, 2**63 - 1 - (1 << 20)))
                if offset > os.fstat(fd).st_size:
                    assert os.pread(fd, size, offset) == b""
                else:
                    os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def _write(self, path: bytes) -> None:
        fd = os.open(path, os.O_WRONLY | self._dice.choice((0, os.O_CREAT, os.O_APPEND, os.O_EXCL)))
        try:
            # never a whole message
            os.pwrite(fd, self._dice.choice((b"rubbish", b"{", b"\xff" * 99, b"]")), self._dice.choice((0, 7, 2**40)))
        finally:
            os.close(fd)

    def _truncate(self, path: bytes) -> None:
        os.truncate(path, self._dice.choice((1, 2**40)))

    def _rename(self, path: bytes) -> None:
        os.rename(path, path + b"x")

    def _link(self, path: bytes) -> None:
        os.symlink(b"/etc/passwd", path)

    def _xattr(self, path: bytes) -> None:
        os.setxattr(path, b"user.x", b"y")

    def _chmod(self, path: bytes) -> None:
        os.chmod(path, 0o777)

    def _make(self, path: bytes) -> None:
        os.mknod(path)


def _work(top: bytes, seed: int, count: int) -> tuple[Counter[str], float]:
    requests = Requests(top, seed)
    for _ in range(count):
        requests.one()
    return requests.answers, requests.longest


def resident(pid: int) -> int:
    """What a process has in memory, in MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) >> 10


def run(directory: Path, count: int, mode: str = "fast") -> list[str]:
    """Make a store and a mount in a directory, and send it so many requests; what there is to tell.

    Raises AssertionError.
    """
    store = directory / "store"
    store.mkdir()
    make_odd_kata(store, KATAS[0])
    path = make_kata(store, KATAS[1])
    for index in range(1, 4):
        add_event(path, index, files={"hiker.py": f"{index}\n" * 50})
    before = [git(store / kata[:2] / kata[2:4] / kata[4:], "for-each-ref") for kata in KATAS]
    mounted = Mount(store, directory / "mnt", mode, ())
    mounted.expected_log = "."
    mounted.start()
    try:
        descriptors = len(os.listdir(f"/proc/{mounted.pid}/fd"))
        grown, answers, longest = [resident(mounted.pid)], Counter[str](), 0.0
        start = time.monotonic()
        top = os.fsencode(mounted.path)
        with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
            for turn in range(ROUNDS):
                jobs = [(top, turn * WORKERS + worker, count // ROUNDS // WORKERS) for worker in range(WORKERS)]
                for found, took in pool.starmap_async(_work, jobs).get(600):
                    answers += found
                    longest = max(longest, took)
                grown.append(resident(mounted.pid))
        seconds = time.monotonic() - start
        assert mounted.process is not None
        assert mounted.process.poll() is None, "the daemon has ended"
        descriptors = len(os.listdir(f"/proc/{mounted.pid}/fd")) - descriptors
        total = sum(answers.values())
        told = [
            f"{mode}: {total} requests in {seconds:.1f} s ({total / seconds:.0f}/s), the longest {longest:.2f} s",
            "answers: " + ", ".join(f"{name} {number}" for name, number in answers.most_common()),
            f"memory of the daemon in MiB: {' '.join(map(str, grown))}; descriptors: {descriptors:+d}",
        ]
        assert grown[-1] - grown[ROUNDS // 4] <= MOST_GROWTH, "it grows"
        assert longest < MOST_SECONDS, "it hangs"
        assert "Traceback" not in mounted.log_text(), mounted.log_text()
        assert [git(store / kata[:2] / kata[2:4] / kata[4:], "for-each-ref") for kata in KATAS] == before
        return told
    finally:
        mounted.stop()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="katafs-hostile-") as name:
        for each in ("fast", "slower"):
            (Path(name) / each).mkdir()
            told = run(Path(name) / each, int(sys.argv[1]) if len(sys.argv) > 1 else 200_000, each)
            sys.stdout.write("\n".join(told) + "\n")
