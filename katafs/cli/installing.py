"""``katafs install``: what the system looks for in places of its own, so that katafs is used as other file systems are.

Programs are linked, so that they are those of the installed package; the rest is written, with a last line by which
it is known again. What somebody else has put in its place is never touched.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from katafs.cli.common import DIRECTORY, Command, echo, fail, quiet

_OURS = "put here by katafs install; katafs install --remove takes it away"
_HELPERS = ("mount.fuse.katafs", "mount.katafs")
_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
# fish looks for others' in /usr/share alone, where only packages may put something
_COMPLETIONS = {
    "bash": "usr/local/share/bash-completion/completions/katafs",
    "zsh": "usr/local/share/zsh/site-functions/_katafs",
    "fish": "etc/fish/completions/katafs.fish",
}
_MANUALS = {
    "katafs.1": "man1/katafs.1",
    "katafs.5": "man5/katafs.5",
    "mount.fuse.katafs.8": "man8/mount.fuse.katafs.8",
}


@click.command(
    cls=Command,
    examples=[
        ("katafs install", "then: mount -t fuse.katafs, fstab, systemd, man katafs"),
        ("katafs install --remove", "take it all away again"),
        ("katafs install --root /tmp/image", "into a tree that will be another system's root"),
    ],
)
@click.option("--remove", is_flag=True, help="Take away what was put there. No kata and no mount is touched.")
@click.option("--root", type=DIRECTORY, default="/", show_default=True, help="Put it below this directory.")
@quiet
def install(remove: bool, root: Path, quiet: bool) -> None:
    """Put katafs where the system looks for it, as root.

    That is the programs that mount(8) calls, /sbin/mount.fuse.katafs and /sbin/mount.katafs; katafs itself in
    /usr/local/bin; a unit of systemd, katafs@.service; manual pages; and completion for bash, zsh and fish. It may be
    run again at any time, and should be after an upgrade. What somebody else has put there stays.
    """
    # what is there for all users is to be read by all, whatever the shell of the one who installs says
    os.umask(0o022)
    kept: list[Path] = []
    changed: list[Path] = []
    failure = ""
    try:
        for thing in _things(root):
            if os.path.lexists(thing.path) and not thing.is_ours():
                kept.append(thing.path)
            elif thing.take_away() if remove else thing.put():
                changed.append(thing.path)
    except OSError as error:
        failure = f"{error.filename}: {error.strerror}"
        if os.geteuid() != 0 and root == Path("/"):
            failure = f"only root can put katafs where the system looks for it, or remove it: {failure}"
    if changed and root == Path("/") and os.path.isdir("/run/systemd/system"):
        subprocess.run(["systemctl", "daemon-reload"], check=False)
    # said when all is done: who reads it may stop in the middle, as head does
    if not quiet:
        lines = [f"{'removed' if remove else 'put'}: {path}" for path in changed]
        lines += [f"kept, not ours: {path}" for path in kept]
        if not changed and not failure:
            lines.append("nothing to remove" if remove else "all is there")
        if lines:
            echo("\n".join(lines))
    if failure:
        fail(failure)


@dataclass(frozen=True)
class _Link:
    """A program that is to be found by another path."""

    path: Path
    target: Path

    def is_ours(self) -> bool:
        """Whether it was put there, by this katafs or another that may have gone."""
        try:
            return Path(os.readlink(self.path)).name == self.target.name
        except OSError:
            return False

    def put(self) -> bool:
        """Put it there; whether it was not."""
        if self.path.is_symlink() and os.readlink(self.path) == str(self.target):
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.take_away()
        self.path.symlink_to(self.target)
        return True

    def take_away(self) -> bool:
        """Remove it; whether it was there."""
        is_there = self.path.is_symlink()
        self.path.unlink(missing_ok=True)
        return is_there


@dataclass(frozen=True)
class _File:
    """A file with a text that ends with a line by which we know it."""

    path: Path
    text: str

    def is_ours(self) -> bool:
        """As `_Link`'s."""
        try:
            return not self.path.is_symlink() and _OURS in self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False

    def put(self) -> bool:
        """As `_Link`'s."""
        # an older one left it as the umask of its user said
        is_for_all = self.is_ours() and self.path.stat().st_mode & 0o444 == 0o444
        if is_for_all and self.path.read_text(encoding="utf-8") == self.text:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        new.write_text(self.text, encoding="utf-8")
        new.chmod(0o644)
        new.replace(self.path)
        return True

    def take_away(self) -> bool:
        """As `_Link`'s."""
        is_there = self.path.exists()
        self.path.unlink(missing_ok=True)
        return is_there


def _things(root: Path) -> Iterator[_Link | _File]:
    """All that belongs to an installation below ``root``."""
    local = root / "usr/local"
    scripts = Path(sysconfig.get_path("scripts"))
    program = scripts / "katafs"
    # where /sbin is a link, as nearly everywhere, a tree to be must not get a directory there
    sbin = root / "sbin" if (root / "sbin").is_dir() and not (root / "sbin").is_symlink() else root / "usr/sbin"
    for name in _HELPERS:
        yield _Link(sbin / name, scripts / "mount.fuse.katafs")
    if root / scripts.relative_to("/") not in (local / "bin", root / "usr/bin"):
        yield _Link(local / "bin/katafs", program)
    unit = resources.files("katafs").joinpath("katafs@.service").read_text(encoding="utf-8")
    unit = unit.replace("=katafs ", f"={program} ")
    yield _File(local / "lib/systemd/system/katafs@.service", f"{unit}# {_OURS}\n")
    for name, place in _MANUALS.items():
        text = resources.files("katafs").joinpath("man", name).read_text(encoding="utf-8")
        yield _File(local / "share/man" / place, f'{text}.\\" {_OURS}\n')
    for shell, place in _COMPLETIONS.items():
        yield _File(root / place, f"{completion(shell)}\n# {_OURS}\n")


def completion(shell: str) -> str:
    """What ``bash``, ``zsh`` or ``fish`` reads, in its language, to complete ``katafs``: it asks katafs each time."""
    from katafs.cli import main

    complete = _SHELLS[shell](main, {}, "katafs", "_KATAFS_COMPLETE")
    # not source(), which runs bash to see whether it is too old
    return complete.source_template % complete.source_vars()
