"""Running in the background: the caller returns when the daemon is ready, or with the reason why it is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


def start(run: Callable[[Callable[[], None]], None]) -> str | None:
    """Run ``run(ready)`` in a new session, detached from the terminal.

    Returns None, in the parent, when the child calls ``ready``; or what it said when it ended before that. The child
    never returns. Must be called before any thread or event loop is started.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            told = pipe.read().decode("utf-8", "replace")
        return None if told.startswith("ready") else told or "the daemon ended without a word"
    os.close(reader)
    os.setsid()
    os.chdir("/")
    _detach()

    def tell(text: str) -> None:
        nonlocal writer
        if writer >= 0:
            os.write(writer, text.encode())
            os.close(writer)
            writer = -1

    status = 1
    try:
        run(lambda: tell("ready"))
        status = 0
    except BaseException as error:
        tell(str(error) or type(error).__name__)
    finally:
        os._exit(status)


def _detach() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
