"""JuiceFS with its metadata in sqlite3 and its data in a directory, and two clients of it: two hosts."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import unavailable
from tests.engines.client import Client, Hosts, running

PROGRAM = Path(__file__).resolve().parents[2] / ".venv-engines/bin/juicefs"
#: the names of files are fresh, what is said of directories may be a second old
_SECONDS = {"attr": 1, "dir-entry": 1, "entry": 0, "negative-entry": 0, "open": 0}
SAFE = (*(f"--{name}-cache={seconds}" for name, seconds in _SECONDS.items()), "--skip-dir-mtime=0")
WITHOUT_CACHES = (*SAFE, "--attr-cache=0", "--dir-entry-cache=0")


class JuiceClient(Client):
    """A client; it has no network that could be cut, but it can be stopped."""

    def __init__(self, directory: Path, name: str, options: tuple[str, ...]) -> None:
        super().__init__(directory, name)
        self._metadata, self._options = f"sqlite3://{directory}/meta.db", options

    def command(self) -> list[str]:
        # of a host that has died the others are told after five times the heartbeat
        command: list[object] = [PROGRAM, "mount", "--no-usage-report", "--heartbeat", "2s", "--backup-meta", "0"]
        command += ["--cache-dir", f"{self.path}-cache", "--log", f"{self.path}.log", *self._options]
        return [*map(str, command), self._metadata, str(self.path)]


@contextlib.contextmanager
def juicefs(directory: Path, options: tuple[str, ...] = SAFE) -> Iterator[Hosts]:
    """Two clients of a new JuiceFS in a directory."""
    if not PROGRAM.exists():
        unavailable("JuiceFS is not installed: tests/run --engines does that")
    data, metadata = f"{directory}/data/", f"sqlite3://{directory}/meta.db"
    command = [str(PROGRAM), "format", "--storage", "file", "--bucket", data, metadata, "katas"]
    subprocess.run(command, check=True, capture_output=True)
    with running(*(JuiceClient(directory, name, options) for name in "ab")) as both:
        yield both
