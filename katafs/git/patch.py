"""What differs between two trees, and between two contents, by libgit2; how alike two contents are, as git reckons it.

Names, modes and ids come back as values, a change of text as numbers of lines: nothing here writes a patch. Contents
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

from katafs.errors import DamagedError
from katafs.git.repo import MODE_BLOB, MODE_EXECUTABLE, MODE_SUBMODULE, MODE_SYMLINK, GitRepo, Oid

# git's diff.renameLimit: when more pairs than its square are left to compare, only exact renames are found.
RENAME_LIMIT = 1000

# More than this of a tree katafs does not show either (kata.listing)
MAX_PATHS = 100_000
MAX_DEPTH = 64

_LENGTHS = b" " + string.ascii_letters.swapcase().encode()


class Side(NamedTuple):
    """A file on one side of a difference: its path below the compared tree, its mode as git shows it, its object."""

    path: bytes
    mode: int
    oid: Oid

    @property
    def is_submodule(self) -> bool:
        return self.mode == MODE_SUBMODULE


class Delta(NamedTuple):
    """One file that differs: created if `old` is None, deleted if `new` is None, renamed if the paths differ."""

    old: Side | None
    new: Side | None


class Region(NamedTuple):
    """Lines of the old text that became lines of the new one; numbered from 0, the ends not included."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


def tree_deltas(repo: GitRepo, was: Oid | None, now: Oid | None) -> list[Delta]:
    """The files that differ between two trees (None: an empty one), renames paired, in order of the newer path.

    Raises `DamagedError` when a tree, or the size of a blob that may have been renamed, cannot be read.
    """
    if was == now:
        return []
    try:
        diff = _tree_diff(repo, was, now)
        deltas = [_delta(delta) for delta in diff.deltas]
        flags = _rename_flags(deltas)
        if flags is not None:
            # libgit2's own limit counts something else, the candidates for one file: out of the way
            diff.find_similar(flags, rename_limit=2**31)
            deltas = [_delta(delta) for delta in diff.deltas]
    except (KeyError, ValueError, OSError, pygit2.GitError) as error:
        raise DamagedError(f"{repo.git_dir}: two trees cannot be compared: {error}") from error
    # Modes may differ in odd bits that git does not show
    return [delta for delta in deltas if delta.old != delta.new]


def changed_regions(old: bytes, new: bytes, *, ignore_trailing_space: bool) -> list[Region]:
    """Where two texts differ, by lines that end in ``\\n``; between two regions there is at least one equal line.

    Among equally short answers it is the one of ``git diff``, but with `ignore_trailing_space` the one of saver, which
    does not ask libgit2 for git's indent heuristic.
    """
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


def similarity(old: bytes, new: bytes) -> int:
    """How much of the larger content is in the other one, in per cent: the figure that git 2.39 prints for a rename.

    git counts the bytes of equal pieces in any order. A piece is told by a number below 107927 made from it, so
    different pieces may pass for equal: reckoned here for those only that have no true equal.
    """
    pieces, others = _pieces(old), _pieces(new)
    equal = pieces & others
    alike = _by_number(pieces - equal) & _by_number(others - equal)
    return (equal.total() + alike.total()) * 100 // max(len(old), len(new), 1)


def _pieces(data: bytes) -> Counter[bytes]:
    """The pieces of a content, each with its bytes: a piece ends after a newline or 64 bytes. The rest is left out."""
    if not is_binary(data):
        data = data.replace(b"\r\n", b"\n")
    pieces: Counter[bytes] = Counter()
    start = 0
    while True:
        end = data.find(b"\n", start, start + 64) + 1 or start + 64
        if end > len(data):
            return pieces
        pieces[data[start:end]] += end - start
        start = end


