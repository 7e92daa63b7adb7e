"""Whether a file system is trusted with a store: by its type and options, by what it says of itself, or by what
``katafs probe`` found.

An engine loses events when a host is shown what another has replaced already: it then builds on an old commit, and the
events since are gone. That is so with caches of names, which most engines have unless they are told not to.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from katafs.engine.mount_table import Mounted, holding

#: file systems that only this host writes to (as /proc/self/mountinfo names them)
_LOCAL = """
    bcachefs btrfs erofs exfat ext2 ext3 ext4 f2fs fuse.fuse-overlayfs fuseblk iso9660 jfs nilfs2 ntfs3 overlay ramfs
    reiserfs rootfs squashfs tmpfs vfat xfs zfs"""
LOCAL = frozenset(_LOCAL.split())
_CEPH = frozenset(("ceph", "fuse.ceph", "fuse.ceph-fuse"))
#: what `katafs probe` found, at the root of the store, where all hosts read it
FINDING = ".katafs-probe.json"
_MOST = 1 << 16  # bytes of it, or of what an engine says of itself
# of mount(8): whether it can be written to and what else nobody else's view depends on; of NFS: who we are
_FLAGS = "rw ro nosuid suid nodev dev noexec exec noatime relatime nodiratime strictatime lazytime"
_OWN = frozenset((*_FLAGS.split(), "user_id", "group_id", "clientaddr", "addr", "mountaddr", "fd"))
_SECOND = 10**9  # ns
# of JuiceFS' ``.config`` (its JSON is that of the structs in pkg/vfs and pkg/meta): the option of its mount command,
# and the most that it may be. What is said of a directory may be a second old, of a file nothing: a file is looked for
# by a name that is fresh.
_JUICEFS = {
    ("AttrTimeout",): ("attr-cache", _SECOND),
    ("EntryTimeout",): ("entry-cache", 0),
    ("DirEntryTimeout",): ("dir-entry-cache", _SECOND),
    ("NegEntryTimeout",): ("negative-entry-cache", 0),
    ("ReaddirCache",): ("readdir-cache", 0),
    ("Meta", "OpenCache"): ("open-cache", 0),
    ("Meta", "SkipDirMtime"): ("skip-dir-mtime", 0),
    ("Chunk", "Writeback"): ("writeback", 0),
}
_NFS = dict.fromkeys(("nolock", "local_lock=all", "local_lock=flock"), "a lock excludes nobody on another host")
_NFS["nocto"] = "a host goes on reading what another has replaced"
_JUICE = "fuse.juicefs"
_HINTS = {
    "fuse.glusterfs": "GlusterFS loses events unless its client caches are off: gluster volume set VOLUME"
    " performance.NAME off, of quick-read, io-cache, stat-prefetch, open-behind, write-behind, read-ahead,"
    " readdir-ahead and nl-cache, and mount it with -o entry-timeout=0,attribute-timeout=0,negative-timeout=0; then ",
}


@dataclass(frozen=True)
class FileSystem:
    """What a store lies on, as far as another host could have the same."""

    type: str
    source: str
    #: sorted
    options: tuple[str, ...]

    @classmethod
    def of(cls, mounted: Mounted | None) -> FileSystem:
        if mounted is None:
            return cls("unknown", "", ())
        kept = (one for one in mounted.options if one.partition("=")[0] not in _OWN)
        return cls(mounted.file_system, mounted.source, tuple(sorted(kept)))

    @property
    def is_local(self) -> bool:
        return self.type in LOCAL


def file_system(store: Path) -> FileSystem:
    return FileSystem.of(holding(store))


def refusal(store: Path) -> str:
    """Why events could be lost in a store, and what to change: a sentence; empty if nothing is known to lose them.
    Raises OSError."""
    mounted = holding(store)
    found = FileSystem.of(mounted)
    if found.is_local:
        return ""
    settings = _read(mounted.path / ".config") if mounted is not None and found.type == _JUICE else {}
    return judgement(found, settings, _read(store / FINDING))


def judgement(found: FileSystem, settings: dict[str, Any], finding: dict[str, Any]) -> str:
    """The same, given what JuiceFS says of its settings, and what a probe found, as far as there is any."""
    if found.is_local or found.type in _CEPH:
        return ""
    if found.type == "fuse.mfs":
        return "MooseFS loses events: its directories have times of whole seconds, and no option changes that"
    if found.type in ("nfs", "nfs4"):
        for option in found.options:
            if option in _NFS:
                return f"NFS loses events with the mount option {option}, by which {_NFS[option]}; mount it without"
        if any(one.startswith("vers=4") for one in found.options):
            return ""
    # an older one without a setting has not that cache, but all have this one
    if "AttrTimeout" in settings:
        limits = [(_at(settings, keys), *limit) for keys, limit in _JUICEFS.items()]
        wrong = " ".join(f"--{option}={most // _SECOND}" for value, option, most in limits if value > most)
        return wrong and f"JuiceFS loses events with these caches; mount it with {wrong}"
    probes = finding.get("file_systems")
    is_probed = isinstance(probes, list) and json.loads(json.dumps(asdict(found))) in probes
    # what does not say what it is, is not known for a network file system: it is mounted, and read as one
    if (is_probed and finding.get("status") == 0) or (not is_probed and found.type == "fuse"):
        return ""
    what = "katafs probe has found that" if is_probed else "it is not known whether"
    hint = _HINTS.get(found.type, "")
    return (
        f"it is on a file system of type {found.type}, and {what} events can be lost there; {hint}"
        "katafs probe finds out, with another host that mounts it in the same way"
    )


def keep_finding(store: Path, file_systems: Iterable[dict[str, Any]], status: int) -> None:
    """Keep what a probe of a store found; ``status`` is what it ended with. Raises OSError."""
    finding = {"status": status, "time": int(time.time()), "file_systems": [*file_systems]}
    # where nobody can have put a link
    with tempfile.TemporaryDirectory(prefix=f"{FINDING}.", dir=store) as directory:
        new = Path(directory, FINDING)
        new.write_text(json.dumps(finding, indent=2) + "\n")
        new.chmod(0o644)
        new.replace(store / FINDING)


def _at(settings: dict[str, Any], keys: tuple[str, ...]) -> float:
    value: Any = settings
    for key in keys:
        value = value.get(key, 0) if isinstance(value, dict) else 0
    return value if isinstance(value, (int, float)) else math.inf


def _read(path: Path) -> dict[str, Any]:
    """A JSON object in a file; empty if there is none to be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            # a pipe that is empty gives None
            read = json.loads(file.read(_MOST) or b"")
    except (OSError, ValueError, RecursionError):
        return {}
    return read if isinstance(read, dict) else {}
