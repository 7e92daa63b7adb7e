"""Making a page, in a worker: see `katafs.html.process`."""

from __future__ import annotations

from functools import cache

from katafs.errors import DamagedError, KataError
from katafs.html.pages import Maker
from katafs.html.process import Page
from katafs.kata.read.past import Past


@cache
def maker() -> Maker:
    """The one of this process."""
    return Maker()


def make(page: Page, *, highlight: bool) -> bytes:
    """The bytes of a page. Raises `DamagedError`."""
    try:
        past = Past(page.path, page.kata_id, page.tip)
        if page.now < 0:
            return maker().index(past, highlight=highlight)
        return maker().step(past, page.was, page.now, page.end, highlight=highlight)
    except (KataError, MemoryError, RecursionError) as error:
        raise DamagedError(str(error) or type(error).__name__) from error
