"""Hosts that share a store by a network file system (`tests.hosts.engine`), and the katafs of each."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from katafs.engine.trust import file_system, keep_finding
from tests.mounts import DEADLINE, Mount, patience, wait_until


class Host:
    """One host: ``store`` is the directory ``shared`` as it sees it, ``mount`` its katafs; options are the engine's."""

    def __init__(self, shared: Path, directory: Path, **options: Any) -> None:
        self.store, self.shared, self._options = directory / "store", shared, options
        self.mount = Mount(self.store, directory / "mnt", "fast", ())
        self._engine: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        """Mount the file system; katafs is another matter."""
        self.store.mkdir(parents=True)
        command = [
            sys.executable,
            "-m",
            "tests.hosts.engine",
            *map(str, (self.shared, self.store, json.dumps(self._options))),
        ]
        self._engine = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        wait_until(lambda: os.path.ismount(self.store) or self._process.poll() is not None, "the engine")
        assert self._process.poll() is None
        return self

    def __exit__(self, *_: object) -> None:
        self.say("go")
        subprocess.run(["umount", "--lazy", self.store], check=False, capture_output=True)
        self.die()

    @property
    def _process(self) -> subprocess.Popen[str]:
        assert self._engine is not None
        return self._engine

    def say(self, *words: str) -> str:
        """Tell the engine something: its answer. Nothing where it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            print(*words, file=self._process.stdin, flush=True)
            return self._process.stdout.readline().strip()
        return ""

    def counts(self) -> dict[str, int]:
        """How many requests the engine has had, by kind."""
        counted: dict[str, int] = json.loads(self.say("counts"))
        return counted

    def is_hung(self) -> bool:
        """Whether it has come to the request that it was to hang at."""
        return self.say("is-hung") == "True"

    def die(self) -> None:
        """The host is cut off for good: nobody answers any more."""
        self._process.kill()
        self._process.wait(patience(DEADLINE))
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def two_hosts(directory: Path, **options: Any) -> Iterator[tuple[Host, Host]]:
    """Two hosts, below a directory; of the second one all chances are others."""
    shared = directory / "shared"
    shared.mkdir()
    first = Host(shared, directory / "a", seed=1, **options)
    second = Host(shared, directory / "b", seed=2, **options)
    with first, second:
        # as after a probe, which takes longer
        keep_finding(first.store, [asdict(file_system(host.store)) for host in (first, second)], 0)
        yield first, second
