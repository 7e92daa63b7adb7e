"""Commands for stores: ``create``, ``demo``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from katafs.cli.common import DIRECTORY, Command, drop_output, echo, fail, quiet, real_store, start_writing
from katafs.errors import KataError

_MAX_MANIFEST = 16 << 20


@click.command(
    cls=Command,
    examples=[
        ("katafs create /srv/katas < manifest.json", "prints an id, such as AbCdEf"),
        ("jq -n '{visible_files: {}}' | katafs create /srv/katas", "one without files"),
    ],
)
@click.argument("store", type=DIRECTORY)
@click.option(
    "--layout",
    type=click.Choice(["native", "saver"]),
    default="native",
    show_default=True,
    help="How it is stored: saver itself goes on with katas of its own layout alone.",
)
def create(store: Path, layout: str) -> None:
    """Make a kata in STORE from the manifest on standard input. Prints its id.

    The manifest is a JSON object with visible_files, as cyber-dojo's creator sends it:

    \b
    {"display_name": "Python, unittest", "exercise": "Fizz Buzz",
     "visible_files": {"hiker.py": {"content": "…"}, "cyber-dojo.sh": {…}}}
    """
    from katafs.kata.model.layouts import LAYOUTS
    from katafs.kata.record.create import create_kata, parse_manifest

    start_writing()
    path = real_store(store)
    try:
        data = sys.stdin.buffer.read(_MAX_MANIFEST + 1) if sys.stdin is not None else b""
        if not data:
            fail("there is no manifest on standard input")
        if len(data) > _MAX_MANIFEST:
            fail(f"the manifest is larger than {_MAX_MANIFEST >> 20} MiB")
        kata_id = create_kata(path, parse_manifest(data), layout=LAYOUTS[layout])
    except KataError as error:
        fail(str(error))
    except OSError as error:
        fail(f"standard input: {error.strerror}")
    if sys.stdout is None:
        fail(f"kata {kata_id} is made, but standard output is closed")
    try:
        click.echo(kata_id)
    except OSError as error:
        drop_output()
        fail(f"kata {kata_id} is made, but its id could not be printed: {error.strerror}")


@click.command(
    cls=Command,
    examples=[
        ("katafs demo /tmp/store", "then: katafs mount /tmp/store /mnt/katas"),
        (
            "katafs demo --groups /tmp/groups /tmp/store",
            "then: katafs mount -o groups=/tmp/groups …",
        ),
    ],
)
@click.argument("store", type=DIRECTORY)
@click.option("--groups", type=DIRECTORY, help="Make a class, too: its katas in STORE, its group in this directory.")
@quiet
def demo(store: Path, groups: Path | None, quiet: bool) -> None:
    """Make a store with a few katas to look at.

    They are the same every time. STORE is made if it is not there; what is in it stays as it is.
    """
    from katafs.demo import make_demo
    from katafs.kata.model.ids import kata_path

    start_writing()
    is_new = False
    try:
        store.mkdir(parents=True)
        is_new = True
    except FileExistsError:
        pass
    except OSError as error:
        fail(f"store {store}: {error.strerror}")
    try:
        for kata_id, what in make_demo(real_store(store), groups):
            if not quiet:
                echo(f"{kata_path(Path(), kata_id)}  {what}")
    except KataError as error:
        fail(str(error))
    finally:
        # nobody is to take what has not even begun for a store
        if is_new:
            with contextlib.suppress(OSError):
                store.rmdir()
