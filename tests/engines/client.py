"""What the engines that hosts share have in common: a client is a host's view of the file system, and its katafs."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.mounts import DEADLINE, Mount, patience, wait_until


def started(command: Sequence[object], log: Path) -> subprocess.Popen[bytes]:
    """A program in a session of its own, that ends with the tests, even if those are killed."""
    words = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
    with open(log, "ab") as file:
        return subprocess.Popen(words, stdin=-3, stdout=file, stderr=file, start_new_session=True)


class Client:
    """A host: ``path`` is the file system as it sees it, ``mount`` its katafs of what is in ``store``."""

    #: seconds until the engine gives up a host that is not heard of
    lease = 10.0
    #: seconds for which a host may go on showing what another has changed, as docs/hosts.md has it mounted
    stale = 0.0

    def __init__(self, directory: Path, name: str) -> None:
        self.path = directory / f"client-{name}"
        self.store = self.path / "store"
        self.mount = Mount(self.store, directory / f"mnt-{name}", "fast", ())
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """What mounts the file system, and stays."""
        raise NotImplementedError

    def start(self) -> None:
        """Mount the file system; katafs is another matter."""
        self.path.mkdir(exist_ok=True)
        self._process = started(self.command(), self.path.with_suffix(".log"))
        wait_until(lambda: os.path.ismount(self.path), f"the mount of {self.path}", 60)
        self.store.mkdir(exist_ok=True)

    def cut(self) -> None:
        """The host is heard of no more."""
        self._signal(signal.SIGSTOP)

    def mend(self) -> None:
        """It is again."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def server_fault(self) -> Iterator[str]:
        """Meanwhile something is wrong with the server; yields what, and nothing where there is no server."""
        yield ""

    def kill_katafs(self) -> None:
        """The host's katafs is gone, and its mount with it; the engine's client is not."""
        self.mount.expected_log = "."
        self.mount.kill()
        subprocess.run(["umount", "--lazy", self.mount.path], check=True)

    def die(self) -> None:
        """The host is dead: all of it ends this moment, and nothing is said to anybody."""
        self.cut()
        self._end()
        self.kill_katafs()
        subprocess.run(["umount", "--lazy", "--force", self.path], check=False, capture_output=True)

    def come_back(self) -> None:
        """What is not there is started again."""
        self.mend()
        if not os.path.ismount(self.path):
            self.start()
        self.mount.stop()
        self.mount.log.unlink()
        self.mount.start()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self._process is not None:
                os.killpg(self._process.pid, number)

    def _end(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(patience(DEADLINE))

    def stop(self) -> None:
        """The end of it all."""
        self.mend()
        subprocess.run(["umount", "--lazy", self.path], check=False, capture_output=True)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience(DEADLINE))
        self._end()


Hosts = tuple[Client, Client]
#: two hosts on a new file system, for which there is a directory
Engine = Callable[[Path], contextlib.AbstractContextManager[Hosts]]


@contextlib.contextmanager
def running(one: Client, other: Client) -> Iterator[Hosts]:
    """Both, with the file system mounted."""
    with contextlib.ExitStack() as ending:
        for client in (one, other):
            ending.callback(client.stop)
            client.start()
        yield one, other
