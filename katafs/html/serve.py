"""The process that makes pages: ``python -m katafs.html.serve``, started by `katafs.html.process`.

Requests come on standard input, a JSON object a line; answers go to standard output, each after its header. It ends
with its input, and when nothing was asked for some minutes.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
from pathlib import Path

from katafs.errors import KataError
from katafs.html.pages import Maker
from katafs.html.process import ERROR, HEADER, PAGE
from katafs.kata.past import Past

_IDLE = 300  # seconds
_MEMORY = 2 << 30  # bytes of address space
_LONGEST = 1 << 20  # bytes of a request


def main() -> None:
    """Answer until there is nothing to do."""
    # Ctrl-C at a terminal is for the daemon, with which this ends
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    maker = Maker()
    pending = b""
    while select.select([0], [], [], _IDLE)[0]:
        data = os.read(0, 1 << 16)
        if not data or len(pending) > _LONGEST:
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            kind, answer = _answer(maker, line)
            _write(HEADER.pack(kind, len(answer)) + answer)


def _answer(maker: Maker, line: bytes) -> tuple[bytes, bytes]:
    wanted = json.loads(line)
    try:
        past = Past(Path(wanted["path"]), wanted["kata_id"], bytes.fromhex(wanted["tip"]))
        if wanted["now"] < 0:
            return PAGE, maker.index(past)
        return PAGE, maker.step(past, wanted["was"], wanted["now"], wanted["end"], highlight=wanted["highlight"])
    except (KataError, MemoryError, RecursionError) as error:
        return ERROR, (str(error) or type(error).__name__).encode("utf-8", "replace")


def _write(data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(1, left) :]


if __name__ == "__main__":
    main()
