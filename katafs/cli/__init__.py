"""The command line. What needs pyfuse3 or pygit2 is imported by the command that does: ``--help`` is to be quick."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import click

from katafs import __version__
from katafs.cli import batches, fsck, installing, looking, mounts, status, stores
from katafs.cli.common import STATUSES, LineFormatter, drop_output, fail, teach
from katafs.mount import child
from katafs.text import visible

_EXAMPLES = [
    ("katafs demo /tmp/store", "a store to try"),
    ("katafs mount /tmp/store /mnt/katas", "then: ls /mnt/katas"),
    ("katafs log /mnt/katas/Py/Fz/Bz", "the history of a kata"),
    ("katafs umount /mnt/katas", "the end of it"),
]


class _Commands(click.Group):
    """The commands; what the operating system refuses beside them, such as to print, is one sentence too."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        teach(formatter, _EXAMPLES, STATUSES)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            # an argument may be a name that a shell found in a kata
            error.message = visible(error.message)  # type: ignore[misc]
            raise

    def main(self, *args: Any, **more: Any) -> Any:
        try:
            return super().main(*args, **more)
        except OSError as error:
            drop_output()
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="katafs")
def main() -> None:
    """Show cyber-dojo katas, stored as git repositories, as plain files.

    Each command has a --help with examples; man katafs has it all.
    """
    child.open_standard_streams()
    # what is logged and no daemon's goes to standard error
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LineFormatter("%(message)s"))
    # where the locale is not UTF-8, what it has no character for is written as a code
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


for _module in (batches, fsck, installing, looking, mounts, status, stores):
    for _command in vars(_module).values():
        if isinstance(_command, click.Command):
            main.add_command(_command)
