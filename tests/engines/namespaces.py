"""Network namespaces: a server in one, hosts in others, and wires between them that can be cut. They have no names, and
end with whoever made them."""

from __future__ import annotations

import subprocess

#: of the server, and of the hosts
_ADDRESS = "10.95.0.{}"
SERVER = _ADDRESS.format(1)


class Namespace:
    """A network namespace that is held by a process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1)
        assert self._holder.stdout is not None
        # then it is there
        self._holder.stdout.readline()
        self.ip("link", "set", "lo", "up")

    def command(self, *command: object) -> list[str]:
        """A command, as it is run there."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *map(str, command)]

    def ip(self, *arguments: object) -> None:
        """Run ip(8)."""
        subprocess.run(self.command("ip", *arguments), check=True)

    def serve(self) -> None:
        """Be that of the server."""
        self.ip("link", "add", "hosts", "type", "bridge")
        self.ip("addr", "add", f"{SERVER}/24", "dev", "hosts")
        self.ip("link", "set", "hosts", "up")

    def add_host(self, number: int) -> Wire:
        """A host that is wired to this server; they are counted from 1."""
        return Wire(self, number)

    def end(self) -> None:
        self._holder.communicate()


class Wire(Namespace):
    """That of a host, and what connects it."""

    def __init__(self, server: Namespace, number: int) -> None:
        super().__init__()
        self._server, self._name = server, f"host{number}"
        server.ip("link", "add", self._name, "type", "veth", "peer", "eth0", "netns", self._holder.pid)
        server.ip("link", "set", self._name, "master", "hosts", "up")
        self.ip("addr", "add", f"{_ADDRESS.format(10 + number)}/24", "dev", "eth0")
        self.ip("link", "set", "eth0", "up")

    def cut(self) -> None:
        """Nothing gets through."""
        self._server.ip("link", "set", self._name, "down")

    def mend(self) -> None:
        """It does again."""
        self._server.ip("link", "set", self._name, "up")

    def end(self) -> None:
        # a client that is not gone yet keeps the other end
        self._server.ip("link", "del", self._name)
        super().end()
