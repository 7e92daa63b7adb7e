"""Commands for stores: ``create``, ``demo``, ``probe``."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from katafs.cli.common import (
    DIRECTORY,
    command,
    drop_output,
    echo,
    fail,
    quiet,
    real_store,
    start_writing,
    unsafe_store,
    writable_store,
)

if TYPE_CHECKING:
    from katafs.engine.trials import Trial

_MAX_MANIFEST = 16 << 20


@command(
    ("katafs create /srv/katas < manifest.json", "prints an id, such as AbCdEf"),
    ("jq -n '{visible_files: {}}' | katafs create /srv/katas", "one without files"),
)
@click.argument("store", type=DIRECTORY)
@click.option(
    "--layout",
    type=click.Choice(["native", "saver"]),
    default="native",
    show_default=True,
    help="How it is stored: saver itself goes on with katas of its own layout alone.",
)
@unsafe_store
def create(store: Path, layout: str, unsafe_store: bool) -> None:
    """Make a kata in STORE from the manifest on standard input. Prints its id.

    The manifest is a JSON object with visible_files, as cyber-dojo's creator sends it:

    \b
    {"display_name": "Python, unittest", "exercise": "Fizz Buzz",
     "visible_files": {"hiker.py": {"content": "…"}, "cyber-dojo.sh": {…}}}
    """
    from katafs.kata.model.layouts import LAYOUTS
    from katafs.kata.record.create import create_kata, parse_manifest

    path = writable_store(store, unsafe_store=unsafe_store)
    try:
        data = sys.stdin.buffer.read(_MAX_MANIFEST + 1) if sys.stdin is not None else b""
        if not data:
            fail("there is no manifest on standard input")
        if len(data) > _MAX_MANIFEST:
            fail(f"the manifest is larger than {_MAX_MANIFEST >> 20} MiB")
        kata_id = create_kata(path, parse_manifest(data), layout=LAYOUTS[layout])
    except OSError as error:
        fail(f"standard input: {error.strerror}")
    if sys.stdout is None:
        fail(f"kata {kata_id} is made, but standard output is closed")
    try:
        click.echo(kata_id)
    except OSError as error:
        drop_output()
        fail(f"kata {kata_id} is made, but its id could not be printed: {error.strerror}")


@command(
    ("katafs demo /tmp/store", "then: katafs mount /tmp/store /mnt/katas"),
    ("katafs demo --groups /tmp/groups /tmp/store", "then: katafs mount -o groups=/tmp/groups …"),
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
    try:
        store.mkdir(parents=True)
        is_new = True
    except FileExistsError:
        is_new = False
    except OSError as error:
        fail(f"store {store}: {error.strerror}")
    try:
        for kata_id, what in make_demo(real_store(store), groups):
            if not quiet:
                echo(f"{kata_path(Path(), kata_id)}  {what}")
    finally:
        # nobody is to take what has not even begun for a store
        if is_new:
            with contextlib.suppress(OSError):
                store.rmdir()


@command(
    ("katafs probe /mnt/a /mnt/b", "two mounts of it on this host"),
    ("katafs probe /srv/katas host-b:/srv/katas", "with another host, by ssh"),
    statuses={0: "nothing that loses events was found", 1: "events can be lost, or it could not be tried"},
)
@click.argument("store_on_a", type=DIRECTORY)
@click.argument("store_on_b")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def probe(store_on_a: Path, store_on_b: str, as_json: bool) -> None:
    """Try what the file system of a store gives to two hosts.

    STORE_ON_A and STORE_ON_B are one store, as two hosts mount it: two mounts on this host, or one of another host,
    HOST:PATH, where ssh finds katafs. What is tried is in .katafs-probe/ at the root of the store, and removed. Takes
    some seconds, with a slow engine a minute. Of a file system that hosts share, what was found is kept in
    .katafs-probe.json there, for katafs mount.
    """
    from katafs.engine import side, trials, trust

    store = real_store(store_on_a, 2)
    is_here = side.is_path(store_on_b)
    other = str(real_store(DIRECTORY.convert(store_on_b, None, None), 2)) if is_here else store_on_b
    found: list[Trial] = []
    try:
        with side.probing(store, other) as (a, b):
            file_systems = [a.ask("about"), b.ask("about")]
            for trial in trials.probe(a, b):
                found.append(trial)
                if not as_json:
                    echo(_line(trial))
        status = int(any(trial.grade == trials.LOSES for trial in found))
        if not trust.FileSystem(**file_systems[0]).is_local:
            trust.keep_finding(store, file_systems, status)
    except KeyboardInterrupt:
        fail("interrupted; nothing is known")
    except side.SideError as error:
        fail(str(error), 2 if isinstance(error, side.WrongSidesError) else 1)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    if as_json:
        told = [asdict(trial) for trial in found]
        click.echo(json.dumps({"status": status, "file_systems": file_systems, "trials": told}, indent=2))
    else:
        echo("events can be lost" if status else "nothing that loses events was found")
    sys.exit(status)


def _line(trial: Trial) -> str:
    """A line of the table, and one with what it means."""
    grade = click.style(f"{trial.grade:<12}", fg={"right": "green", "slow": "yellow"}.get(trial.grade, "red"))
    return f"{grade}  {trial.name:<34}  {trial.found}" + (f"\n{'':48}  {trial.meaning}" if trial.meaning else "")


@click.command("probe-side", hidden=True)
@click.argument("store", type=DIRECTORY)
def probe_side(store: Path) -> None:
    from katafs.engine.work import serve

    serve(store, sys.stdin, sys.stdout)
