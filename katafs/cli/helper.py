"""``mount.fuse.katafs`` and ``mount.katafs``: what mount(8) calls for ``-t fuse.katafs`` and ``-t katafs``.

It is called at boot too: with nothing in the environment, and as whoever may mount.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from katafs import __version__
from katafs.cli.common import DIRECTORY, drop_output, fail, say
from katafs.cli.mounts import mount, split, to_arguments
from katafs.mount import child, mounting

# of mount(8)
_INCORRECT, _SYSTEM_ERROR, _FAILED = 1, 2, 32


def main() -> None:
    """Run as a program, and end it with an exit status of mount(8)'s."""
    child.open_standard_streams()
    name = Path(sys.argv[0]).name
    try:
        helper.main(prog_name=name, standalone_mode=False)
    except click.UsageError as error:
        say(error.format_message(), before=f"{name}: ")
        sys.exit(_INCORRECT)
    except click.Abort:
        sys.exit(_FAILED)
    except OSError as error:
        drop_output()
        say(str(error.strerror), before=f"{name}: ")
        sys.exit(_SYSTEM_ERROR)
    except SystemExit as ended:
        # of the command: it could not be done, or the directories do not go together
        sys.exit({0: 0, 1: _FAILED, 2: _INCORRECT}.get(int(ended.code or 0), _FAILED))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="katafs")
@click.argument("store", type=DIRECTORY)
@click.argument("mountpoint", type=DIRECTORY)
@click.option("-s", "sloppy", is_flag=True, help="Pass over options that are unknown.")
@click.option("-f", "fake", is_flag=True, help="Look at the options, and mount nothing.")
@click.option("-n", is_flag=True, expose_value=False, help="Without effect: katafs writes no /etc/mtab.")
@click.option("-v", "verbose", is_flag=True, help="Say what is mounted.")
@click.option("-o", "options", multiple=True, metavar="OPTIONS", help="As in katafs mount -o, and remount.")
@click.option("-t", "file_system", expose_value=False, help="Without effect: it is fuse.katafs.")
def helper(
    store: Path,
    mountpoint: Path,
    sloppy: bool,
    fake: bool,
    verbose: bool,
    options: Sequence[str],
) -> None:
    """Mount STORE on MOUNTPOINT, for mount(8), which calls this program.

    See katafs mount --help. Exit status as that of mount(8): 1 for a wrong command line, 32 when it could not be
    mounted.
    """
    given = split(",".join(options))
    wanted = [(name, value) for name, value in given if name != "remount"]
    arguments = to_arguments(mount, wanted, is_sloppy=sloppy)
    if fake:
        return
    if wanted == given:
        arguments += ["--verbose"] if verbose else []
        mount.main([*arguments, "--", str(store), str(mountpoint)], prog_name="katafs mount", standalone_mode=False)
        return
    try:
        mounting.remount(mountpoint, read_only="--read-only" in arguments)
    except mounting.MountError as error:
        fail(str(error))
