"""CephFS from Debian's packages: a server in a network namespace, and two clients in others: two hosts."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import unavailable
from tests.engines.client import Client, Hosts, running, started
from tests.engines.namespaces import SERVER, Namespace
from tests.mounts import patience, wait_until

PROGRAMS = ("ceph", "ceph-mon", "ceph-mgr", "ceph-mds", "ceph-osd", "monmaptool", "ceph-fuse", "ip", "nsenter")
_MONITOR = f"[v2:{SERVER}:3300,v1:{SERVER}:6789]"
# as small as it runs, without keys, and with the tick that docs/hosts.md asks for
_CONFIGURATION = """
[global]
fsid = {fsid}
mon host = {monitor}
public network = 10.95.0.0/24
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 2
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
run dir = {directory}
admin socket = {directory}/$name.$pid.asok
log file = {directory}/$name.log
pid file =
mon data = {directory}/mon
mgr data = {directory}/mgr
mgr initial modules =
mds data = {directory}/mds
mds tick interval = 0.2
osd data = {directory}/osd$id
bluestore block size = 2147483648
osd memory target = 939524096
osd heartbeat grace = 6
mon osd min down reporters = 1
"""


class Server:
    """A monitor, a manager, a metadata server, and two that hold objects, each of which has all."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.configuration = directory, directory / "ceph.conf"
        self.namespace = Namespace()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, program: str, *arguments: object) -> str:
        command = self.namespace.command(program, "-c", self.configuration, *arguments)
        done = subprocess.run(command, capture_output=True, timeout=patience(60), check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.decode()

    def start(self) -> None:
        fsid = uuid.uuid4()
        for name in ("mon", "mgr", "mds", "osd0", "osd1"):
            (self.directory / name).mkdir()
        self.configuration.write_text(_CONFIGURATION.format(directory=self.directory, fsid=fsid, monitor=_MONITOR))
        self.namespace.serve()
        table = self.directory / "monmap"
        command = ["monmaptool", "--create", "--fsid", f"{fsid}", "--addv", "a", _MONITOR, f"{table}"]
        subprocess.run(command, check=True, capture_output=True)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", table)
        self.daemon("ceph-mon", "a")
        self.daemon("ceph-mgr", "x")
        for number in (0, 1):
            key = uuid.uuid4()
            self.run("ceph", "osd", "new", key, number)
            self.run("ceph-osd", "-i", number, "--mkfs", "--osd-uuid", key)
            self.daemon("ceph-osd", number)
        for pool in ("metadata", "data"):
            self.run("ceph", "osd", "pool", "create", pool, 4)
        self.run("ceph", "fs", "new", "katas", "metadata", "data")
        self.daemon("ceph-mds", "m")
        wait_until(lambda: "up:active" in self.run("ceph", "mds", "stat"), "the metadata server", 60)

    def daemon(self, program: str, name: object) -> None:
        command = self.namespace.command(program, "-f", "-c", self.configuration, "-i", name)
        self._processes[f"{program} {name}"] = started(command, self.directory / f"{program}-{name}.err")

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def end(self) -> None:
        for name in [*self._processes][::-1]:
            self.kill(name)
        self.namespace.end()


class CephClient(Client):
    """A client: ceph-fuse, in a namespace of its own."""

    lease = 60.0

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(server.directory, f"{number}")
        self._server, self._wire = server, server.namespace.add_host(number)
        self.cut, self.mend = self._wire.cut, self._wire.mend  # type: ignore[method-assign]

    def command(self) -> list[str]:
        return self._wire.command("ceph-fuse", "-f", "-c", self._server.configuration, self.path)

    def stop(self) -> None:
        super().stop()
        self._wire.end()

    @contextlib.contextmanager
    def server_fault(self) -> Iterator[str]:
        """One of the two that hold objects is killed, and comes back."""
        self._server.kill("ceph-osd 1")
        try:
            yield "an osd is dead"
        finally:
            self._server.daemon("ceph-osd", 1)


@contextlib.contextmanager
def cephfs(directory: Path) -> Iterator[Hosts]:
    """Two clients of a new CephFS in a directory."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        unavailable(f"CephFS is not installed, there is no {', '.join(missing)}: tests/run --engines --slow does that")
    server = Server(directory)
    try:
        server.start()
        with running(CephClient(server, 1), CephClient(server, 2)) as both:
            yield both
    finally:
        server.end()
