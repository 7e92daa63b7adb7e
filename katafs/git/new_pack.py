"""Putting a pack into a repository that others read and write meanwhile.

A pack and its ``.idx`` are written under temporary names, which git takes for what they are, and synced; then they are
renamed, the index last, since that is what readers look for. So nobody ever sees a part of a pack, and one who dies
leaves temporary files, or at most a pack without its index, which nobody misses: what is to be found in it is referred
to only when its writer has gone on.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
import zlib
from collections.abc import Mapping
from io import BufferedRandom
from pathlib import Path
from types import TracebackType
from typing import Self

from katafs.git.objects import Oid
from katafs.git.pack import Pack, PackWriter
from katafs.git.repo import open_plain
from katafs.git.storing import sync_directory

#: what we write into a ``.keep``
KEPT = b"katafs: being recorded\n"
_TRIES = 3
_TEMPORARY = "tmp_pack_katafs_"
# seconds; nobody writes to one file of a pack for so long, without writing to it
_LEFT_BEHIND = 3600.0
# bytes; less is written faster than deflated, and takes one block of the disk in any case
_SMALL = 256


class QuickWriter(PackWriter):
    """Writes what is packed anew later."""

    def _deflate(self, data: bytes) -> bytes:
        return zlib.compress(data, 1 if len(data) > _SMALL else 0)


class NewPack:
    """A pack that is being written to ``directory``, the ``objects/pack`` of a repository. For one thread.

    To be used in a ``with`` statement, at whose end what was not installed is removed. Raises OSError.
    """

    def __init__(self, directory: Path, kind: type[PackWriter] = QuickWriter) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        self._undo = contextlib.ExitStack()
        self._pack, self._file = self._temporary()
        self._idx = ""
        self._path = directory
        #: where the objects are to be added
        self.writer = kind(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    @property
    def temporary(self) -> tuple[str, str]:
        """Where the pack and its index are until they are installed."""
        return self._pack, self._idx

    def finish(self) -> Pack:
        """Write the rest and the index, and sync both."""
        pack = self.writer.finish()
        _sync(self._file)
        self._idx, file = self._temporary()
        file.write(pack.idx)
        _sync(file)
        # A name that no pack ever had: git, which has listed an old one of the same content, removes that by its name.
        self._path = self._directory / f"pack-{secrets.token_hex(20)}.pack"
        return pack

    def install(self, *, is_kept: bool = False) -> Path:
        """Let others see it: its path.

        ``is_kept``: with a ``.keep``, to be removed by `let_go` when something refers to its objects; until then
        ``git repack -a -d`` would drop them with the pack.
        """
        with contextlib.ExitStack() as failed:
            if is_kept:
                mark = self._path.with_suffix(".keep")
                with contextlib.suppress(FileExistsError), open(mark, "xb") as keep:
                    # on a full disk this may be what does not fit
                    failed.callback(_remove, os.fspath(mark))
                    keep.write(KEPT)
            os.rename(self._pack, self._path)
            os.rename(self._idx, self._path.with_suffix(".idx"))
            failed.pop_all()
        sync_directory(self._directory)
        return self._path

    def _temporary(self) -> tuple[str, BufferedRandom]:
        """A new file, removed at the end if it still has this name; without a suffix, by which others know packs."""
        fd, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=self._directory)
        self._undo.callback(_remove, name)
        file = self._undo.enter_context(os.fdopen(fd, "w+b"))
        os.fchmod(fd, 0o444)
        return name, file


def store_pack(directory: Path, objects: Mapping[Oid, tuple[int, bytes]]) -> Path:
    """Write objects, kind and data by id, as a pack that nobody replaces until it is let go; it is on disk when this
    returns: its path. Raises OSError."""
    for left in reversed(range(_TRIES)):
        try:
            with NewPack(directory) as new:
                for oid, (kind, data) in objects.items():
                    new.writer.add(oid, kind, b"", data)
                new.finish()
                return new.install(is_kept=True)
        except FileNotFoundError:
            # ``git gc --prune=now`` removes temporary files, also of those who live
            if not left:
                raise
    raise AssertionError


def let_go(pack: Path) -> None:
    """What is in a pack of `store_pack` is referred to, or is not needed any more. Raises OSError."""
    keep = pack.with_suffix(".keep")
    with contextlib.suppress(FileNotFoundError):
        with open(keep, "rb", opener=open_plain) as file:
            text = file.read(len(KEPT) + 1)
        # one who died before he could write into it had no pack either
        if text == KEPT or (not text and not os.path.lexists(pack)):
            keep.unlink()


def remove_left_behind(directory: Path) -> None:
    """Remove the temporary files of writers that died, and let go of their packs. Raises OSError."""
    with os.scandir(directory) as entries:
        found = [entry for entry in entries if entry.name.startswith(_TEMPORARY) or entry.name.endswith(".keep")]
    for entry in found:
        with contextlib.suppress(FileNotFoundError):
            if time.time() - entry.stat(follow_symlinks=False).st_mtime > _LEFT_BEHIND:
                if entry.name.startswith(_TEMPORARY):
                    os.unlink(entry)
                elif entry.is_file(follow_symlinks=False):
                    let_go((directory / entry.name).with_suffix(".pack"))


def _remove(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


def _sync(file: BufferedRandom) -> None:
    file.flush()
    os.fsync(file.fileno())
