"""JuiceFS with its metadata in sqlite3 and its data in a directory, and two clients of it: two hosts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import unavailable
from tests.mounts import DEADLINE, Mount, patience, wait_until

PROGRAM = Path(__file__).resolve().parents[2] / ".venv-engines/bin/juicefs"
#: the names of files are fresh, what is said of directories may be a second old
_SECONDS = {"attr": 1, "dir-entry": 1, "entry": 0, "negative-entry": 0, "open": 0}
SAFE = (*(f"--{name}-cache={seconds}" for name, seconds in _SECONDS.items()), "--skip-dir-mtime=0")
WITHOUT_CACHES = (*SAFE, "--attr-cache=0", "--dir-entry-cache=0")


class Client:
    """A client, mounted at ``path``, and the katafs of its host."""

    def __init__(self, engine: Path, name: str, options: tuple[str, ...]) -> None:
        self.path, self._engine, self._options = engine / f"client-{name}", engine, options
        self.store = self.path / "store"
        self.mount = Mount(self.store, engine / f"mnt-{name}", "fast", ())
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Mount, without katafs."""
        self.path.mkdir(exist_ok=True)
        # of a host that has died the others are told after five times the heartbeat
        command: list[object] = [PROGRAM, "mount", "--no-usage-report", "--heartbeat", "2s", "--backup-meta", "0"]
        command += ["--cache-dir", f"{self.path}-cache", "--log", f"{self.path}.log", *self._options]
        command += [f"sqlite3://{self._engine}/meta.db", self.path]
        self._process = subprocess.Popen(
            [*map(str, command)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        wait_until(lambda: os.path.ismount(self.path), "JuiceFS")
        self.store.mkdir(exist_ok=True)

    def die(self) -> None:
        """The host is dead: katafs and the client end this moment, and nothing is said to anybody."""
        assert self._process is not None
        # it may notice first
        self.mount.expected_log = "endpoint is not connected"
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(patience(DEADLINE))
        self.mount.kill()
        for path in (self.mount.path, self.path):
            subprocess.run(["umount", "--lazy", path], check=True)

    def stop(self) -> None:
        if self._process is not None:
            subprocess.run(["umount", "--lazy", self.path], check=False, capture_output=True)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience(DEADLINE))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextlib.contextmanager
def clients(engine: Path, options: tuple[str, ...]) -> Iterator[tuple[Client, Client]]:
    """Two clients of a new JuiceFS in a directory."""
    if not PROGRAM.exists():
        unavailable("JuiceFS is not installed: tests/run --engines does that")
    data, metadata = f"{engine}/data/", f"sqlite3://{engine}/meta.db"
    command = [str(PROGRAM), "format", "--storage", "file", "--bucket", data, metadata, "katas"]
    subprocess.run(command, check=True, capture_output=True)
    both = Client(engine, "a", options), Client(engine, "b", options)
    try:
        for one in both:
            one.start()
        yield both
    finally:
        for one in both:
            one.stop()
