"""Writing to one git repository: blobs, trees, commits, the branch and its tags.

Every call returns after what it wrote has been synced (``enable_fsync_gitdir``, set in the package's ``__init__``).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, ObjectType, RepositoryOpenFlag

from katafs.errors import DamagedError, RaceLostError, StorageError
from katafs.git.objects import Oid
from katafs.git.repo import MAIN, GitRepo, open_plain

log = logging.getLogger(__name__)

# How old, in seconds, the lock of a reference must be for its maker to be dead: it is held for some milliseconds.
# git and libgit2 never remove another's lock. Of a tag nothing can be lost: two who make it make the same.
_STALE_MAIN, _STALE_TAG = 10.0, 1.0
_TAG_TRIES = 40

_CONFIG_LIMIT = 1 << 16  # bytes
_INCLUDE = re.compile(rb"\[\s*include", re.IGNORECASE)

# libgit2 gives the operating system's reason in words only
_STORAGE_ERRNOS = {
    os.strerror(number): number
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE)
}


@contextmanager
def _storing(what: str, directory: Path, size: int = 4096) -> Iterator[None]:
    """Turn pygit2's exceptions into ours: a full disk is not a damaged repository.

    ``size`` is how much was to be written below ``directory``.
    """
    try:
        yield
    except (OSError, pygit2.GitError, KeyError, ValueError) as error:
        # pygit2 raises bare OSError(message) for some libgit2 errors
        number = (isinstance(error, OSError) and error.errno) or _errno_in(str(error)) or _errno_of(directory, size)
        if number is not None:
            raise StorageError(f"cannot write {what}: {os.strerror(number)}", number) from error
        raise DamagedError(f"cannot write {what}: {error}") from error


def _errno_in(message: str) -> int | None:
    return next((number for text, number in _STORAGE_ERRNOS.items() if text in message), None)


def _errno_of(directory: Path, size: int) -> int | None:
    """What the operating system says to a file of that size: libgit2 may tell of the error before (seen: an object
    that was not found, when the disk was full)."""
    try:
        with tempfile.TemporaryFile(dir=directory, prefix="tmp_obj_") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno if error.errno in _STORAGE_ERRNOS.values() else None
    return None


def init_repository(path: Path, name: str, email: str) -> GitRepo:
    """Make an empty, non-bare repository in ``path``: branch ``main``, that identity, no hooks or templates."""
    with _storing("a new repository", path):
        repo = pygit2.init_repository(str(path), initial_head="main", template_path="")
        repo.config["user.name"] = name
        repo.config["user.email"] = email
    return GitRepo(path)


def _check_config(path: Path) -> None:
    """Refuse a configuration that sends libgit2 to other files: to one that never ends, for instance.

    Raises `DamagedError`.
    """
    try:
        with open(path, "rb", opener=open_plain) as file:
            text = file.read(_CONFIG_LIMIT + 1)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}") from error
    if len(text) > _CONFIG_LIMIT or _INCLUDE.search(text):
        raise DamagedError(f"{path} is not a configuration that is obeyed")


class GitWriter:
    """Writes to the repository of a `GitRepo`, in the same thread."""

    def __init__(self, repo: GitRepo) -> None:
        self.repo = repo
        _check_config(repo.git_dir / "config")
        with _storing("to the repository", repo.git_dir):
            # NO_SEARCH, so that a damaged kata is never taken for a repository around the store
            self._raw = pygit2.Repository(str(repo.git_dir), RepositoryOpenFlag.NO_SEARCH)
        self._objects = repo.git_dir / "objects"

    def blob(self, data: bytes) -> Oid:
        """Store a blob."""
        with _storing("a blob", self._objects, len(data) + 4096):
            return bytes(self._raw.create_blob(data).raw)

    def tree(
        self, base: Oid | None, blobs: Mapping[bytes, Oid], subtrees: Mapping[bytes, Oid | None] | None = None
    ) -> Oid:
        """Store ``base`` with these blobs and subtrees put in; a subtree that is None is taken out."""
        with _storing("a tree", self._objects):
            if base is not None:
                # libgit2 would never come back from one that was cut short
                self.repo.tree(base)
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
        with _storing("a commit", self._objects):
            links = [f"tree {tree.hex()}\n", *(f"parent {parent.hex()}\n" for parent in parents)]
            who = f"{name} <{email}> {time} +0000\n"
            text = f"{''.join(links)}author {who}committer {who}\n{message}"
            # not create_commit(), which gives an id although the disk was full (libgit2 1.9.7)
            return bytes(self._raw.write(ObjectType.COMMIT, text.encode()).raw)

    def sync_objects(self) -> None:
        """Sync the directory of the object directories: libgit2 leaves out the parent of a new ``objects/xx``."""
        with _storing("objects", self._objects):
            fd = os.open(self._objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def move_main(self, new: Oid, old: Oid | None) -> None:
        """Move ``main`` from ``old`` to ``new`` by compare-and-swap; None: there was no branch.

        Raises `RaceLostError` when the branch is somewhere else by now, or locked by somebody; then it makes sense to
        try again.
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
            now = self.repo.main()
            if now == new:
                # what failed came after: the event is recorded, and must not be recorded again
                log.warning("%s: moving %s: %s", self.repo.git_dir, MAIN, error)
                return
            number = _errno_in(str(error))
            if number is not None:
                raise StorageError(f"cannot move {MAIN}: {os.strerror(number)}", number) from error
            if now != old or "lock" in str(error):
                raise RaceLostError(f"{self.repo.git_dir}: {MAIN} could not be moved: {error}") from error
            raise DamagedError(f"{self.repo.git_dir}: {MAIN} cannot be moved: {error}") from error

    def set_tag(self, index: int, commit: Oid) -> None:
        """Make the lightweight tag of an event; one that exists is left as it is."""
        name = f"refs/tags/{index}"
        tries = 0
        while self.repo.tag(index) is None:
            self._unlock(name, _STALE_TAG)
            try:
                with _storing(f"tag {index}", self.repo.git_dir):
                    self._raw.references.create(name, pygit2.Oid(raw=commit))
            except DamagedError:
                # Whoever records the next event makes the tag of this one, if he sees none: the same tag.
                is_being_made = (self.repo.git_dir / f"{name}.lock").exists() or self.repo.tag(index) is not None
                if not is_being_made or tries == _TAG_TRIES:
                    raise
                tries += 1
                time.sleep(0.005)

    def unlock_main(self) -> None:
        """Remove a lock of ``main`` that somebody left behind who died."""
        self._unlock(MAIN, _STALE_MAIN)

    def _unlock(self, name: str, seconds: float) -> None:
        lock = self.repo.git_dir / f"{name}.lock"
        if not lock.exists():
            return
        directory = os.open(lock.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # one at a time, lest a second one remove what is a new lock by then
            fcntl.flock(directory, fcntl.LOCK_EX)
            if time.time() - os.lstat(lock).st_mtime > seconds:
                os.unlink(lock)
                log.warning("%s was left behind, and is removed", lock)
        except FileNotFoundError:
            pass
        finally:
            os.close(directory)
