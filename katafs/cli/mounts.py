"""Commands for mounts: ``mount``, ``umount``, ``reload``; and the options of mount(8), ``-o NAME,NAME=VALUE``: of any
file system, and those of ``katafs mount`` by their names."""

from __future__ import annotations

import difflib
import gc
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from katafs.cli.common import DIRECTORY, PATH, Command, command, echo, fail, quiet, say, verbose
from katafs.cli.logs import LEVELS, LogTo
from katafs.fuse import fastopen
from katafs.mount import child, mounting

log = logging.getLogger(__name__)

# What mount(8), mount.fuse(8) and systemd.mount(5) let people write, and what has no effect here: it is for whoever
# reads fstab, it is so in any case (the mount is nosuid, nodev, noexec and noatime, the kernel checks permissions), or
# it means nothing for a file system without access times and delayed writes. user_id and the like are the kernel's
# own, which come back with a remount.
_FLAGS = """
    defaults auto noauto nofail _netdev user nouser users owner group suid nosuid dev nodev exec noexec
    atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime
    iversion noiversion sync async dirsync mand nomand silent loud default_permissions
    comment uhelper helper subtype user_id group_id rootmode max_read blksize"""
_WITHOUT_EFFECT = frozenset(_FLAGS.split())
_OWNER = click.IntRange(0, 2**32 - 2)  # the last number means none
# options of the command that are none of a mount
_NOT_OF_A_MOUNT = ("foreground", "verbose", "quiet", "options", "help", "read_only")


