"""Mending a repository's references and objects without libgit2: it may have no configuration and no ``HEAD``.

References are written as git does: with its locks, after a look at what is there under the lock.
"""

from __future__ import annotations

import os
import re
import secrets
import zlib
from contextlib import suppress
from pathlib import Path

from katafs.errors import RaceLostError
from katafs.git.objects import Oid
from katafs.git.references import packed_references, read_reference
from katafs.git.refs import RefWriter, make_parents
from katafs.git.repo import MAIN, GitRepo, open_plain
from katafs.git.storing import storing, sync_path

_PACKED_REFS = "packed-refs"
#: how old the lock of ``main``, of ``HEAD`` or of a branch must be, in seconds, for its maker to be dead
STALE_LOCK = 10.0
_MOST_PACKED = 64 << 20  # bytes
_HEAD_TEXT = f"ref: {MAIN}\n".encode()
_PACKED_LINES = re.compile(rb"^([0-9a-f]{40}) (\S+)\n(?:\^[0-9a-f]{40}\n)?", re.MULTILINE)


class RefMender(RefWriter):
    """Mends the references of one repository."""

    def replace(self, name: str, new: Oid | None, old: Oid | None) -> None:
        """Set a reference that is ``old`` to ``new``; None: it is not there, cannot be read, or is to be removed.

        Raises `RaceLostError` when it is something else by now, `StorageError`.
        """
        with storing(name, self._git_dir):
            path = self._git_dir / name
            made = make_parents(path.parent, self._git_dir)
            with self._locked(name, STALE_LOCK, new.hex().encode() + b"\n" if new is not None else None) as lock:
                if self._value(name) != old:
                    raise RaceLostError(f"{self._git_dir}: {name} was changed by another writer")
                if new is None:
                    self._unpack(name)
                    with suppress(FileNotFoundError):
                        os.unlink(path)
                else:
                    _remove_empty(path)
                    lock.become(path)
            for directory in (path.parent, *made):
                sync_path(directory)

    def _set_tag(self, index: int, commit: Oid) -> None:
        with suppress(RaceLostError):
            self.replace(f"refs/tags/{index}", commit, None)

    def point_head(self) -> None:
        """Let ``HEAD`` stand for ``main``."""
        with storing("HEAD", self._git_dir):
            with self._locked("HEAD", STALE_LOCK) as lock:
                lock.write(_HEAD_TEXT)
                lock.become(self._git_dir / "HEAD")
            sync_path(self._git_dir)

    def clean_packed(self) -> None:
        """Keep only the lines of ``packed-refs`` that git understands."""
        with storing(_PACKED_REFS, self._git_dir):
            self._rewrite_packed(None)

    def _value(self, name: str) -> Oid | None:
        found = read_reference(self._git_dir, name)
        return found.oid if found is not None else packed_references(self._git_dir)[0].get(name)

    def _unpack(self, name: str) -> None:
        """Remove a reference from ``packed-refs``."""
        if name in packed_references(self._git_dir)[0]:
            self._rewrite_packed(name.encode(errors="surrogateescape"))

    def _rewrite_packed(self, without: bytes | None) -> None:
        path = self._git_dir / _PACKED_REFS
        with self._locked(_PACKED_REFS, STALE_LOCK) as lock:
            with open(path, "rb", opener=open_plain) as file:
                text = file.read(_MOST_PACKED) + b"\n"
            first = text.partition(b"\n")[0]
            header = first + b"\n" if first.startswith(b"# pack-refs with:") else b""
            lines = [found[0] for found in _PACKED_LINES.finditer(text) if found[2] != without]
            lock.write(header + b"".join(lines))
            lock.become(path)
        sync_path(self._git_dir)


def put_object(repo: GitRepo, oid: Oid, word: bytes, data: bytes) -> None:
    """Store the bytes of an object, known to be those of its id, where it may be damaged. Raises `StorageError`."""
    path = repo.objects.loose_file(oid)
    with storing(f"object {oid.hex()}", repo.git_dir, len(data)):
        made = make_parents(path.parent, repo.git_dir)
        temporary = path.parent / f"tmp_obj_{secrets.token_hex(4)}"
        try:
            with open(temporary, "xb") as file:
                file.write(zlib.compress(b"%b %d\0" % (word, len(data)) + data))
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o444)
            os.rename(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        for directory in (path.parent, *made):
            sync_path(directory)


def _remove_empty(path: Path) -> None:
    """Remove empty directories where a reference is to be. Raises OSError when there is something in them."""
    if path.is_dir() and not path.is_symlink():
        for parent, _, _ in os.walk(path, topdown=False):
            os.rmdir(parent)
