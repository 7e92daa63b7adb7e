"""Before and after a mount: can it be made, and how is it ended. No pyfuse3 here, so that errors come quickly."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

#: the type of our mounts
FILE_SYSTEM = b"fuse.katafs"
DEVICE = Path("/dev/fuse")
LIBC = ctypes.CDLL(None, use_errno=True)
# <sys/mount.h>
_MNT_FORCE, _MNT_DETACH, _UMOUNT_NOFOLLOW = 1, 2, 8


class MountError(Exception):
    """It cannot be mounted or unmounted; the message is a sentence for a person."""

    #: what the command line ends with
    exit_status = 1


class WrongDirectoriesError(MountError):
    """The two directories do not go together: the command line is wrong."""

    exit_status = 2


@dataclass(frozen=True)
class MountOptions:
    """How to mount."""

    store: Path
    mountpoint: Path
    read_only: bool = False
    allow_other: bool = False
    fast_open: bool = True
    keep_alive: bool = True
    uid: int | None = None
    gid: int | None = None
    #: whether events have extended attributes
    xattr: bool = False
    #: seconds without a write after which a kata is packed anew; None: never
    compact_after: float | None = 60.0

    def fuse_options(self) -> set[str]:
        """The options for libfuse. Permissions are checked by the kernel, from owners and modes."""
        # libfuse takes a comma for the next option, pyfuse3 takes ASCII only
        source = str(self.store).replace("\\", "\\\\").replace(",", "\\,")
        name = source if source.isascii() else "katafs"
        options = {"default_permissions", f"fsname={name}", "subtype=katafs", "nosuid", "nodev", "noatime"}
        options |= {"ro"} if self.read_only else set()
        return options | ({"allow_other"} if self.allow_other else set())


def check(options: MountOptions) -> MountOptions:
    """The options with real paths. Raises `MountError` with one clear sentence when the mount cannot be made."""
    store = real_directory(options.store, "store")
    mountpoint = real_directory(options.mountpoint, "mount point")
    if _is_inside(store, mountpoint) or _is_inside(mountpoint, store):
        raise WrongDirectoriesError(f"store {store} and mount point {mountpoint} must not contain one another")
    if is_mounted(mountpoint):
        raise MountError(f"{mountpoint}: katafs is mounted here already; katafs umount {mountpoint} ends it")
    if not os.access(store, os.R_OK | os.X_OK):
        raise MountError(f"store {store}: no permission to read it")
    try:
        is_empty = not os.listdir(mountpoint)
    except OSError as error:
        raise MountError(f"mount point {mountpoint}: {error.strerror}") from error
    if not is_empty:
        raise MountError(f"mount point {mountpoint} is not empty; what is in it would be hidden")
    _check_device()
    return replace(options, store=store, mountpoint=mountpoint)


def real_directory(path: Path, word: str) -> Path:
    """The real path of a directory, which a sentence calls ``word``. Raises `MountError` if it is none."""
    try:
        # also where the kernel remembers the attributes of a dead mount, its file system does not answer
        os.statvfs(path)
        status = os.stat(path)
        real = path.resolve(strict=True)
    except FileNotFoundError as error:
        raise MountError(f"{word} {path} does not exist") from error
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise MountError(
                f"{word} {path} is a mount whose daemon has died; katafs umount {path} removes it"
            ) from error
        raise MountError(f"{word} {path}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise MountError(f"{word} {path} is not a directory")
    return real


def _is_inside(path: Path, directory: Path) -> bool:
    """Whether ``path`` is ``directory`` or below it, by whatever name: also where one is bind-mounted."""
    return any(os.path.samefile(parent, directory) for parent in (path, *path.parents))


def _check_device() -> None:
    """Whether FUSE can be used at all: what containers forbid is seen only by opening the device."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            hint = "load the fuse module, or give the container --device /dev/fuse"
            raise MountError(f"there is no {DEVICE}: {hint}") from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise MountError(f"{DEVICE}: no permission to use it; run as root") from error
        raise MountError(f"{DEVICE}: {error.strerror}") from error