class MountCommand(Command):
    """A command whose option ``options`` has names of its other options, as mount(8) writes them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        texts: Sequence[str] = given.get("options", ())
        return super().parse_args(ctx, [*to_arguments(self, split(",".join(texts))), *args])


def to_arguments(
    command: click.Command, options: Iterable[tuple[str, str | None]], *, is_sloppy: bool = False
) -> list[str]:
    """The arguments for ``command`` that say what `split` found. ``is_sloppy``: leave out what is unknown. Raises
    `click.UsageError`."""
    known = {
        name: param
        for param in command.params
        if isinstance(param, click.Option) and (name := param.name) and name not in _NOT_OF_A_MOUNT
    }
    arguments = []
    is_read_only = False
    for name, value in options:
        option = known.get(name.replace("-", "_"))
        if value is None and name in ("ro", "rw"):
            is_read_only = name == "ro"
        elif option is not None:
            # whether it takes a value says who parses them
            argument = option.opts[-1]
            arguments.append(argument if value is None and option.is_flag else f"{argument}={value or ''}")
        elif not (is_sloppy or name.startswith(("x-", "X-")) or name in _WITHOUT_EFFECT):
            close = difflib.get_close_matches(name, [*known, "ro", "rw", *_WITHOUT_EFFECT], 1)
            hint = f"Did you mean {close[0]!r}?" if close else "man katafs lists them."
            raise click.UsageError(f"There is no mount option {name!r}. {hint}")
    return [*arguments, "--read-only"] if is_read_only else arguments


def split(text: str) -> list[tuple[str, str | None]]:
    """Names and values. A value with a comma is in double quotes, as mount(8) has it."""
    options = []
    for item in re.findall(r'(?:[^,"]|"[^"]*"|")+', text):
        name, sign, value = item.partition("=")
        options.append((name, value.removeprefix('"').removesuffix('"') if sign else None))
    return options


@command(
    ("katafs mount /srv/katas /mnt/katas", "for the user who mounts"),
    ("katafs mount -o ro,allow_other /srv/katas /mnt/katas", "for all to read; as in fstab(5)"),
    ("katafs mount -f /srv/katas /mnt/katas", "see what it logs; Ctrl-C ends it"),
    cls=MountCommand,
)
@click.argument("store", type=DIRECTORY)
@click.argument("mountpoint", type=DIRECTORY)
@click.option(
    "-o",
    "options",
    multiple=True,
    expose_value=False,
    metavar="OPTIONS",
    help="Options as in fstab(5), with commas between: ro, noauto and the like, and those of this command, such as "
    "allow_other or uid=1000.",
)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option("-r", "--read-only", is_flag=True, help="Nothing can be written (EROFS).")
@click.option("--allow-other", is_flag=True, help="Other users may use the mount, as owners and modes allow.")
@click.option("--uid", type=_OWNER, help="Show this user as the owner of everything.")
@click.option("--gid", type=_OWNER, help="Show this group as the group of everything.")
@click.option(
    "--groups", type=DIRECTORY, help="Show the classes in this directory, cyber-dojo's groups, below .katafs/groups."
)
@click.option(
    "--xattr", is_flag=True, help="Give katas and events extended attributes: two requests more a file in ls -l."
)
@click.option("--no-fast-open", is_flag=True, help="Let the kernel ask before each open: slower, seldom needed.")
@click.option("--no-keep-alive", is_flag=True, help="Let the mount end with the daemon, however that ends.")
@click.option("--no-compact", is_flag=True, help="Do not pack katas anew when nobody writes to them.")
@click.option(
    "--compact-after",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="After how many quiet seconds to do so.",
)
@click.option("--unsafe-store", is_flag=True, help="Mount a store whose file system may lose events all the same.")
@click.option("--log-file", type=PATH, help="Log to this file [default: syslog, or standard error with -f].")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@verbose
@quiet
def mount(
    mountpoint: Path,
    foreground: bool,
    no_fast_open: bool,
    no_keep_alive: bool,
    no_compact: bool,
    compact_after: float,
    log_file: Path | None,
    log_level: str,
    verbose: bool,
    quiet: bool,
    **more: Any,
) -> None:
    """Mount STORE on MOUNTPOINT; returns when the tree is ready.

    MOUNTPOINT is an empty directory, or what a katafs that has died has left. SIGTERM or SIGINT ends the mount, as
    katafs umount does. As root, on Linux 6.9 or newer, the mount outlives a daemon that dies: another takes over.
    """
    # the daemon works in another directory
    log_to = LogTo(log_file and Path(os.path.abspath(log_file)), log_level, foreground)
    # all others are called as they are there
    more |= {"fast_open": not no_fast_open, "keep_alive": not no_keep_alive}
    wanted = mounting.MountOptions(mountpoint=mountpoint, compact_after=None if no_compact else compact_after, **more)
    if mounting.remove_dead(mountpoint) and not quiet:
        say(f"{mountpoint}: what a daemon that has died had left was removed")
    options = mounting.check(wanted)
    if foreground:
        _serve(options, log_to, lambda: None)
        return
    # before a fork: the daemon needs the library anyway, and says so in its log alone
    reason = fastopen.look().reason if options.fast_open else ""
    problem = child.start(partial(_serve, options, log_to))
    if problem is not None:
        fail(problem)
    if reason and not quiet:
        say(f"{options.mountpoint}: {fastopen.LOST}: {reason}")
    if verbose:
        echo(f"{options.store} is mounted on {options.mountpoint}")


def _serve(options: mounting.MountOptions, log_to: LogTo, ready: Callable[[], None]) -> None:
    """Log, mount and serve. Raises `MountError`; what nobody expects is in the log, with its traceback."""
    # Until the event loop begins: what is imported is no garbage, and to look for some was 7 % of a start.
    gc.disable()
    try:
        log_to.start()
    except OSError as error:
        raise mounting.MountError(f"log file {log_to.path}: {error.strerror}") from error
    from katafs.mount import keeper

    with _logging_failures(options.mountpoint, log_to):
        keeper.serve(options, ready, asdict(log_to))


@contextmanager
def _logging_failures(mountpoint: Path, log_to: LogTo) -> Iterator[None]:
    """Raises `MountError`, whatever fails; what is expected to fail is logged as a sentence."""
    try:
        yield
    except mounting.MountError as error:
        # what is logged to standard error would be said twice
        if not log_to.foreground or log_to.path is not None:
            log.error("%s", error)  # noqa: TRY400 - a sentence for a person, as on standard error
        raise
    except Exception as error:
        log.exception("the daemon ends")
        raise mounting.MountError(f"{mountpoint}: the daemon failed: {error!r}") from error


@command(
    ("katafs umount /mnt/katas", "what plain umount does, and who uses it if it is busy"),
    ("katafs umount --lazy /mnt/katas", "now, whoever uses it"),
)
@click.argument("mountpoint", type=DIRECTORY)
@click.option("-l", "--lazy", is_flag=True, help="Take it out of the tree at once; who uses it may finish.")
@verbose
def umount(mountpoint: Path, lazy: bool, verbose: bool) -> None:
    """End the mount on MOUNTPOINT, also one whose daemon has died.

    A mount that somebody uses stays, and a sentence says who that is. With --lazy it is gone for everybody else, and
    the daemon ends when the last user is done. Where another mount namespace, such as a container's, has the mount as
    well, the daemon goes on for it, and a sentence says whose that is.
    """
    elsewhere = mounting.unmount(mountpoint, lazy=lazy)
    if elsewhere:
        echo(elsewhere)
    elif verbose:
        echo(f"{mountpoint} is unmounted")


@command(("katafs reload /mnt/katas", "after an upgrade of the package"))
@click.argument("mountpoint", type=DIRECTORY)
@verbose
def reload(mountpoint: Path, verbose: bool) -> None:
    """Serve MOUNTPOINT with the code installed now.

    Clients notice nothing. Requests under way are finished, or done again by the new daemon. Returns when it
    serves. When the new code cannot be loaded all stays as it is.
    """
    from katafs.mount.resuming import reload_mount

    version = reload_mount(mountpoint)
    if verbose:
        echo(f"{mountpoint} is served by katafs {version}")


@click.command(cls=Command, hidden=True)
@click.argument("state", type=int)
@click.option("--check", is_flag=True)
def resume(state: int, check: bool) -> None:
    """What katafs executes itself with, for a reload: STATE is the number of an open file."""
    from katafs.mount import keeper, resuming

    told = resuming.read_state(state)
    log_to = LogTo(**told["again"])
    if check:
        resuming.check_code()
        return
    with suppress(OSError):
        log_to.start()
    with _logging_failures(told["options"].mountpoint, log_to):
        keeper.resume(told)
