"""The command line."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from katafs import __version__, background
from katafs.demo import make_demo
from katafs.errors import KataError
from katafs.fuse import mounting, session
from katafs.kata.create import create_kata, parse_manifest

log = logging.getLogger(__name__)

_LEVELS = ["debug", "info", "warning", "error"]
_DIRECTORY = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="katafs")
def main() -> None:
    """Show cyber-dojo katas, stored as git repositories, as plain files.

    \b
    katafs demo /tmp/store                  a store to try
    katafs mount /tmp/store /mnt/katas      then: ls /mnt/katas
    katafs umount /mnt/katas

    Exit status: 0 done, 1 it could not be done, 2 the command line is wrong.
    """


@main.command()
@click.argument("store", type=_DIRECTORY)
@click.argument("mountpoint", type=_DIRECTORY)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option("-r", "--read-only", is_flag=True, help="Nothing can be written (EROFS).")
@click.option("--allow-other", is_flag=True, help="Other users may use the mount, as owners and modes allow.")
@click.option("--uid", type=click.IntRange(min=0), help="Show this user as the owner of everything.")
@click.option("--gid", type=click.IntRange(min=0), help="Show this group as the group of everything.")
@click.option("--no-fast-open", is_flag=True, help="Let the kernel ask before each open: slower, seldom needed.")
@click.option("--log-file", type=_DIRECTORY, help="Log to this file [default: syslog, or standard error with -f].")
@click.option("--log-level", type=click.Choice(_LEVELS), default="info", show_default=True)
def mount(
    store: Path,
    mountpoint: Path,
    foreground: bool,
    read_only: bool,
    allow_other: bool,
    uid: int | None,
    gid: int | None,
    no_fast_open: bool,
    log_file: Path | None,
    log_level: str,
) -> None:
    """Mount STORE on MOUNTPOINT; returns when the tree is ready."""
    wanted = session.MountOptions(store, mountpoint, read_only, allow_other, not no_fast_open, uid, gid)
    try:
        options = mounting.check(wanted)
    except session.MountError as error:
        _fail(str(error), 2 if "contain one another" in str(error) else 1)
    start_log = partial(_start_log, log_file and Path(os.path.abspath(log_file)), log_level)
    if foreground:
        try:
            _serve(options, partial(start_log, foreground=True), lambda: None)
        except session.MountError as error:
            _fail(str(error))
        return
    told = background.start(partial(_serve, options, partial(start_log, foreground=False)))
    if told is not None:
        _fail(told)


def _serve(options: session.MountOptions, start_log: Callable[[], None], ready: Callable[[], None]) -> None:
    """Log, mount and serve. Raises `MountError`; anything else is in the log."""
    try:
        start_log()
    except OSError as error:
        raise session.MountError(f"the log cannot be written: {error}") from error
    try:
        session.serve(options, ready)
    except session.MountError as error:
        log.error("%s", error)
        raise
    except Exception:
        log.exception("the daemon ends")
        raise


def _start_log(path: Path | None, level: str, *, foreground: bool) -> None:
    handler: logging.Handler
    text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    if path is not None:
        handler = logging.FileHandler(path)
    elif foreground:
        handler = logging.StreamHandler()
    elif Path("/dev/log").exists():
        handler = logging.handlers.SysLogHandler("/dev/log")
        text = "katafs[%(process)d]: %(levelname)s %(name)s: %(message)s"
    else:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter(text))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())


@main.command()
@click.argument("mountpoint", type=_DIRECTORY)
def umount(mountpoint: Path) -> None:
    """End the mount on MOUNTPOINT, also one whose daemon has died."""
    try:
        mounting.unmount(mountpoint)
    except session.MountError as error:
        _fail(str(error))


@main.command()
@click.argument("store", type=_DIRECTORY)
def create(store: Path) -> None:
    """Make a kata in STORE from the manifest on standard input; print its id.

    \b
    The manifest is a JSON object with visible_files, as cyber-dojo's creator sends it:
    {"display_name": "Python, unittest", "exercise": "Fizz Buzz",
     "visible_files": {"hiker.py": {"content": "…"}, "cyber-dojo.sh": {"content": "…"}}}
    """
    _need_store(store)
    try:
        click.echo(create_kata(store.resolve(), parse_manifest(sys.stdin.buffer.read())))
    except KataError as error:
        _fail(str(error))


@main.command()
@click.argument("store", type=_DIRECTORY)
def demo(store: Path) -> None:
    """Make a store with a few katas to look at, the same ones every time. STORE is made if it is not there."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        for kata_id, what in make_demo(store.resolve()):
            click.echo(f"{kata_id[:2]}/{kata_id[2:4]}/{kata_id[4:]}  {what}")
    except OSError as error:
        _fail(f"store {store}: {error.strerror}")
    except KataError as error:
        _fail(str(error))


def _need_store(store: Path) -> None:
    if not store.is_dir():
        _fail(f"store {store} does not exist")


def _fail(message: str, status: int = 1) -> None:
    click.echo(f"katafs: {message}", err=True)
    sys.exit(status)
