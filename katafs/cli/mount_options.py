"""The options of mount(8), ``-o NAME,NAME=VALUE``: of any file system, and those of ``katafs mount`` by their names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import click

from katafs.cli.common import Command

# What mount(8), mount.fuse(8) and systemd.mount(5) let people write, and what has no effect here: it is for whoever
# reads fstab, it is so in any case (the mount is nosuid, nodev, noexec and noatime, the kernel checks permissions), or
# it means nothing for a file system without access times and delayed writes. user_id and the like are the kernel's
# own, which come back with a remount.
_FLAGS = """
    defaults auto noauto nofail _netdev user nouser users owner group suid nosuid dev nodev exec noexec
    atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime
    iversion noiversion sync async dirsync mand nomand silent loud default_permissions"""
_WITH_A_VALUE = "comment user uhelper helper subtype user_id group_id rootmode max_read blksize"
_WITHOUT_EFFECT, _VALUE_WITHOUT_EFFECT = frozenset(_FLAGS.split()), frozenset(_WITH_A_VALUE.split())
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
    """The arguments for ``command`` that say what `split` found. ``is_sloppy``: leave out what is unknown.

    Raises `click.UsageError`.
    """
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
            arguments.append(_argument(option, name, value))
        elif not _is_without_effect(name, value) and not is_sloppy:
            raise click.UsageError(_unknown(name, value, [*known, "ro", "rw", *_WITHOUT_EFFECT]))
    return [*arguments, "--read-only"] if is_read_only else arguments


def split(text: str) -> list[tuple[str, str | None]]:
    """Names and values. A value with a comma is in double quotes, as mount(8) has it."""
    options = []
    for item in re.findall(r'(?:[^,"]|"[^"]*"|")+', text):
        name, sign, value = item.partition("=")
        options.append((name, value.removeprefix('"').removesuffix('"') if sign else None))
    return options


def _argument(option: click.Option, name: str, value: str | None) -> str:
    if option.is_flag:
        if value is not None:
            raise click.UsageError(f"The mount option {name} takes no value.")
        return option.opts[-1]
    if value is None:
        raise click.UsageError(f"The mount option {name} needs a value: {name}=…")
    return f"{option.opts[-1]}={value}"


def _is_without_effect(name: str, value: str | None) -> bool:
    if name.startswith(("x-", "X-")):
        return True
    return name in (_WITHOUT_EFFECT if value is None else _VALUE_WITHOUT_EFFECT)


def _unknown(name: str, value: str | None, known: Sequence[str]) -> str:
    if value is not None and name in known:
        return f"The mount option {name} takes no value."
    if value is None and name in _VALUE_WITHOUT_EFFECT:
        return f"The mount option {name} needs a value: {name}=…"
    close = difflib.get_close_matches(name, known, 1)
    return f"There is no mount option {name!r}. " + (
        f"Did you mean {close[0]!r}?" if close else "man katafs lists them."
    )
