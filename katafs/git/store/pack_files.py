"""The packs in a repository that others read and write meanwhile: putting one there, which may be replaced, taking away
those that were.

A pack and its ``.idx`` are written under temporary names, which git takes for what they are, and synced; then they are
renamed, the index last, since that is what readers look for. So nobody ever sees a part of a pack, and one who dies
leaves temporary files, or at most a pack without its index, which nobody misses: what is to be found in it is referred
to only when its writer has gone on.

No pack ever gets the name of another one: who has listed that, as git does before it packs anew, removes it by its
name. By the start of their names packs of ours are known: all that is in one was synced, and so was all that the
commits in it reach (`katafs.git.store.durable`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple

from katafs.git.beneath import File, names_in, open_plain, read_whole
from katafs.git.format.pack import midx_packs
from katafs.git.format.stored import Oid
from katafs.git.odb.packs import OURS
from katafs.git.store.pack_writer import PackWriter, QuickWriter
from katafs.git.store.storing import MUTEX, sync_directory, sync_together, write_new

#: how their names begin, of those without deltas, and of others: then 30 random digits
WITHOUT_DELTAS = OURS + "00"
WITH_DELTAS = OURS + "01"
#: what a ``.keep`` of ours says that has a file of its own
KEPT = b"katafs: being recorded\n"
_TEMPORARY = "tmp_pack_katafs_"


class NewPack(contextlib.ExitStack):
    """A pack that is being written to ``directory``, the ``objects/pack`` of a repository. For one thread. To be used
    in a ``with`` statement, at whose end what was not installed is removed. Raises OSError."""

    def __init__(self, directory: Path, kind: type[PackWriter] = QuickWriter, *, is_durable: bool = True) -> None:
        super().__init__()
        self._directory, self._is_durable = directory, is_durable
        try:
            if stat.S_ISLNK(os.lstat(directory).st_mode):
                raise OSError(errno.ELOOP, "a symbolic link leads elsewhere", os.fspath(directory))
        except FileNotFoundError:
            directory.mkdir(exist_ok=True)
        #: where the pack and its index are until they are installed
        self.temporary: list[str] = []
        self.callback(self._remove_left)
        self._file = self._new_file()
        start = WITHOUT_DELTAS if kind is QuickWriter else WITH_DELTAS
        self._path = directory / f"{start}{secrets.token_hex(15)}.pack"
        #: where the objects are to be added
        self.writer = kind(self._file)

    def finish(self, others: Collection[int] = ()) -> None:
        """Write the rest and the index, and sync both, if they are to last, and other files that are open."""
        pack = self.writer.finish()
        idx = self._new_file()
        idx.write(pack.idx)
        for file in (self._file, idx):
            file.flush()
        if self._is_durable:
            sync_together([self._file.fileno(), idx.fileno(), *others])

    def install(self, *, is_kept: bool = False) -> Path:
        """Let others see it: its path. ``is_kept``: with a ``.keep``, to be removed by `let_go` when something refers
        to its objects; until then ``git repack -a -d`` would drop them with the pack."""
        with contextlib.ExitStack() as failed:
            if is_kept:
                # on a full disk this may be what does not fit
                failed.callback(self._path.with_suffix(".keep").unlink, missing_ok=True)
                self._keep()
            os.rename(self.temporary[0], self._path)
            # who prunes may have taken the index for one that was left
            failed.callback(self._path.unlink, missing_ok=True)
            os.rename(self.temporary[1], self._path.with_suffix(".idx"))
            failed.pop_all()
            self.temporary.clear()
        if self._is_durable:
            sync_directory(self._directory)
        return self._path

    def _keep(self) -> None:
        """Make the ``.keep``: another name of the file that writers lock, which is empty. A file of its own, removed a
        moment later, is what ext4 is slow at: it uses no number again so soon, and looks through those it does not."""
        mark, mutex = self._path.with_suffix(".keep"), self._directory.parent.parent / MUTEX
        with contextlib.suppress(OSError):
            status = os.lstat(mutex)
            # git sees no link that leads nowhere, and `is_kept_by_us` would not know what is not empty
            if stat.S_ISREG(status.st_mode) and not status.st_size:
                os.link(mutex, mark)
                return
        write_new(mark, KEPT, is_durable=False)

    def _remove_left(self) -> None:
        for name in self.temporary:
            Path(name).unlink(missing_ok=True)

    def _new_file(self) -> BufferedRandom:
        """A new file, removed at the end if it was not installed; without a suffix, by which others know packs."""
        while True:
            name = f"{self._directory}/{_TEMPORARY}{secrets.token_hex(8)}"
            file = self.enter_context(BufferedRandom(File(name, "x+b", opener=partial(os.open, mode=0o444))))
            try:
                # says that its writer is alive
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # `remove_left_behind` was sooner
            except OSError:
                pass
            if os.path.lexists(name):
                self.temporary.append(name)
                return file


def store_pack(
    directory: Path, objects: Mapping[Oid, tuple[int, bytes]], others: Collection[int] = (), tries: int = 3
) -> Path:
    """Write objects, kind and data by id, as a pack that nobody replaces until it is let go; it is on disk when this
    returns, as are the ``others``, which are open: its path. Raises OSError."""
    try:
        with NewPack(directory) as new:
            for oid, (kind, data) in objects.items():
                new.writer.add(oid, kind, b"", data)
            new.finish(others)
            return new.install(is_kept=True)
    except FileNotFoundError:
        # ``git gc --prune=now`` removes temporary files, also of those who live
        if tries < 2:
            raise
    return store_pack(directory, objects, others, tries - 1)


def let_go(pack: Path) -> None:
    """What is in a pack of `store_pack` is referred to, or is not needed any more. Raises OSError."""
    pack.with_suffix(".keep").unlink(missing_ok=True)


def is_kept_by_us(keep: Path) -> bool:
    """Whether a ``.keep`` is one of `store_pack`: empty, or, after a power cut, a part of what it was, or NULs stand
    for the rest."""
    try:
        text = read_whole(keep, len(KEPT)).rstrip(b"\0")
    except OSError:
        return False
    return KEPT.startswith(text) and (
        text == KEPT or keep.name.startswith(OURS) or not keep.with_suffix(".pack").exists()
    )


def remove_left_behind(directory: Path) -> list[str]:
    """Remove the temporary files of writers that died, and let go of their packs: the names of all that was there. To
    be called by who is alone (see `katafs.git.store.storing`). Raises OSError."""
    names = names_in(directory)
    for name in names:
        if name.startswith(_TEMPORARY):
            # whoever compacts is alive without that lock
            with contextlib.suppress(OSError), File(open_plain(directory / name)) as file:
                # shared: on NFS the other one is not for what is only read
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                (directory / name).unlink()
        elif name.endswith(".keep") and is_kept_by_us(directory / name):
            let_go((directory / name).with_suffix(".pack"))
    return names


# what says that a pack is somebody's: to be kept, to be asked for elsewhere, to be forgotten
_MARKS = (".keep", ".promisor", ".mtimes")
# without its index nobody looks for a pack; the others are made from it: of reverse offsets, of reachability
_FILES = (".idx", ".rev", ".bitmap", ".pack")
_MIDX = "multi-pack-index"
_LARGEST_MIDX = 64 << 20  # bytes


class PackFile(NamedTuple):
    """A pack with its index. ``size`` is in bytes, ``identity`` another for each file, ``is_marked`` as somebody's."""

    path: Path
    size: int
    identity: tuple[int, int, int]
    is_marked: bool

    @property
    def stem(self) -> str:
        return os.fspath(self.path.with_suffix(""))


