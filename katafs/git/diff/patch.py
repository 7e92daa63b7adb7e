"""What differs between two trees, and between two contents.

Names, modes and ids come back as values, a change of text as numbers of lines: nothing here prints a patch. Contents
are compared as byte strings that belong to no repository, because for those of one libgit2 looks up the diff driver of
each path in ``.gitattributes``, ``.git/info/attributes`` and ``.git/config`` (seen; libgit2's diff_driver.c).
"""

from __future__ import annotations

import base64
import string
import zlib
from collections import Counter
from typing import NamedTuple

import pygit2
from pygit2.enums import DeltaStatus, DiffFind, DiffOption

from katafs.errors import DamagedError, HeavyError
from katafs.git.format.stored import MODE_BLOB, MODE_EXECUTABLE, MODE_SUBMODULE, MODE_SYMLINK, Oid, TreeEntry
from katafs.git.repo import GitRepo

# git's diff.renameLimit: when more pairs than its square are left to compare, only exact renames are found.
_RENAME_LIMIT = 1000

# Larger or deeper trees katafs does not show either (kata.listing)
_MAX_PATHS = 100_000
_MAX_DEPTH = 64

_KIND = 0o170000
_LENGTHS = b" " + string.ascii_letters.swapcase().encode()


class Side(NamedTuple):
    """A file on one side of a difference: its path below the compared tree, its mode as git shows it, its object."""

    path: bytes
    mode: int
    oid: Oid

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]

    @property
    def kind(self) -> int:
        """The mode without permissions."""
        return self.mode & _KIND

    @property
    def is_regular(self) -> bool:
        return self.kind == MODE_BLOB & _KIND

    @property
    def is_submodule(self) -> bool:
        return self.mode == MODE_SUBMODULE


class Delta(NamedTuple):
    """One file that differs: created if `old` is None, deleted if `new` is None, renamed if the paths differ."""

    old: Side | None
    new: Side | None

    @property
    def path(self) -> bytes:
        """The newer path."""
        side = self.new or self.old
        return side.path if side is not None else b""


class Region(NamedTuple):
    """Lines of the old text that became lines of the new one; numbered from 0, the ends not included."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


def tree_deltas(
    repo: GitRepo, was: Oid | None, now: Oid | None, *, most: int | None = None, most_moved: int | None = None
) -> list[Delta]:
    """The files that differ between two trees, renames paired by libgit2, in order of `path`. Raises as
    `unpaired_deltas` does, and `HeavyError` where more than ``most_moved`` came or went, among which some are to be
    paired."""
    deltas = unpaired_deltas(repo, was, now, most=most)
    created = [delta.new for delta in deltas if delta.new is not None and delta.old is None]
    deleted = [delta.old for delta in deltas if delta.old is not None and delta.new is None]
    if was is None or now is None or not created or not deleted:
        return deltas
    if most_moved is not None and len(created) + len(deleted) > most_moved:
        raise HeavyError(f"{repo.git_dir}: renames are to be found among many files")
    # libgit2 is told, because its default asks the repository's configuration
    flags = DiffFind.FIND_RENAMES
    same = (Counter(side.oid for side in created) & Counter(side.oid for side in deleted)).total()
    if (len(created) - same) * (len(deleted) - same) > _RENAME_LIMIT**2:
        flags |= DiffFind.FIND_EXACT_MATCH_ONLY
    else:
        # libgit2 1.9.7 never returns from a truncated loose object: what it is going to read is read here first
        for side in created + deleted:
            if not side.is_submodule:
                repo.blob(side.oid)
    repo.objects.too_heavy = None
    try:
        return _paired(repo, was, now, flags)
    except (KeyError, ValueError, OSError, pygit2.GitError) as error:
        if repo.objects.too_heavy is not None:
            raise repo.objects.too_heavy from error
        raise DamagedError(f"{repo.git_dir}: two trees cannot be compared: {error}") from error


def unpaired_deltas(repo: GitRepo, was: Oid | None, now: Oid | None, *, most: int | None = None) -> list[Delta]:
    """The files that differ between two trees (None: an empty one), none renamed; in order of `path`. A file that
    became a symbolic link, or the like, is created and deleted.

    Equal subtrees are not read. Raises `DamagedError` when an object that is needed cannot be read, and for trees that
    are larger or deeper than katafs shows; `HeavyError` where more than ``most`` files and directories differ.
    """
    if was == now:
        return []
    deltas: list[Delta] = []
    todo = [(b"", was, now)]
    for prefix, was_tree, now_tree in todo:
        # Ten small trees can stand for 10^10 paths.
        if len(todo) + len(deltas) > _MAX_PATHS or prefix.count(b"/") > _MAX_DEPTH:
            raise DamagedError(f"{repo.git_dir}: the trees are too large or too deep to be compared")
        old, new = _entries(repo, was_tree), _entries(repo, now_tree)
        for name in old.keys() | new.keys():
            one, other = old.get(name), new.get(name)
            if one != other:
                path = prefix + name
                (one_file, one_tree), (other_file, other_tree) = _parts(path, one), _parts(path, other)
                if one_file is not None and other_file is not None and one_file.kind != other_file.kind:
                    deltas += [Delta(None, other_file), Delta(one_file, None)]
                elif one_file != other_file:
                    deltas.append(Delta(one_file, other_file))
                if one_tree != other_tree:
                    todo.append((path + b"/", one_tree, other_tree))
        if most is not None and len(todo) + len(deltas) > most:
            raise HeavyError(f"{repo.git_dir}: more than {most} files differ")
    return sorted(deltas, key=lambda delta: (delta.path, delta.new is None))


def changed_regions(old: bytes, new: bytes, *, ignore_trailing_space: bool) -> list[Region]:
    """Where two texts differ, by lines that end in ``\\n``; between two regions there is at least one equal line. Among
    equally short answers it is the one of ``git diff``, but with `ignore_trailing_space` the one of saver, which does
    not ask libgit2 for git's indent heuristic."""
    flag = DiffOption.IGNORE_WHITESPACE_EOL if ignore_trailing_space else DiffOption.INDENT_HEURISTIC
    # No context, for pygit2 has 16 bits for its number of lines: there is no way to ask for all of a long file.
    patch = pygit2.Patch.create_from(old, new, flag=flag | DiffOption.FORCE_TEXT, context_lines=0, interhunk_lines=0)
    return [
        Region(*_span(hunk.old_start, hunk.old_lines), *_span(hunk.new_start, hunk.new_lines)) for hunk in patch.hunks
    ]