def _by_number(pieces: Counter[bytes]) -> Counter[int]:
    numbers: Counter[int] = Counter()
    for piece, count in pieces.items():
        high = low = 0
        for byte in piece:
            high, low = ((high << 7 ^ low >> 25) + byte) & 0xFFFFFFFF, (low << 7 ^ high >> 25) & 0xFFFFFFFF
        numbers[(high + low * 0x61 & 0xFFFFFFFF) % 107927] += count
    return numbers


def _deflated_as_git(part: bytes) -> bytes:
    """One direction of a binary patch in git's own bytes: it deflates at level 1, the zlib in libgit2 otherwise.

    Each line is base 85 after a letter that tells its number of bytes, up to 52.
    """
    kind, *lines = part.split(b"\n")
    packed = b"".join(base64.b85decode(line[1:])[: _LENGTHS.index(line[0])] for line in lines)
    packed = zlib.compress(zlib.decompress(packed), 1)
    pieces = (packed[start : start + 52] for start in range(0, len(packed), 52))
    encoded = (b"%c%s\n" % (_LENGTHS[len(piece)], base64.b85encode(piece, pad=True)) for piece in pieces)
    return b"%s\n%s\n" % (kind, b"".join(encoded))


def _tree_diff(repo: GitRepo, was: Oid | None, now: Oid | None) -> pygit2.Diff:
    trees = [repo.raw[pygit2.Oid(raw=oid)].peel(pygit2.Tree) for oid in (was, now) if oid is not None]
    known: dict[pygit2.Oid, int] = {}
    if sum(_paths(tree, known, MAX_DEPTH) for tree in trees) > 2 * MAX_PATHS:
        raise ValueError("too many paths")
    if was is None or now is None:
        return trees[0].diff_to_tree(swap=was is None)
    return trees[0].diff_to_tree(trees[1])


def _paths(tree: pygit2.Tree, known: dict[pygit2.Oid, int], depth: int) -> int:
    """How many paths are below a tree. Each tree is visited once: ten small ones can stand for 10^10 paths."""
    if depth == 0:
        raise ValueError("trees too deep")
    if tree.id not in known:
        subtrees = (entry for entry in tree if isinstance(entry, pygit2.Tree))
        known[tree.id] = len(tree) + sum(_paths(subtree, known, depth - 1) for subtree in subtrees)
    return known[tree.id]


def _rename_flags(deltas: list[Delta]) -> DiffFind | None:
    """How libgit2 shall look for renames, of which it finds those that are at least half alike; None: not at all.

    FIND_RENAMES is said because libgit2's default asks the repository's configuration.
    """
    deleted = Counter(delta.old.oid for delta in deltas if delta.old is not None and delta.new is None)
    created = Counter(delta.new.oid for delta in deltas if delta.new is not None and delta.old is None)
    if not deleted or not created:
        return None
    exact = (deleted & created).total()
    if (deleted.total() - exact) * (created.total() - exact) > RENAME_LIMIT**2:
        return DiffFind.FIND_RENAMES | DiffFind.FIND_EXACT_MATCH_ONLY
    return DiffFind.FIND_RENAMES


def _delta(delta: pygit2.DiffDelta) -> Delta:
    old = None if delta.status == DeltaStatus.ADDED else _side(delta.old_file)
    new = None if delta.status == DeltaStatus.DELETED else _side(delta.new_file)
    return Delta(old, new)


def _side(file: pygit2.DiffFile) -> Side:
    return Side(file.raw_path, _shown_mode(int(file.mode)), bytes(file.id.raw))


def _shown_mode(mode: int) -> int:
    """The mode that git shows for a stored one, whatever its odd bits."""
    kind = mode & 0o170000
    if kind == MODE_BLOB & 0o170000:
        return MODE_EXECUTABLE if mode & 0o100 else MODE_BLOB
    return MODE_SYMLINK if kind == MODE_SYMLINK else MODE_SUBMODULE


def _span(start: int, count: int) -> tuple[int, int]:
    """A hunk's range from 0. An empty one is given by the line before it."""
    first = start - 1 if count else start
    return first, first + count
