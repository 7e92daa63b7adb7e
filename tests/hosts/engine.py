"""One host's client of a network file system, such as NFSv4 or JuiceFS: a directory, passed on with what they do to it.

``python -m tests.hosts.engine DIRECTORY MOUNTPOINT [JSON of the options]``; two of them are two hosts.
Directories' attributes and listings, and names that are not there, are up to a second old; names that are there, and
what open(2) finds, are fresh (close-to-open). There is no O_TMPFILE, flock(2) of a directory stays on its host, a file
that is only read cannot be locked for oneself, one that the other host has replaced is ESTALE or ENOENT for a while,
close(2) fails now and then though all is well, and all times are those of a clock that is ahead. With
``stale_entries`` names and files are stale, too: events are lost.

It speaks with the kernel itself, since pyfuse3 passes on no locks. On standard input it is told, each answered by a
line: ``counts`` (requests by kind, as JSON), ``hang`` (no request is carried out from now on), ``hang OPERATION NAME``
(from the next such request on, that included), ``expire`` (the server gives this host up: its locks are gone), ``go``,
``break NAME`` (what is called so cannot be read; nothing any more without a name).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
import threading
from typing import Any

from tests.hosts import wire
from tests.hosts.client import Client, Options
from tests.hosts.wire import Op

_LIBC = ctypes.CDLL(None, use_errno=True)


class Engine:
    """A client with its mount, and what it is told to do."""

    def __init__(self, root: str, mountpoint: str, options: Options) -> None:
        self._client = Client(root, options)
        self._device = os.open("/dev/fuse", os.O_RDWR)
        data = f"fd={self._device},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
        if _LIBC.mount(b"hosts", os.fsencode(mountpoint), options.kind.encode(), 0, data.encode()):
            raise OSError(ctypes.get_errno(), f"{mountpoint} cannot be mounted")
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._stops_at: tuple[str, bytes] | None = None

    def serve(self) -> None:
        """Answer until the file system is unmounted."""
        while True:
            try:
                request = os.read(self._device, (wire.PAGES + 1) * 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                return
            _, op, unique, node, uid, gid, *_ = wire.HEADER.unpack_from(request)
            body = request[wire.HEADER.size :]
            if self._stops_at and op == Op[self._stops_at[0]] and body.rstrip(b"\0").endswith(self._stops_at[1]):
                self._stops_at = None
                self._goes_on.clear()
            self._goes_on.wait()
            if op == Op.SETLKW:
                threading.Thread(target=self._reply, args=(op, unique, node, uid, gid, body), daemon=True).start()
            else:
                self._reply(op, unique, node, uid, gid, body)

    def _reply(self, op: int, unique: int, node: int, uid: int, gid: int, body: bytes) -> None:
        number, data = 0, b""
        try:
            data = _init(body) if op == Op.INIT else self._client.answer(op, node, uid, gid, body)
        except OSError as error:
            number = error.errno or errno.EIO
        if op not in wire.NO_REPLY:
            try:
                os.write(self._device, wire.REPLY.pack(wire.REPLY.size + len(data), -number, unique) + data)
            except OSError as error:
                # ENOENT: who asked was killed
                if error.errno != errno.ENOENT:
                    raise

    def obey(self) -> None:
        """Do what is said on standard input, until its end."""
        for line in sys.stdin:
            word, *more = line.split()
            said = ""
            if word == "counts":
                said = json.dumps(self._client.counts)
            elif word == "hang" and more:
                self._stops_at = more[0], more[1].encode()
            elif word == "hang":
                self._goes_on.clear()
            elif word == "break":
                self._client.broken = more[0].encode() if more else b""
            elif word == "expire":
                self._client.expire()
            elif word == "go":
                self._goes_on.set()
            elif word == "is-hung":
                said = str(not self._goes_on.is_set())
            os.write(sys.stdout.fileno(), f"{said}\n".encode())


def _init(body: bytes) -> bytes:
    flags = wire.BIG_WRITES | wire.LOCKS | wire.FLOCKS | wire.MAX_PAGES
    readahead = int.from_bytes(body[8:12], "little")
    return wire.INIT.pack(7, 31, readahead, flags, 16, 12, wire.PAGES * 4096, 1, wire.PAGES, 0, 0, 0)


def main() -> None:
    os.umask(0)
    root, mountpoint, *more = sys.argv[1:]
    options: dict[str, Any] = json.loads(more[0]) if more else {}
    engine = Engine(root, mountpoint, Options(**options))
    threading.Thread(target=engine.obey, daemon=True).start()
    engine.serve()


if __name__ == "__main__":
    main()
