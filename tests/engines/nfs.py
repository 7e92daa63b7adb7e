"""NFSv4.2 of the kernel: a server, and two clients in network namespaces of their own: two hosts.

All of it is of the whole machine, so this runs in a Linux in user mode only (`tests.engines.user_mode`).
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.engines.client import Client, Hosts, running, started
from tests.engines.namespaces import SERVER, Namespace

#: as docs/hosts.md asks for
_OPTIONS = "vers=4.2,hard,lookupcache=positive,acdirmin=0,acdirmax=1"
_EXPORTED = "rw,sync,no_root_squash,no_subtree_check,fsid=0,insecure"
_STATE = "/var/lib/nfs"
_PREPARE = f"""
mount -t tmpfs state {_STATE}
mkdir {_STATE}/v4recovery {_STATE}/rpc_pipefs {_STATE}/sm
touch {_STATE}/etab {_STATE}/rmtab
mount -t rpc_pipefs pipes {_STATE}/rpc_pipefs
mount -t nfsd nfsd /proc/fs/nfsd
for time in lease grace; do echo 10 >/proc/fs/nfsd/nfsv4${{time}}time; done
"""


def _run(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True)


class Here(Namespace):
    """The namespace that we are in, where nfsd is."""

    def __init__(self) -> None:
        pass

    def command(self, *command: object) -> list[str]:
        return [*map(str, command)]

    def end(self) -> None:
        self.ip("link", "del", "hosts")


class NfsClient(Client):
    """A client: the kernel's, in a namespace of its own."""

    stale = 1.0
    # the server looks for who is late as often as that, and tells who wants a lock to come again
    lease = 20.0

    def __init__(self, directory: Path, server: Namespace, number: int) -> None:
        super().__init__(directory, f"{number}")
        self._server, self._number = server, number
        self._wire = server.add_host(number)

    def start(self) -> None:
        self.path.mkdir(exist_ok=True)
        mount = 'hostname "$1"; exec mount.nfs4 "$2" "$3" -o "$4"'
        words = (f"host{self._number}", f"{SERVER}:/", self.path, _OPTIONS)
        _run(*self._wire.command("unshare", "--uts", "sh", "-ec", mount, "sh", *words))
        self.store.mkdir(exist_ok=True)

    def cut(self) -> None:
        self._wire.cut()

    def mend(self) -> None:
        self._wire.mend()

    def die(self) -> None:
        # who is killed ends when what it waits for has failed, and so has what it waits for as it ends
        is_dead = threading.Event()
        failing = threading.Thread(target=self._fail, args=(is_dead,))
        self.cut()
        failing.start()
        try:
            super().die()
        finally:
            is_dead.set()
            failing.join()
        # what the kernel has of the old client goes when it likes
        self._wire.end()
        self._wire = self._server.add_host(self._number)

    def _fail(self, is_dead: threading.Event) -> None:
        while not is_dead.wait(0.1):
            subprocess.run(["umount", "--force", self.path], check=False, capture_output=True)

    def stop(self) -> None:
        super().stop()
        self._wire.end()

    @contextlib.contextmanager
    def server_fault(self) -> Iterator[str]:
        _run("rpc.nfsd", 0)
        try:
            yield "the server is away"
        finally:
            _run("rpc.nfsd", "-N", 3, 8)


@contextlib.contextmanager
def nfs(directory: Path) -> Iterator[Hosts]:
    """Two clients of a new directory that is exported."""
    _run("sh", "-ec", _PREPARE)
    (directory / "exported").mkdir()
    server = Here()
    server.serve()
    mountd = started(["rpc.mountd", "--foreground"], directory / "mountd.log")
    try:
        _run("exportfs", "-i", "-o", _EXPORTED, f"*:{directory}/exported")
        _run("rpc.nfsd", "-N", 3, 8)
        with running(NfsClient(directory, server, 1), NfsClient(directory, server, 2)) as both:
            yield both
    finally:
        _run("rpc.nfsd", 0)
        mountd.kill()
        mountd.wait()
        server.end()
