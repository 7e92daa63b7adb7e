"""Writing a new repository with a whole history at once: one pack and ``packed-refs``, and no loose object.

So a history of twenty events needs some ten files and as many syncs, not a hundred and sixty. Objects come in the
order of the history, each as a delta of the one before at its path (`katafs.git.store.pack_writer`).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pygit2
from pygit2.enums import CheckoutStrategy, RepositoryOpenFlag

from katafs.errors import StorageError
from katafs.git.format import packed_refs
from katafs.git.format.packed_refs import PackedRef
from katafs.git.format.stored import Oid, object_id
from katafs.git.refs.reading import HEAD_OF_MAIN, MAIN, PACKED_REFS
from katafs.git.repo import GitRepo
from katafs.git.store.pack_files import NewPack
from katafs.git.store.pack_writer import PackWriter
from katafs.git.store.storing import storing, sync_path, write_new
from katafs.git.store.writer import ObjectMaker

# what libgit2 writes into a repository that it makes
_CONFIG = """\
[core]
\tbare = false
\trepositoryformatversion = 0
\tfilemode = true
\tlogallrefupdates = true
[user]
\tname = {name}
\temail = {email}
"""


def new_config(name: str, email: str) -> bytes:
    return _CONFIG.format(name=name, email=email).encode()


def init_repository(path: Path, name: str, email: str) -> GitRepo:
    """Make an empty, non-bare repository in ``path``: branch ``main``, that identity. Raises `StorageError`."""
    with storing("a new repository", path):
        _make_directories(path / ".git")
        _write_settings(path / ".git", name, email, is_durable=True)
    return GitRepo(path)


def _make_directories(git_dir: Path) -> None:
    for directory in ("", "objects", "objects/pack", "objects/info", "refs", "refs/heads", "refs/tags"):
        (git_dir / directory).mkdir()


def _write_settings(git_dir: Path, name: str, email: str, *, is_durable: bool) -> None:
    write_new(git_dir / "config", new_config(name, email), is_durable=is_durable)
    write_new(git_dir / "HEAD", HEAD_OF_MAIN, is_durable=is_durable)


def check_out(path: Path) -> None:
    """Put the files of ``main`` in the directory of its repository, with an index. Raises `StorageError`."""
    try:
        repo = pygit2.Repository(str(path / ".git"), RepositoryOpenFlag.NO_SEARCH)
        try:
            repo.checkout_head(strategy=CheckoutStrategy.FORCE)  # type: ignore[no-untyped-call]
        finally:
            repo.free()
    except (OSError, pygit2.GitError) as error:
        raise StorageError(f"cannot write a work tree: {error}", errno.EIO) from error


class HistoryWriter(ObjectMaker, ExitStack):
    """Writes objects to a pack, which is put into a new repository by `finish`; on disk then, if it is to be
    ``is_durable``. For a ``with`` statement. What is refused is an OSError."""

    def __init__(self, git_dir: Path, *, is_durable: bool) -> None:
        """Make the directories of a repository; ``git_dir`` must not be there."""
        super().__init__()
        self._git_dir, self._is_durable = git_dir, is_durable
        _make_directories(git_dir)
        self._new = self.enter_context(NewPack(git_dir / "objects/pack", PackWriter, is_durable=is_durable))
        self._seen: set[Oid] = set()

    def _made(self, kind: int, data: bytes, path: bytes) -> Oid:
        oid = object_id(kind, data)
        if oid not in self._seen:
            self._seen.add(oid)
            self._new.writer.add(oid, kind, path, data)
        return oid

    def finish(self, main: Oid, tags: Mapping[int, Oid], name: str, email: str) -> None:
        """Write what else a repository has: the references, and the identity."""
        self._new.finish()
        self._new.install()
        refs = {MAIN.encode(): PackedRef(main)} | {
            b"refs/tags/%d" % index: PackedRef(oid) for index, oid in tags.items()
        }
        write_new(self._git_dir / PACKED_REFS, packed_refs.build(refs), is_durable=self._is_durable)
        _write_settings(self._git_dir, name, email, is_durable=self._is_durable)
        if self._is_durable:
            sync_path(self._git_dir / "objects", self._git_dir / "refs", self._git_dir)
