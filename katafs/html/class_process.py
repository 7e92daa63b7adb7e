"""The page of a class is made in another process, as those of a kata are (`katafs.html.process`)."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

from katafs.kata.groups import Group


def preload() -> Iterator[None]:
    """Have in memory what the page needs, before workers are forked."""
    from katafs.html import class_page  # noqa: PLC0415 - as below

    class_page.template()
    yield


def write_page(group: Group, file: BufferedRandom, directory: Path) -> None:
    """Write ``index.html`` of the group in a directory."""
    # here, so that the daemon itself does without the libraries
    from katafs.html import class_page  # noqa: PLC0415

    file.write(class_page.make(group, directory))
