"""A process that has imported what a mount needs, and forks for each, and for other commands: an interpreter and its
imports take 0.3 s of a processor, three times what the rest of a mount takes, and the tests mount some hundred times.

It imports neither pyfuse3 nor our C library, whose order is the mount's own business. Its environment is that of all
tests: where a test has set something, such as LD_PRELOAD, `is_usable` says no.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

_REQUEST = 1 << 16  # bytes
#: of all tests; empty, and no template is used, where these are not pytest's
ENVIRONMENT: dict[str, str] = {}


def is_usable() -> bool:
    """Whether a process that is started now would get what the template got."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} == ENVIRONMENT


def end() -> None:
    """At the end of the session."""
    if _template.cache_info().currsize:
        with _template().process as process:
            _template().control.close()
            process.wait(10)


class Forked:
    """``katafs ARGUMENT…``, forked from the template, with these as its standard streams: what tests use of a Popen."""

    def __init__(self, arguments: list[str], stdin: IO[bytes], output: IO[bytes], errors: IO[bytes]) -> None:
        self._ending, ending = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps([os.getcwd(), *arguments]).encode()
        files = [file.fileno() for file in (stdin, output, errors, ending)]
        socket.send_fds(_template().control, [request], files)
        ending.close()
        #: where whoever started it reads what it prints, if there is such a place
        self.stdout: IO[bytes] | None = None
        self.pid = int(self._ending.recv(64))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen.wait`."""
        if self.returncode is None:
            self._ending.settimeout(timeout)
            try:
                self.returncode = int(self._ending.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired("katafs", timeout or 0) from None
            self._ending.close()
        return self.returncode

    def poll(self) -> int | None:
        """As `subprocess.Popen.poll`."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """As `subprocess.Popen.send_signal`."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As `subprocess.Popen.kill`."""
        self.send_signal(signal.SIGKILL)


def start(arguments: list[str]) -> Forked:
    """With one pipe for output and errors."""
    reader, writer = os.pipe()
    with open(os.devnull, "rb") as null, open(writer, "wb") as output:
        forked = Forked(arguments, null, output, output)
    forked.stdout = open(reader, "rb")  # noqa: SIM115 - as Popen's
    return forked


def run(arguments: list[str], stdin: bytes, timeout: float) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run`."""
    with TemporaryFile() as given, TemporaryFile() as output, TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        forked = Forked(arguments, given, output, errors)
        try:
            status = forked.wait(timeout)
        except subprocess.TimeoutExpired:
            forked.kill()
            raise
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, status, output.read(), errors.read())


class _Template:
    """The template, as its user sees it."""

    def __init__(self) -> None:
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with control:
            # it ends when the socket is closed
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=control.fileno(),
                cwd=Path(__file__).parent.parent,
                env=ENVIRONMENT,
            )


@functools.cache
def _template() -> _Template:
    return _Template()


def _serve(control: socket.socket) -> list[str] | None:
    """Fork for each request: in the child the arguments of the command line, None at the end."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    # by its pidfd: a child, and where its exit status is told
    children: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for fd, _ in poll.poll():
            if fd in children:
                pid, ending = children.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                _tell(ending, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                ending.close()
                continue
            request, fds, _, _ = socket.recv_fds(control, _REQUEST, 4)
            if not request:
                return None
            *streams, last = fds
            ending = socket.socket(fileno=last)
            directory, *arguments = json.loads(request)
            pid = os.fork()
            if not pid:
                for known, (_, other) in children.items():
                    os.close(known)
                    other.close()
                ending.close()
                control.close()
                os.chdir(directory)
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                return arguments  # type: ignore[no-any-return]
            for stream in streams:
                os.close(stream)
            children[os.pidfd_open(pid)] = pid, ending
            poll.register(next(reversed(children)), select.POLLIN)
            _tell(ending, pid)


def _tell(ending: socket.socket, number: int) -> None:
    try:
        ending.send(b"%d" % number)
    except BrokenPipeError:
        pass  # the test is over


def _main() -> None:
    from katafs.cli import main
    from katafs.html.process import preload
    from katafs.mount import keeper

    del keeper
    # what its fork server loads
    for _ in preload():
        pass
    assert "pyfuse3" not in sys.modules
    gc.collect()
    gc.freeze()
    arguments = _serve(socket.socket(fileno=os.dup(0)))
    if arguments is not None:
        gc.unfreeze()
        main(arguments, prog_name="katafs")


if __name__ == "__main__":
    _main()
