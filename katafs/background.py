"""Running in the background: the caller returns when the daemon is ready, or with the reason why it is not."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
from collections.abc import Callable
from functools import partial

_READY = b"ready"


def start(run: Callable[[Callable[[], None]], None]) -> str | None:
    """Run ``run(ready)`` in a new session, detached from the terminal and from every file that is open.

    Returns None, in the parent, when the child calls ``ready``; or why it ended before that: the text of the exception
    it ended with. The child never returns. ``ready`` raises BrokenPipeError when the parent has gone. Must be called
    before any thread or event loop is started.
    """
    open_standard_streams()
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return _outcome(reader, child)
    status = 1
    # our parent, which waits to be told one thing
    parent = io.FileIO(writer, "w")

    def tell(what: bytes) -> None:
        if not parent.closed:
            with parent:
                parent.write(what)

    # whoever we fork is not to keep it open: our parent waits for its end
    os.register_at_fork(after_in_child=parent.close)
    try:
        os.setsid()
        os.chdir("/")
        _detach(writer)
        run(partial(tell, _READY))
        status = 0
    except BaseException as error:  # noqa: BLE001 - the process ends here; its parent is told why
        tell((str(error) or type(error).__name__).encode("utf-8", "surrogateescape"))
    finally:
        os._exit(status)


def open_standard_streams() -> None:
    """Open /dev/null for each of 0, 1 and 2 that is closed: no other file may get a number that output goes to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


def _outcome(reader: int, child: int) -> str | None:
    """What the child says, or what became of it."""
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    if told == _READY:
        return None
    if told:
        return told.decode("utf-8", "surrogateescape")
    # the pipe is closed and nothing was said: it has ended
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"the daemon ended before it was ready ({cause})"


def _detach(kept: int) -> None:
    """Let go of what the caller has open, its pipes and locks as well; standard streams become /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != kept:
            try:
                os.close(fd)
            except OSError:
                pass  # the listing's own


def tell_supervisor(state: str) -> None:
    """Tell systemd, or whoever started us and listens, such as ``READY=1``: one datagram to the socket that
    ``NOTIFY_SOCKET`` names (sd_notify(3)). Nothing happens when nobody listens."""
    name = os.environ.get("NOTIFY_SOCKET", "")
    if name[:1] not in ("/", "@"):
        return
    # @: a name in the abstract name space
    address = os.fsencode(name) if name[0] == "/" else b"\0" + os.fsencode(name[1:])
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(state.encode(), socket.MSG_DONTWAIT, address)
