"""Before and after a mount: can it be made, and how is it ended. No pyfuse3 here, so that errors come quickly."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from katafs.engine.mount_table import Mounted, mounts
from katafs.engine.trust import refusal
from katafs.mount import runtime

#: the type of our mounts
FILE_SYSTEM = b"fuse.katafs"
DEVICE = Path("/dev/fuse")
_GROUPS = "directory of groups"
LIBC = ctypes.CDLL(None, use_errno=True)
# <sys/mount.h>
_MNT_FORCE, _MNT_DETACH, _UMOUNT_NOFOLLOW = 1, 2, 8
# <linux/mount.h>
MS_RDONLY = 1
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REMOUNT, _MS_NOATIME = 2, 4, 8, 32, 1024
#: what holds for all our mounts: no file in them is a program or a device, and nobody keeps times of access
ALWAYS = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOATIME


class MountError(Exception):
    """It cannot be mounted or unmounted; the message is a sentence for a person. ``exit_status`` is what the command
    line ends with."""

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@dataclass(frozen=True)
class MountOptions:
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
    #: the directory of cyber-dojo's groups
    groups: Path | None = None
    #: whether to mount a store all the same whose file system may lose events, and why it may, if it was so
    unsafe_store: bool = False
    risk: str = ""

    def fuse_options(self) -> set[str]:
        """The options for libfuse. Permissions are checked by the kernel, from owners and modes."""
        # libfuse takes a comma for the next option, pyfuse3 takes ASCII only
        source = str(self.store).replace("\\", "\\\\").replace(",", "\\,")
        name = source if source.isascii() else "katafs"
        options = {"default_permissions", f"fsname={name}", "subtype=katafs", "nosuid", "nodev", "noexec", "noatime"}
        options |= {"ro"} if self.read_only else set()
        return options | ({"allow_other"} if self.allow_other else set())


def check(options: MountOptions) -> MountOptions:
    """The options with real paths. Raises `MountError` with one clear sentence when the mount cannot be made."""
    given = {"store": options.store, "mount point": options.mountpoint, _GROUPS: options.groups}
    real = {word: real_directory(path, word) for word, path in given.items() if path is not None}
    for (word, path), (other_word, other) in combinations(real.items(), 2):
        if _is_inside(path, other) or _is_inside(other, path):
            raise MountError(f"{word} {path} and {other_word} {other} must not contain one another", 2)
    store, mountpoint = real["store"], real["mount point"]
    if katafs_at(mountpoint) is not None:
        raise MountError(f"{mountpoint}: katafs is mounted here already; katafs umount {mountpoint} ends it")
    for word, path in real.items():
        if path != mountpoint and not os.access(path, os.R_OK | os.X_OK):
            raise MountError(f"{word} {path}: no permission to read it")
    try:
        is_empty = not os.listdir(mountpoint)
    except OSError as error:
        raise MountError(f"mount point {mountpoint}: {error.strerror}") from error
    if not is_empty:
        raise MountError(f"mount point {mountpoint} is not empty; what is in it would be hidden")
    _check_device()
    risk = refusal(store)
    if risk and not options.unsafe_store:
        raise MountError(f"store {store}: {risk}; -o unsafe_store mounts it as it is")
    return replace(options, store=store, mountpoint=mountpoint, groups=real.get(_GROUPS), risk=risk)


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
        died = f" is a mount whose daemon has died; katafs umount {path} removes it"
        why = died if error.errno == errno.ENOTCONN else f": {error.strerror}"
        raise MountError(f"{word} {path}{why}") from error
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
        said = f"{DEVICE}: {error.strerror}"
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
            said = f"there is no {DEVICE}: load the fuse module, or give the container --device /dev/fuse"
        elif error.errno in (errno.EACCES, errno.EPERM):
            said = f"{DEVICE}: no permission to use it; run as root"
        raise MountError(said) from error


def device_of(mountpoint: Path) -> str:
    """The device number of the katafs that is mounted at this real path, such as ``0:53``; empty if there is none."""
    found = katafs_at(mountpoint)
    return found.device if found is not None else ""


def katafs_at(mountpoint: Path) -> Mounted | None:
    """The katafs that is mounted at this real path, dead or alive, with nothing else on top of it."""
    found = next((one for one in reversed([*mounts()]) if one.path == mountpoint), None)
    return found if found is not None and is_katafs(found) else None


def ours(mountpoint: Path) -> tuple[Path, str]:
    """The real path of a mount of ours, and its device number. Raises `MountError` if there is none."""
    path = real_mountpoint(mountpoint)
    if device := device_of(path):
        return path, device
    raise MountError(f"{mountpoint}: no katafs is mounted here")


def real_mountpoint(path: Path) -> Path:
    """The real path of what is thought to be a mount of ours. Asks nothing of a mount that is named plainly: its daemon
    may not answer. Otherwise a dead mount is no hindrance, as it is to Path.resolve()."""
    plain = Path(os.path.abspath(path))
    return plain if ".." not in path.parts and katafs_at(plain) is not None else Path(os.path.realpath(path))


def is_katafs(mounted: Mounted) -> bool:
    return mounted.file_system == FILE_SYSTEM.decode()


def remove_dead(mountpoint: Path) -> bool:
    """Detach what a katafs whose daemon has died left at a path; whether there was such a mount.

    Whoever still works in it goes on hearing ENOTCONN.
    """
    path = Path(os.path.realpath(mountpoint))
    removed = False
    while is_dead(path) and (device := device_of(path)):
        runtime.tidy(device)
        if detach(path):
            break
        removed = True
    return removed


def is_dead(path: Path) -> bool:
    """Whether the daemon of the mount at a path has died. Waits for a daemon that lives and does not answer."""
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def abort(mountpoint: Path) -> None:
    """End the connection of a mount: whoever waits for an answer gets an error. The mount stays, dead."""
    device = device_of(mountpoint)
    # says EBUSY where somebody works in the mount, but ends the connection first
    is_over = os.geteuid() == 0 and device and _unmount(mountpoint, _MNT_FORCE) in ("", os.strerror(errno.EBUSY))
    if is_over or not device:
        return
    with contextlib.suppress(OSError):
        Path(f"/sys/fs/fuse/connections/{device.partition(':')[2]}/abort").write_text("1")


def detach(mountpoint: Path, device: str = "") -> str:
    """Take a mount out of the tree, at once, whoever uses it; given its device number, only if it is still there.
    Returns what went wrong, or nothing."""
    return "" if device and device_of(mountpoint) != device else _unmount(mountpoint, _MNT_DETACH, "-z")


def unmount(mountpoint: Path, *, lazy: bool = False) -> str:
    """Unmount, whatever has become of the daemon. Raises `MountError`; of a mount that is busy it says who uses it.

    ``lazy``: take it out of the tree at once; the daemon serves those who use it until the last of them is done.
    Returns where else it is mounted, a sentence, or nothing.
    """
    path, device = ours(mountpoint)
    runtime.tidy(device)
    reason = detach(path) if lazy else _unmount(path, 0)
    if reason == os.strerror(errno.EBUSY):
        raise MountError(f"{path} is busy: {runtime.why_busy(path)}")
    if reason:
        raise MountError(f"{path} cannot be unmounted: {reason}")
    elsewhere = runtime.mounted_elsewhere(device)
    return f"{path} is unmounted here, but {elsewhere}" if elsewhere else ""


def remount(mountpoint: Path, *, read_only: bool) -> None:
    """Let nothing be written to a mount any more, or again. The kernel does it, without the daemon. Raises
    `MountError`."""
    path, _ = ours(mountpoint)
    flags = _MS_REMOUNT | ALWAYS | (MS_RDONLY if read_only else 0)
    if LIBC.mount(None, os.fsencode(path), None, ctypes.c_ulong(flags), None):
        number = ctypes.get_errno()
        if number == errno.EBUSY:
            raise MountError(f"{path} cannot be made read-only: a file of it is open for writing")
        raise MountError(f"{path} cannot be remounted: {os.strerror(number)}")


def _unmount(path: Path, flags: int, *options: str) -> str:
    """umount2(2), or for who is not root FUSE's helper, which ends what the same user mounted: what went wrong, or
    nothing."""
    if os.geteuid() == 0:
        failed = LIBC.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW | flags)
        return os.strerror(ctypes.get_errno()) if failed else ""
    try:
        command = ["fusermount3", "-u", *options, "--", os.fspath(path)]
        result = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError as error:
        return f"fusermount3: {error.strerror}"
    said = result.stderr.decode("utf-8", "replace").strip() or "fusermount3 failed"
    # "fusermount3: failed to unmount /mnt: Device or resource busy"
    reason = re.sub(r"^fusermount3: (failed to unmount .*: )?", "", said.splitlines()[-1])
    return reason if result.returncode else ""


@contextlib.contextmanager
def hearing_stderr() -> Iterator[Callable[[], str]]:
    """The last line that is written to file descriptor 2 meanwhile: libfuse and fusermount3 give their reasons nowhere
    else."""
    with open(os.memfd_create("stderr"), "w+b") as file:
        saved = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(2, 65536, 0).decode("utf-8", "replace").strip().rpartition("\n")[2]
        finally:
            os.dup2(saved, 2)
            os.close(saved)
