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

from katafs.cli.common import DIRECTORY, command, echo, fail, quiet

_OURS = "put here by katafs install; katafs install --remove takes it away"
_HELPERS = ("mount.fuse.katafs", "mount.katafs")
_SHELLS: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
# fish looks for others' in /usr/share alone, where only packages may put something
_COMPLETIONS = {
    "bash": "usr/local/share/bash-completion/completions/katafs",
    "zsh": "usr/local/share/zsh/site-functions/_katafs",
    "fish": "etc/fish/completions/katafs.fish",
}
_MANUALS = {"katafs.1": "man1/katafs.1", "katafs.5": "man5/katafs.5", "mount.fuse.katafs.8": "man8/mount.fuse.katafs.8"}


@command(
    ("katafs install", "then: mount -t fuse.katafs, fstab, systemd, man katafs"),
    ("katafs install --remove", "take it all away again"),
    ("katafs install --root /tmp/image", "into a tree that will be another system's root"),
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
    changed, kept, failure = [], [], ""
    try:
        for thing in _things(root):
            if os.path.lexists(thing.path) and not thing.is_ours():
                kept.append(f"kept, not ours: {thing.path}")
            elif thing.take_away() if remove else thing.put():
                changed.append(f"{'removed' if remove else 'put'}: {thing.path}")
    except OSError as error:
        failure = f"{error.filename}: {error.strerror}"
        if os.geteuid() != 0 and root == Path("/"):
            failure = f"only root can put katafs where the system looks for it, or remove it: {failure}"
    if changed and root == Path("/") and os.path.isdir("/run/systemd/system"):
        subprocess.run(["systemctl", "daemon-reload"], check=False)
    # said when all is done: who reads it may stop in the middle, as head does
    lines = changed + kept
    if not changed and not failure:
        lines.append("nothing to remove" if remove else "all is there")
    if lines and not quiet:
        echo("\n".join(lines))
    if failure:
        fail(failure)


@dataclass(frozen=True)
class _Thing:
    """A program to be found by another path, or a file with a text that ends with a line by which we know it."""

    path: Path
    #: where the link leads to, or the text
    content: Path | str

    def is_ours(self) -> bool:
        """Whether it was put there, by this katafs or another that may have gone."""
        there = self._found()
        if isinstance(self.content, str):
            return isinstance(there, str) and _OURS in there
        return isinstance(there, Path) and there.name == self.content.name

    def put(self) -> bool:
        """Put it there; whether it was not."""
        # an older one left a file as the umask of its user said
        if self._found() == self.content and os.lstat(self.path).st_mode & 0o444 == 0o444:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        new.unlink(missing_ok=True)
        if isinstance(self.content, str):
            new.write_text(self.content, encoding="utf-8")
            new.chmod(0o644)
        else:
            new.symlink_to(self.content)
        new.replace(self.path)
        return True

    def take_away(self) -> bool:
        """Whether it was there."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _found(self) -> Path | str | None:
        try:
            if self.path.is_symlink():
                return self.path.readlink()
            return self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None


def _things(root: Path) -> Iterator[_Thing]:
    local = root / "usr/local"
    scripts = Path(sysconfig.get_path("scripts"))
    program = scripts / "katafs"
    # where /sbin is a link, as nearly everywhere, a tree to be must not get a directory there
    sbin = root / "sbin" if (root / "sbin").is_dir() and not (root / "sbin").is_symlink() else root / "usr/sbin"
    for name in _HELPERS:
        yield _Thing(sbin / name, scripts / "mount.fuse.katafs")
    if root / scripts.relative_to("/") not in (local / "bin", root / "usr/bin"):
        yield _Thing(local / "bin/katafs", program)
    unit = resources.files("katafs").joinpath("katafs@.service").read_text(encoding="utf-8")
    unit = unit.replace("=katafs ", f"={program} ")
    yield _Thing(local / "lib/systemd/system/katafs@.service", f"{unit}# {_OURS}\n")
    for name, place in _MANUALS.items():
        text = resources.files("katafs").joinpath("man", name).read_text(encoding="utf-8")
        yield _Thing(local / "share/man" / place, f'{text}.\\" {_OURS}\n')
    for shell, place in _COMPLETIONS.items():
        yield _Thing(root / place, f"{_completion(shell)}\n# {_OURS}\n")


def _completion(shell: str) -> str:
    """What a shell reads, in its language, to complete ``katafs``: it asks katafs each time."""
    complete = _SHELLS[shell](click.get_current_context().find_root().command, {}, "katafs", "_KATAFS_COMPLETE")
    # not source(), which runs bash to see whether it is too old
    return complete.source_template % complete.source_vars()
