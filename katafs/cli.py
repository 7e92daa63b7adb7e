"""The command line. What needs pyfuse3 or pygit2 is imported by the command that does: ``--help`` is to be quick."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from katafs import __version__, background
from katafs.errors import KataError
from katafs.fuse import mounting

log = logging.getLogger(__name__)

_LEVELS = ["debug", "info", "warning", "error"]
_MAX_MANIFEST = 16 << 20


class _PathType(click.Path):
    """A path. The empty one, which a variable that is not set leaves, is not the current directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


class _Commands(click.Group):
    """The commands; what the operating system refuses beside them, such as to print, is one sentence too."""

    def main(self, *args: Any, **more: Any) -> Any:
        try:
            return super().main(*args, **more)
        except OSError as error:
            _drop_output()
            _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))


def _check_owner(_ctx: click.Context, _param: click.Parameter, value: int | None) -> int | None:
    if value is not None and not 0 <= value < 2**32 - 1:
        raise click.BadParameter(f"{value} is not the number of a user or group.")
    return value


_PATH = _PathType(path_type=Path, readable=False)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="katafs")
def main() -> None:
    """Show cyber-dojo katas, stored as git repositories, as plain files.

    \b
    katafs demo /tmp/store                  a store to try
    katafs mount /tmp/store /mnt/katas      then: ls /mnt/katas
    katafs umount /mnt/katas

    Exit status: 0 done, 1 it could not be done, 2 the command line is wrong.
    """
    background.open_standard_streams()


@main.command()
@click.argument("store", type=_PATH)
@click.argument("mountpoint", type=_PATH)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option("-r", "--read-only", is_flag=True, help="Nothing can be written (EROFS).")
@click.option("--allow-other", is_flag=True, help="Other users may use the mount, as owners and modes allow.")
@click.option("--uid", type=int, callback=_check_owner, help="Show this user as the owner of everything.")
@click.option("--gid", type=int, callback=_check_owner, help="Show this group as the group of everything.")
@click.option("--no-fast-open", is_flag=True, help="Let the kernel ask before each open: slower, seldom needed.")
@click.option("--log-file", type=_PATH, help="Log to this file [default: syslog, or standard error with -f].")
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
    """Mount STORE on MOUNTPOINT; returns when the tree is ready.

    MOUNTPOINT is an empty directory. SIGTERM or SIGINT ends the daemon, as katafs umount does.
    """
    # the daemon works in another directory
    log_to = _LogTo(log_file and Path(os.path.abspath(log_file)), log_level, foreground)
    wanted = mounting.MountOptions(store, mountpoint, read_only, allow_other, not no_fast_open, uid, gid)
    try:
        options = mounting.check(wanted)
        if foreground:
            _serve(options, log_to, lambda: None)
            return
    except mounting.MountError as error:
        _fail(str(error), error.exit_status)
    problem = background.start(partial(_serve, options, log_to))
    if problem is not None:
        _fail(problem)


@dataclass(frozen=True)
class _LogTo:
    """Where the log goes."""

    path: Path | None
    level: str
    foreground: bool

    def start(self) -> None:
        """Raises OSError."""
        text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        handler: logging.Handler = logging.NullHandler()
        if self.path is not None:
            handler = logging.FileHandler(self.path, encoding="utf-8", errors="backslashreplace")
        elif self.foreground:
            handler = logging.StreamHandler()
        else:
            from logging.handlers import SysLogHandler

            try:
                handler = SysLogHandler("/dev/log", SysLogHandler.LOG_DAEMON)
                text = "katafs[%(process)d]: %(levelname)s %(name)s: %(message)s"
            except OSError:
                pass  # no syslog here
        handler.setFormatter(logging.Formatter(text))
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(self.level.upper())

    @property
    def is_seen(self) -> bool:
        """Whether the log and our own message go to the same place."""
        return self.foreground and self.path is None


def _serve(options: mounting.MountOptions, log_to: _LogTo, ready: Callable[[], None]) -> None:
    """Log, mount and serve. Raises `MountError`; what nobody expects is in the log, with its traceback."""
    try:
        log_to.start()
    except OSError as error:
        raise mounting.MountError(f"log file {log_to.path}: {error.strerror}") from error
    from katafs.fuse import session

    try:
        session.serve(options, ready)
    except mounting.MountError as error:
        if not log_to.is_seen:
            log.error("%s", error)  # noqa: TRY400 - a sentence for a person, as on standard error
        raise
    except Exception as error:
        log.exception("the daemon ends")
        raise mounting.MountError(f"{options.mountpoint}: the daemon failed: {error!r}") from error


@main.command()
@click.argument("mountpoint", type=_PATH)
def umount(mountpoint: Path) -> None:
    """End the mount on MOUNTPOINT, also one whose daemon has died."""
    try:
        mounting.unmount(mountpoint)
    except mounting.MountError as error:
        _fail(str(error), error.exit_status)


@main.command()
@click.argument("store", type=_PATH)
def create(store: Path) -> None:
    """Make a kata in STORE from the manifest on standard input. Prints its id.

    The manifest is a JSON object with visible_files, as cyber-dojo's creator sends it:

    \b
    {"display_name": "Python, unittest", "exercise": "Fizz Buzz",
     "visible_files": {"hiker.py": {"content": "…"}, "cyber-dojo.sh": {…}}}
    """
    from katafs.kata.create import create_kata, parse_manifest

    _start_writing()
    path = _real_store(store)
    try:
        data = sys.stdin.buffer.read(_MAX_MANIFEST + 1) if sys.stdin is not None else b""
        if not data:
            _fail("there is no manifest on standard input")
        if len(data) > _MAX_MANIFEST:
            _fail(f"the manifest is larger than {_MAX_MANIFEST >> 20} MiB")
        kata_id = create_kata(path, parse_manifest(data))
    except KataError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"standard input: {error.strerror}")
    if sys.stdout is None:
        _fail(f"kata {kata_id} is made, but standard output is closed")
    try:
        click.echo(kata_id)
    except OSError as error:
        _drop_output()
        _fail(f"kata {kata_id} is made, but its id could not be printed: {error.strerror}")


@main.command()
@click.argument("store", type=_PATH)
def demo(store: Path) -> None:
    """Make a store with a few katas to look at.

    They are the same every time. STORE is made if it is not there; what is in it stays as it is.
    """
    from katafs.demo import make_demo

    _start_writing()
    try:
        store.mkdir(parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        _fail(f"store {store}: {error.strerror}")
    try:
        made = list(make_demo(_real_store(store)))
    except KataError as error:
        _fail(str(error))
    for kata_id, what in made:
        click.echo(f"{kata_id[:2]}/{kata_id[2:4]}/{kata_id[4:]}  {what}")


def _start_writing() -> None:
    # what is written to a store is for other services too, whatever the shell of the operator says
    os.umask(0o022)
    # SIGTERM cleans up, as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _real_store(store: Path) -> Path:
    try:
        path = mounting.real_directory(store, "store")
    except mounting.MountError as error:
        _fail(str(error))
    if mounting.is_mounted(path):
        _fail(f"{store} is a mount, not a store")
    return path


def _drop_output() -> None:
    """Forget what could not be printed; Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _fail(message: str, status: int = 1) -> NoReturn:
    click.echo(f"katafs: {message}", err=True)
    sys.exit(status)