def is_mounted(mountpoint: Path) -> bool:
    """Whether a katafs is mounted at this real path, dead or alive, with nothing else on top of it."""
    return _mounted_at(mountpoint)[0] == FILE_SYSTEM


def device_of(mountpoint: Path) -> str | None:
    """The device number of the katafs that is mounted at this real path, such as ``0:53``; None if there is none."""
    file_system, device = _mounted_at(mountpoint)
    return device.decode() if file_system == FILE_SYSTEM else None


def _mounted_at(mountpoint: Path) -> tuple[bytes, bytes]:
    """The type and device number of the topmost mount at a real path; empty if there is none."""
    wanted = os.fsencode(mountpoint)
    found = (b"", b"")
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            fields = line.split(b" ")
            # blanks and the like are written as \040
            if re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), fields[4]) == wanted:
                found = (fields[fields.index(b"-") + 1], fields[2])
    return found


def remove_dead(mountpoint: Path) -> bool:
    """Detach what a katafs whose daemon has died left at a path; whether there was such a mount.

    Whoever still works in it goes on hearing ENOTCONN.
    """
    path = Path(os.path.realpath(mountpoint))
    removed = False
    while _is_dead(path) and is_mounted(path):
        if _detach(path):
            break
        removed = True
    return removed


def _is_dead(path: Path) -> bool:
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def abort(mountpoint: Path) -> None:
    """End the connection of a mount: whoever waits for an answer gets an error. The mount stays, dead."""
    device = device_of(mountpoint)
    if device is None:
        return
    # says EBUSY where somebody works in the mount, but ends the connection first
    if os.geteuid() == 0 and _system_unmount(mountpoint, _MNT_FORCE) in ("", os.strerror(errno.EBUSY)):
        return
    with contextlib.suppress(OSError):
        Path(f"/sys/fs/fuse/connections/{device.partition(':')[2]}/abort").write_text("1")


def detach(mountpoint: Path, device: str = "") -> None:
    """Take a mount out of the tree, at once, whoever uses it; given its device number, only if it is still there."""
    if not device or device_of(mountpoint) == device:
        _detach(mountpoint)


def _detach(path: Path) -> str:
    """What went wrong, or nothing."""
    return _system_unmount(path, _MNT_DETACH) if os.geteuid() == 0 else _user_unmount(path, "-z")


def unmount(mountpoint: Path) -> None:
    """Unmount, whatever has become of the daemon. Raises `MountError`."""
    # not Path.resolve(), which stops at a dead mount
    path = Path(os.path.realpath(mountpoint))
    if not is_mounted(path):
        raise MountError(f"{mountpoint}: no katafs is mounted here")
    reason = _system_unmount(path) if os.geteuid() == 0 else _user_unmount(path)
    if reason == os.strerror(errno.EBUSY):
        raise MountError(f"{path} is busy: some process works in it, or has a file of it open")
    if reason:
        raise MountError(f"{path} cannot be unmounted: {reason}")


def _system_unmount(path: Path, flags: int = 0) -> str:
    """umount2(2): what went wrong, or nothing."""
    failed = LIBC.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | flags)
    return os.strerror(ctypes.get_errno()) if failed else ""


def _user_unmount(path: Path, *options: str) -> str:
    """The same with FUSE's helper, which ends what the same user mounted."""
    try:
        command = ["fusermount3", "-u", *options, "--", os.fspath(path)]
        result = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        return f"fusermount3: {error.strerror}"
    said = result.stderr.decode("utf-8", "replace").strip() or "fusermount3 failed"
    # "fusermount3: failed to unmount /mnt: Device or resource busy"
    return said.splitlines()[-1].rpartition(": ")[2] if result.returncode else ""
