"""Pages are made in another process, with limits (`katafs.process`).

Highlighting runs regular expressions over what a kata holds. Some take for ever on a text made for that, and hold
the GIL meanwhile: in the daemon itself they would stop every mount request. A process can be ended. What needs the
libraries is imported there alone, so that the daemon does without them.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple, cast

from katafs import process
from katafs.errors import DamagedError, KataError, StorageError, TooLargeError
from katafs.git import Oid
from katafs.kata.groups import Group
from katafs.kata.reader import Past

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
    from katafs.html import class_page, pages  # noqa: PLC0415

    yield from pages.prepare()
    class_page.template()


def _make(_file: None, page: Page, highlight: bool) -> bytes:
    from katafs.html import pages  # noqa: PLC0415

    try:
        past = Past(page.path, page.kata_id, page.tip)
        if page.now < 0:
            return pages.index(past, highlight=highlight)
        return pages.step(past, page.was, page.now, page.end, highlight=highlight)
    except (KataError, MemoryError, RecursionError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error


def write_class_page(group: Group, file: BufferedRandom, directory: Path) -> None:
    """Write ``index.html`` of the group in a directory, in a process of its own."""
    from katafs.html.class_page import make  # noqa: PLC0415

    file.write(make(group, directory))
