"""Commands for mounts: ``mount``, ``umount``."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from katafs import background
from katafs.cli.common import PATH, fail
from katafs.fuse import mounting

log = logging.getLogger(__name__)

_LEVELS = ["debug", "info", "warning", "error"]


def _check_owner(_ctx: click.Context, _param: click.Parameter, value: int | None) -> int | None:
    if value is not None and not 0 <= value < 2**32 - 1:
        raise click.BadParameter(f"{value} is not the number of a user or group.")
    return value


@click.command()
@click.argument("store", type=PATH)
@click.argument("mountpoint", type=PATH)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option("-r", "--read-only", is_flag=True, help="Nothing can be written (EROFS).")
@click.option("--allow-other", is_flag=True, help="Other users may use the mount, as owners and modes allow.")
@click.option("--uid", type=int, callback=_check_owner, help="Show this user as the owner of everything.")
@click.option("--gid", type=int, callback=_check_owner, help="Show this group as the group of everything.")
@click.option("--no-fast-open", is_flag=True, help="Let the kernel ask before each open: slower, seldom needed.")
@click.option("--log-file", type=PATH, help="Log to this file [default: syslog, or standard error with -f].")
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
        fail(str(error), error.exit_status)
    problem = background.start(partial(_serve, options, log_to))
    if problem is not None:
        fail(problem)


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


@click.command()
@click.argument("mountpoint", type=PATH)
def umount(mountpoint: Path) -> None:
    """End the mount on MOUNTPOINT, also one whose daemon has died."""
    try:
        mounting.unmount(mountpoint)
    except mounting.MountError as error:
        fail(str(error), error.exit_status)