def pack_files(directory: Path) -> list[PackFile]:
    """The packs in ``objects/pack``, by name. Raises OSError."""
    try:
        names = frozenset(names_in(directory))
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        stem = name.removesuffix(".pack")
        if stem != name and f"{stem}.idx" in names:
            # it may be gone by now
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(directory / name)
                is_marked = any(stem + mark in names for mark in _MARKS)
                found.append(PackFile(directory / name, status.st_size, _identity(status), is_marked))
    return found


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_dev, status.st_ino, status.st_mtime_ns


def remove_packs(directory: Path, packs: Iterable[PackFile]) -> None:
    """Remove packs whose objects all are in another pack, which is on disk. Raises OSError. git believes a
    multi-pack-index whatever became of the packs that it names: it goes first, with what was made of it, and again if
    somebody has made it meanwhile."""
    remove_midx(directory)
    for pack in packs:
        if any(os.path.lexists(pack.path.with_suffix(mark)) for mark in _MARKS):
            continue
        with contextlib.suppress(FileNotFoundError):
            status = os.lstat(pack.path)
            # else it is another one by now
            if _identity(status) == pack.identity:
                for suffix in _FILES:
                    pack.path.with_suffix(suffix).unlink(missing_ok=True)
    if stale_midx(directory):
        remove_midx(directory)


def midx_files(directory: Path) -> list[Path]:
    """A multi-pack-index, or its layers, and what was made of it, in the order in which they are removed."""
    chained = directory / f"{_MIDX}.d"
    # a link may lead to files that have nothing to do with it
    if directory.is_symlink():
        return []
    layers = [] if chained.is_symlink() else sorted(chained.glob(f"{_MIDX}-*"))
    chain = [path for path in layers if path.name == f"{_MIDX}-chain"]
    made = sorted(directory.glob(f"{_MIDX}-*"))
    return [path for path in (directory / _MIDX, *chain, *made, *layers) if os.path.lexists(path)]


def remove_midx(directory: Path) -> None:
    """Remove a multi-pack-index: git does without, and makes it again. Raises OSError."""
    for path in midx_files(directory):
        if not path.is_dir() or path.is_symlink():
            path.unlink(missing_ok=True)


def stale_midx(directory: Path) -> str:
    """What is wrong with a multi-pack-index, in words; empty when nothing is, or there is none."""
    for path in midx_files(directory):
        if path.name != _MIDX and path.suffix != ".midx":
            continue
        try:
            missing = [
                name
                for name in midx_packs(read_whole(path, _LARGEST_MIDX))
                if not (directory / name).with_suffix(".pack").exists()
            ]
        except (OSError, ValueError) as error:
            return f"{path.name} cannot be read: {error}"
        if missing:
            return f"{path.name} speaks of {len(missing)} packs that are gone"
    return ""
