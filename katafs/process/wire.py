"""What a process and its fork server say to one another.

The fork server begins with the state of its code (`CODE`). For each piece of work it is sent the names of modules, and
with them two or three descriptors:

* the socket of the worker: the work comes in, the answer goes out, as those of a `multiprocessing.connection`;
* a socket on which the fork server says, as `ENDED`, how the worker ended. When the other side closes it first, nobody
  waits for the worker any more, and it is killed;
* the file for the result, where there is one.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from pathlib import Path

#: `EXITED` and the exit status (negative: the signal), or `NOT_STARTED` and the errno
ENDED = struct.Struct(">ii")
EXITED, NOT_STARTED = 0, 1
#: bytes of a message to the fork server, or from it
MESSAGE = 4096

_PACKAGE = Path(__file__).resolve().parent.parent


def state_of_code() -> bytes:
    """Other bytes when katafs has been installed anew; 2 ms."""
    digest = blake2b(digest_size=16)
    for path in sorted(_PACKAGE.rglob("*.py")):
        try:
            status = path.stat()
        except OSError:
            continue  # it was removed this moment
        digest.update(repr((path, status.st_size, status.st_mtime_ns)).encode("utf-8", "surrogateescape"))
    return digest.digest()


#: as it was when this process loaded it
CODE = state_of_code()
