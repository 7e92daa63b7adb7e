"""A katafs mount in a process of its own, and the means to be sure that it is gone afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE = 20.0


def wait_until(condition: Callable[[], object], what: str, seconds: float = DEADLINE) -> None:
    """Poll until ``condition()`` is true; fails the test when that takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.005)


def katafs(*arguments: object, stdin: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run the command line."""
    command = [sys.executable, "-m", "katafs", *map(str, arguments)]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
    assert not check or result.returncode == 0, result.stderr.decode()
    return result


class Mount:
    """``katafs mount --foreground`` of a store. ``path`` is where the tree is."""

    def __init__(self, store: Path, path: Path, mode: str, options: tuple[str, ...]) -> None:
        self.store, self.path, self.mode, self.options = store, path, mode, options
        self.log = path.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None
        #: set by a test that provokes errors on purpose: what may stand in the log
        self.expected_log = ""

    def start(self) -> None:
        """Mount, and wait until the tree can be read in the mode that was asked for."""
        self.path.mkdir(exist_ok=True)
        arguments = ["mount", "--foreground", "--log-file", self.log, *self.options]
        if self.mode != "fast":
            arguments.append("--no-fast-open")
        command = [sys.executable, "-m", "katafs", *map(str, arguments), str(self.store), str(self.path)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_until(lambda: self.is_ready() or self.process is None or self.process.poll() is not None, "the mount")
        assert self.process.poll() is None, f"{command}: {self._output()}"
        assert f"mode: {self.mode}" in self.log_text(), self.log_text()

    def is_ready(self) -> bool:
        """Whether the daemon has said so."""
        return " is mounted on " in self.log_text()

    def log_text(self) -> str:
        """All that the daemon has logged."""
        return self.log.read_text() if self.log.exists() else ""

    def kata(self, kata_id: str) -> Path:
        """A kata's directory in the mount."""
        return self.path / kata_id[:2] / kata_id[2:4] / kata_id[4:]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """End the daemon as a crash would; the mount stays, dead."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(DEADLINE)

    def stop(self) -> str:
        """Unmount and end the daemon by all means; what was wrong with it, if anything."""
        if self.process is None:
            return ""
        problems = []
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            problems.append(f"{self.path}: the daemon did not end at SIGTERM")
            self._abort()
            self.process.kill()
            self.process.wait(DEADLINE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        while _is_mounted(self.path):
            if subprocess.run(["umount", "-l", self.path], check=False, capture_output=True).returncode:
                problems.append(f"{self.path} could not be unmounted")
                break
        problems += self._unexpected_log()
        return "\n".join(problems)

    def _unexpected_log(self) -> list[str]:
        wrong = [line for line in self.log_text().splitlines() if re.search(r" (WARNING|ERROR|CRITICAL) ", line)]
        if self.expected_log:
            wrong = [line for line in wrong if not re.search(self.expected_log, line)]
        return [f"the daemon logged: {line}" for line in wrong]

    def _abort(self) -> None:
        """Cut the connection, so that a daemon that waits for itself can be ended."""
        device = os.minor(self.path.parent.stat().st_dev)
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split(" ")
            if fields[4] == str(self.path):
                device = int(fields[2].split(":")[1])
                Path(f"/sys/fs/fuse/connections/{device}/abort").write_text("1")

    def _output(self) -> str:
        assert self.process is not None
        output, _ = self.process.communicate(timeout=DEADLINE)
        return output.decode()


def _is_mounted(path: Path) -> bool:
    return any(line.split(" ")[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())
