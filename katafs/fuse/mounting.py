"""Before and after a mount: can it be made, and how is it ended. No pyfuse3 here, so that errors come quickly."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

from katafs.fuse.session import MountError, MountOptions

_TYPE = "fuse.katafs"


def check(options: MountOptions) -> MountOptions:
    """The options with absolute paths. Raises `MountError` with one clear sentence when the mount cannot be made."""
    store, mountpoint = _existing(options.store, "store"), _existing(options.mountpoint, "mount point")
    if mountpoint == store or store in mountpoint.parents or mountpoint in store.parents:
        raise MountError(f"store {store} and mount point {mountpoint} must not contain one another")
    if is_mounted(mountpoint):
        raise MountError(f"{mountpoint}: katafs is mounted here already; katafs umount {mountpoint} ends it")
    if not os.access(store, os.R_OK | os.X_OK):
        raise MountError(f"store {store}: no permission to read it")
    if any(mountpoint.iterdir()):
        raise MountError(f"mount point {mountpoint} is not empty; what is in it would be hidden")
    _check_device()
    return MountOptions(**{**vars(options), "store": store, "mountpoint": mountpoint})


def _existing(path: Path, word: str) -> Path:
    """The real path of a directory."""
    try:
        if not path.is_dir():
            what = "is not a directory" if path.exists() else "does not exist"
            raise MountError(f"{word} {path} {what}")
        os.stat(path)
        return path.resolve()
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(
                f"{word} {path} is a mount whose daemon has died; katafs umount {path} removes it"
            ) from error
        raise MountError(f"{word} {path}: {error.strerror}") from error


def _check_device() -> None:
    """Whether FUSE can be used at all."""
    device = Path("/dev/fuse")
    if not device.exists():
        raise MountError("/dev/fuse is not there: load the fuse module, or give the container --device /dev/fuse")
    if not os.access(device, os.R_OK | os.W_OK):
        raise MountError("/dev/fuse: no permission to use it; run as root")


def is_mounted(mountpoint: Path) -> bool:
    """Whether a katafs is mounted there, dead or alive."""
    text = os.fspath(mountpoint).encode("unicode_escape").decode().replace(" ", "\\040")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" ")
            if fields[4] == text and fields[fields.index("-") + 1] == _TYPE:
                return True
    return False


def unmount(mountpoint: Path) -> None:
    """Unmount. Raises `MountError`."""
    path = Path(os.path.abspath(mountpoint))
    if not is_mounted(path):
        # not through the mount itself, whose daemon may be dead
        path = Path(os.path.realpath(path.parent), path.name)
    if not is_mounted(path):
        raise MountError(f"{mountpoint}: no katafs is mounted here")
    command = ["umount", "--", str(path)] if os.geteuid() == 0 else ["fusermount3", "-u", "--", str(path)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise MountError(f"{command[0]} cannot be run: {error.strerror}") from error
    if result.returncode:
        reason = result.stderr.strip().splitlines()[-1:] or [f"{command[0]} failed"]
        raise MountError(f"{mountpoint}: {reason[0]}")
