"""Pages are made in other processes, with limits (`katafs.process.pool`).

Highlighting runs regular expressions over what a kata holds. Some take for ever on a text made for that, and hold
the GIL meanwhile: in the daemon itself they would stop every mount request. A process can be ended. What needs the
libraries is imported there alone, so that the daemon does without them. Whoever looks at a page looks at the next one,
which has most of the same files: a process stays, and has their lines.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple, cast

from katafs.errors import DamagedError, KataError, StorageError, TooLargeError
from katafs.git import Oid
from katafs.kata.groups import Group
from katafs.kata.reader import Past
from katafs.process.pool import Limits, Pool

# for one page in seconds; then it is made again without highlighting, in as many
_LIMITS = Limits(file=0, processor_seconds=0, seconds=8.0, nice=0)
#: as many as pages are made at a time; somebody waits for each
workers = Pool(2, (__name__,), _LIMITS)


class Page(NamedTuple):
    """A page that is wanted: of the step from event ``was`` to ``now``, with the lights of the events around it up to
    event ``end``; of the history up to that when the others are -1."""

    path: Path
    kata_id: str
    tip: Oid
    was: int = -1
    now: int = -1
    end: int = -1


def render(page: Page) -> bytes:
    """The bytes of a page. To be called in a worker thread. Raises `KataError` (EIO) when it cannot be made."""
    try:
        return cast(bytes, workers.do(page.kata_id, _make, page, True))
    except TooLargeError:
        pass
    try:
        return cast(bytes, workers.do(page.kata_id, _make, page, False))
    except TooLargeError as error:
        raise StorageError(f"{page.path}: {error}", errno.EIO) from error


def preload() -> Iterator[None]:
    """Have in memory what pages need, before workers are forked: one step after the other, in the fork server."""
    from katafs.html import class_page, pages  # noqa: PLC0415

    yield from pages.prepare()
    class_page.template()


def _make(_say: object, page: Page, highlight: bool) -> bytes:
    from katafs.html import pages  # noqa: PLC0415

    try:
        past = Past(page.path, page.kata_id, page.tip)
        if page.now < 0:
            return pages.index(past, page.end, highlight=highlight)
        return pages.step(past, page.was, page.now, page.end, highlight=highlight)
    except (KataError, RecursionError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error


def write_class_page(group: Group, file: BufferedRandom, directory: Path) -> None:
    """Write ``index.html`` of the group in a directory, in a process of its own."""
    from katafs.html.class_page import make  # noqa: PLC0415

    file.write(make(group, directory))