def binary_body(old: bytes, new: bytes) -> bytes:
    """The ``GIT binary patch`` that turns ``old`` into ``new``, and back; libgit2 chooses between literal and delta."""
    patch = pygit2.Patch.create_from(old, new, flag=DiffOption.SHOW_BINARY | DiffOption.FORCE_BINARY)
    _, body = patch.data.split(b"GIT binary patch\n", 1)
    return b"GIT binary patch\n" + b"".join(map(_deflated_as_git, body.removesuffix(b"\n\n").split(b"\n\n")))


def is_binary(data: bytes) -> bool:
    """Whether git takes a content for binary: by a NUL near its start."""
    return b"\0" in data[:8000]


def _deflated_as_git(part: bytes) -> bytes:
    """One direction of a binary patch in git's own bytes: it deflates at level 1, the zlib in libgit2 otherwise. Each
    line is base 85 after a letter that tells its number of bytes, up to 52."""
    kind, *lines = part.split(b"\n")
    packed = b"".join(base64.b85decode(line[1:])[: _LENGTHS.index(line[0])] for line in lines)
    packed = zlib.compress(zlib.decompress(packed), 1)
    pieces = (packed[start : start + 52] for start in range(0, len(packed), 52))
    encoded = (b"%c%s\n" % (_LENGTHS[len(piece)], base64.b85encode(piece, pad=True)) for piece in pieces)
    return b"%s\n%s\n" % (kind, b"".join(encoded))


def _span(start: int, count: int) -> tuple[int, int]:
    """A hunk's range from 0. An empty one is given by the line before it."""
    first = start - 1 if count else start
    return first, first + count


def _entries(repo: GitRepo, tree: Oid | None) -> dict[bytes, TreeEntry]:
    return {entry.name: entry for entry in repo.tree(tree)} if tree is not None else {}


def _parts(path: bytes, entry: TreeEntry | None) -> tuple[Side | None, Oid | None]:
    """The file at a path, the tree at it."""
    if entry is None or entry.is_tree:
        return None, entry and entry.oid
    return _side(path, entry.mode, entry.oid), None


def _side(path: bytes, mode: int, oid: Oid) -> Side:
    """A file with the mode that git shows for a stored one, whatever its odd bits."""
    if mode & _KIND == MODE_BLOB & _KIND:
        return Side(path, MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB, oid)
    return Side(path, MODE_SYMLINK if mode & _KIND == MODE_SYMLINK else MODE_SUBMODULE, oid)


def _paired(repo: GitRepo, was: Oid, now: Oid, flags: DiffFind) -> list[Delta]:
    """All deltas by libgit2, which takes for renamed what is at least half alike, as it reckons."""
    old, new = (repo.objects.repository[pygit2.Oid(raw=oid)].peel(pygit2.Tree) for oid in (was, now))
    diff = old.diff_to_tree(new)
    # libgit2's own limit counts something else, the candidates for one file: out of the way
    diff.find_similar(flags, rename_limit=2**31)
    deltas = []
    for delta in diff.deltas:
        sides = [_side(file.raw_path, int(file.mode), bytes(file.id.raw)) for file in (delta.old_file, delta.new_file)]
        if delta.status == DeltaStatus.ADDED:
            deltas.append(Delta(None, sides[1]))
        elif delta.status == DeltaStatus.DELETED:
            deltas.append(Delta(sides[0], None))
        elif sides[0] != sides[1]:
            deltas.append(Delta(*sides))
    return deltas
