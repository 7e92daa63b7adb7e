"""Pages are made in another process, with limits (`katafs.process`).

Highlighting runs regular expressions over what a kata holds. Some take for ever on a text made for that, and hold
the GIL meanwhile: in the daemon itself they would stop every mount request. A process can be ended.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from katafs import process
from katafs.errors import StorageError, TooLargeError
from katafs.git import Oid

LIMIT = 8.0  # seconds for one page; then it is made again without highlighting, in as many


class Page(NamedTuple):
    """A page that is wanted: of the step from event ``was`` to ``now``, with the lights of the events around it up to
    event ``end``; of the whole history when they are -1."""

    path: Path
    kata_id: str
    tip: Oid
    was: int = -1
    now: int = -1
    end: int = -1


def render(page: Page) -> bytes:
    """The bytes of a page. To be called in a worker thread. Raises `KataError` (EIO) when it cannot be made."""
    try:
        return _render(page, highlight=True)
    except TooLargeError:
        pass
    try:
        return _render(page, highlight=False)
    except TooLargeError as error:
        raise StorageError(f"{page.path}: a page takes longer than {LIMIT:.0f} s", errno.EIO) from error


def _render(page: Page, *, highlight: bool) -> bytes:
    limits = process.Limits(seconds=LIMIT, nice=0)
    return cast(bytes, process.attempt(limits, None, _make, page, highlight))


def preload() -> Iterator[None]:
    """Have in memory what pages need, before workers are forked: one step after the other, in the fork server."""
    from katafs.html.serve import maker  # noqa: PLC0415 - as in `_make`

    yield from maker().prepare()


def _make(_file: None, page: Page, highlight: bool) -> bytes:
    # here, so that the daemon itself does without the libraries
    from katafs.html.serve import make  # noqa: PLC0415

    return make(page, highlight=highlight)
