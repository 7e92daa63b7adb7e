"""Making objects: blobs, trees, commits. What becomes of them is said by who inherits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from katafs.git.format.commit_object import build_commit
from katafs.git.format.loose import BLOB, COMMIT, TREE, Oid, object_id
from katafs.git.format.tree_object import Stored, build_tree, by_directory


class ObjectMaker:
    """Gives objects their ids and keeps nothing: what would be written can be known without writing.

    ``path`` is where an object is met in the tree of its commit; that of a tree ends in ``/``.
    """

    def _made(self, kind: int, data: bytes, path: bytes) -> Oid:  # noqa: ARG002 - others look at it
        return object_id(kind, data)

    def _entries(self, tree: Oid) -> list[Stored]:
        """The entries of a tree that is there."""
        raise NotImplementedError

    def blob(self, data: bytes, *, path: bytes = b"") -> Oid:
        """Make a blob."""
        return self._made(BLOB, data, path)

    def tree(
        self,
        base: Oid | None,
        blobs: Mapping[bytes, Oid],
        subtrees: Mapping[bytes, Oid | None] | None = None,
        *,
        path: bytes = b"/",
    ) -> Oid:
        """Make ``base`` with these blobs and subtrees put in; a subtree that is None is taken out."""
        entries = {name: (mode, oid) for mode, name, oid in self._entries(base)} if base is not None else {}
        entries |= {name: (b"100644", oid) for name, oid in blobs.items()}
        for name, subtree in (subtrees or {}).items():
            if subtree is not None:
                entries[name] = (b"40000", subtree)
            else:
                entries.pop(name, None)
        return self._made(TREE, build_tree((mode, name, oid) for name, (mode, oid) in entries.items()), path)

    def file_tree(self, files: Mapping[bytes, bytes], *, path: bytes = b"/") -> Oid | None:
        """Make files (path → content) as nested trees; None when there are none, as git has no empty directories."""
        if not files:
            return None
        here, below = by_directory(files)
        blobs = {name: self.blob(content, path=path + name) for name, content in here.items()}
        subtrees = {name: self.file_tree(inside, path=path + name + b"/") for name, inside in below.items()}
        return self.tree(None, blobs, subtrees, path=path)

    def commit(self, tree: Oid, parents: Sequence[Oid], message: str, name: str, email: str, time: int) -> Oid:
        """Make a commit whose author and committer are the same, in UTC; ``message`` gets no newline."""
        return self._made(COMMIT, build_commit(tree, parents, message, name, email, time), b"")
