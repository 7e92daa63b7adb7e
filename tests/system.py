"""A machine of its own for a test, as far as the file system goes: a shell in a private mount namespace, in which
``/etc``, ``/usr`` and ``/var`` can be written to and nobody else sees it, and ``/mnt`` and ``/srv`` are empty."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import unavailable
from tests.mounts import DEADLINE, CommandLine, command_line, patience

_SET_UP = """
    # copies of other tests' mounts would keep their daemons from ending
    umount --lazy --all --types fuse.katafs 2>/dev/null
    set -e
    mkdir -p /run/katafs
    mount -t tmpfs tmpfs /run/katafs
    mkdir "$1/over"
    mount -t tmpfs tmpfs "$1/over"
    for name in etc usr var; do
        mkdir -p "$1/over/$name/upper" "$1/over/$name/work"
        mount -t overlay overlay -o "lowerdir=/$name,upperdir=$1/over/$name/upper,workdir=$1/over/$name/work" "/$name"
    done
    for name in mnt srv; do mount -t tmpfs tmpfs "/$name"; done
    echo > /etc/fstab
    # what ./mount.sh has left on the real one
    rm -rf /var/lib/katafs /usr/local/bin/katafs /usr/sbin/mount.fuse.katafs /usr/sbin/mount.katafs
    rm -rf /usr/local/lib/systemd/system/katafs@.service /usr/local/share/man/man?/*katafs.?
    rm -rf /usr/local/share/bash-completion/completions/katafs /usr/local/share/zsh/site-functions/_katafs
    rm -rf /etc/fish/completions/katafs.fish
    shift
    cd
    exec "$@"
"""
_END = "\0"


class System:
    """The shell, which is a bash of root's. What it starts is ended with it."""

    def __init__(self, cli: CommandLine) -> None:
        scripts = os.path.dirname(sys.executable)
        environment = {**cli.environment, "PATH": f"{scripts}:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        environment |= {"HOME": str(cli.directory), "MANPAGER": "cat", "TZ": "UTC"}
        command = ["unshare", "--mount", "--propagation=private", "sh", "-c", _SET_UP, "sh", str(cli.directory)]
        self._shell = subprocess.Popen(
            [*command, "bash", "--norc", "--noprofile"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
        self.directory = cli.directory
        said = self.run("true")
        if self._shell.poll() is not None or said[0]:
            unavailable(f"no machine of its own for this test: {said[1]}")

    def run(self, command: str) -> tuple[int, str]:
        """Run a command: its exit status, and all that it printed. The shell stays: its directory, its variables."""
        assert self._shell.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.write(f"{{\n{command}\n}} </dev/null\nprintf '\\0%s\\0' $?\n".encode())
            self._shell.stdin.flush()
        said = self._read()
        output, end, status = said.removesuffix(_END).rpartition(_END)
        text = re.sub(r"^bash: line \d+: ", "bash: ", output if end else said, flags=re.MULTILINE)
        return (int(status), text) if end else (-1, text)

    def done(self, command: str) -> str:
        """Run a command, which must succeed: what it printed."""
        status, output = self.run(command)
        assert status == 0, f"{command}: {status}: {output}"
        return output

    def _read(self) -> str:
        assert self._shell.stdout is not None
        said = b""
        end = time.monotonic() + patience(3 * DEADLINE)
        while said.count(b"\0") < 2:
            ready, _, _ = select.select([self._shell.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no end: {said.decode()}"
            more = os.read(self._shell.stdout.fileno(), 1 << 16)
            if not more:
                break
            said += more
        return said.decode(errors="replace")

    def close(self) -> None:
        """End what is mounted, and the shell."""
        with contextlib.suppress(AssertionError):
            self.run("cd /; jobs -p | xargs -r kill; umount --lazy --all --types fuse.katafs")
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._shell.stdin.close()
        try:
            self._shell.wait(patience(DEADLINE))
        finally:
            self._shell.kill()
            self._shell.stdout.close()


@contextlib.contextmanager
def system() -> Iterator[System]:
    """A machine of its own. In its shell ``katafs`` is the command of the tests' environment."""
    if os.geteuid() != 0:
        unavailable("only root can have a machine of its own")
    with command_line() as cli:
        started = System(cli)
        try:
            yield started
        finally:
            started.close()


def have(*programs: str) -> None:
    """The programs that a test needs are there, or it is skipped (and fails where CI is)."""
    for program in programs:
        if not any(Path(directory, program).exists() for directory in os.environ["PATH"].split(":")):
            unavailable(f"there is no {program}")
