"""Writing to one git repository: blobs, trees, commits, the branch and its tags.

Every call returns after what it wrote has been synced (``enable_fsync_gitdir``, set in the package's ``__init__``).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from katafs.errors import DamagedError, RaceLostError, StorageError
from katafs.git.repo import MAIN, GitRepo, Oid

# libgit2 gives the operating system's reason in words only
_STORAGE_ERRNOS = {
    os.strerror(number): number
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
}


@contextmanager
def _storing(what: str) -> Iterator[None]:
    """Turn pygit2's exceptions into ours: a full disk is not a damaged repository."""
    try:
        yield
    except OSError as error:
        # pygit2 raises bare OSError(message) for some libgit2 errors
        number = error.errno or _errno_in(str(error))
        if number is None:
            raise DamagedError(f"cannot write {what}: {error}") from error
        raise StorageError(f"cannot write {what}: {os.strerror(number)}", number) from error
    except (pygit2.GitError, KeyError, ValueError) as error:
        number = _errno_in(str(error))
        if number is not None:
            raise StorageError(f"cannot write {what}: {os.strerror(number)}", number) from error
        raise DamagedError(f"cannot write {what}: {error}") from error


def _errno_in(message: str) -> int | None:
    return next((number for text, number in _STORAGE_ERRNOS.items() if text in message), None)


def init_repository(path: Path, name: str, email: str) -> GitRepo:
    """Make an empty, non-bare repository in ``path``: branch ``main``, that identity, no hooks or templates."""
    with _storing("a new repository"):
        repo = pygit2.init_repository(str(path), initial_head="main", template_path="")
        repo.config["user.name"] = name
        repo.config["user.email"] = email
    return GitRepo(path)


class GitWriter:
    """Writes to the repository of a `GitRepo`, in the same thread."""

    def __init__(self, repo: GitRepo) -> None:
        self.repo = repo
        self._raw = repo.raw

    def blob(self, data: bytes) -> Oid:
        """Store a blob."""
        with _storing("a blob"):
            return bytes(self._raw.create_blob(data).raw)

    def tree(
        self, base: Oid | None, blobs: Mapping[bytes, Oid], subtrees: Mapping[bytes, Oid | None] | None = None
    ) -> Oid:
        """Store ``base`` with these blobs and subtrees put in; a subtree that is None is taken out."""
        with _storing("a tree"):
            builder = self._raw.TreeBuilder(pygit2.Oid(raw=base)) if base is not None else self._raw.TreeBuilder()
            for name, oid in blobs.items():
                builder.insert(name.decode(), pygit2.Oid(raw=oid), FileMode.BLOB)
            for name, subtree in (subtrees or {}).items():
                if subtree is not None:
                    builder.insert(name.decode(), pygit2.Oid(raw=subtree), FileMode.TREE)
                elif builder.get(name.decode()) is not None:
                    builder.remove(name.decode())
            return bytes(builder.write().raw)

    def file_tree(self, files: Mapping[bytes, bytes]) -> Oid | None:
        """Store files (path → content) as nested trees; None when there are none, as git has no empty directories."""
        if not files:
            return None
        blobs: dict[bytes, Oid] = {}
        below: dict[bytes, dict[bytes, bytes]] = {}
        for path, content in files.items():
            first, slash, rest = path.partition(b"/")
            if slash:
                below.setdefault(first, {})[rest] = content
            else:
                blobs[first] = self.blob(content)
        return self.tree(None, blobs, {name: self.file_tree(inside) for name, inside in below.items()})

    def commit(self, tree: Oid, parents: list[Oid], message: str, name: str, email: str, time: int) -> Oid:
        """Store a commit whose author and committer are the same, in UTC; `message` gets no newline."""
        with _storing("a commit"):
            who = pygit2.Signature(name, email, time, 0)
            ids: list[str | pygit2.Oid] = [pygit2.Oid(raw=parent) for parent in parents]
            return bytes(self._raw.create_commit(None, who, who, message, pygit2.Oid(raw=tree), ids).raw)

    def sync_objects(self) -> None:
        """Sync the directory of the object directories: libgit2 leaves out the parent of a new ``objects/xx``."""
        with _storing("objects"):
            fd = os.open(self.repo.git_dir / "objects", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def move_main(self, new: Oid, old: Oid | None) -> None:
        """Move ``main`` from ``old`` to ``new`` by compare-and-swap; None: there was no branch.

        Raises `RaceLostError` when the branch is somewhere else by now, or locked by somebody.
        """
        try:
            if old is None:
                self._raw.references.create(MAIN, pygit2.Oid(raw=new))
                return
            reference = self._raw.lookup_reference(MAIN)
            if bytes(pygit2.Oid(hex=str(reference.target)).raw) != old:
                raise RaceLostError(f"{self.repo.git_dir}: {MAIN} was moved by another writer")
            # libgit2 compares with the value loaded in this object while it holds main.lock
            reference.set_target(pygit2.Oid(raw=new))
        except (OSError, pygit2.GitError, KeyError, ValueError) as error:
            number = _errno_in(str(error))
            if number is not None:
                raise StorageError(f"cannot move {MAIN}: {os.strerror(number)}", number) from error
            raise RaceLostError(f"{self.repo.git_dir}: {MAIN} could not be moved: {error}") from error

    def set_tag(self, index: int, commit: Oid) -> None:
        """Make the lightweight tag of an event; one that exists is left as it is."""
        try:
            with _storing(f"tag {index}"):
                self._raw.references.create(f"refs/tags/{index}", pygit2.Oid(raw=commit))
        except DamagedError:
            if self.repo.tag(index) is None:
                raise
