"""Writes the image of a download: what its files hold, then the archive of them.

It is safe to unpack: nothing leaves NAME/, is a link, or makes git run a program. What could (``.git`` in any
spelling, a git directory inside) is not in the work tree, so that `git status` calls it deleted.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from katafs.errors import TooLargeError, storage_errors
from katafs.git import GitRepo, Oid
from katafs.git.format import packed_refs
from katafs.git.format.packed_refs import PackedRef
from katafs.git.format.stored import index_file
from katafs.git.refs.reading import HEAD_OF_MAIN, MAIN
from katafs.git.store.compaction import whole_pack
from katafs.git.store.pack_writer import write_pack
from katafs.kata.model.trees import MAX_PATHS, folded, is_dot_git
from katafs.kata.views.spool import NOT_KEPT, Extent, SpoolFile
from katafs.text import decode

DIRECTORY = 0o040755
FILE = 0o100644

_CHUNK = 1 << 20
# a few trees can name each other so often that their files would fill any disk
_MOST_FILES = MAX_PATHS + 100  # with those beside files/
_MOST_BYTES = 1 << 30
# in front of it come NAME and the place where it is unpacked, and Linux takes no path of 4,096 bytes
_LONGEST_PATH = 3000


# Our index knows sizes and times only (checkStat, trustctime); there are no links, and no modes but one.
_CONFIG = b"""\
[core]
\trepositoryformatversion = 0
\tbare = false
\tfilemode = false
\tsymlinks = false
\tautocrlf = false
\tcheckStat = minimal
\ttrustctime = false
"""
# What is said here wins over .gitattributes and over the user's own settings (gitattributes(5)).
_ATTRIBUTES = b"""\
# Files are what the kata stored, byte by byte, and no .gitattributes in it chooses a program to run.
# Remove this file to use your own .gitattributes.
* -text -ident !eol !filter !working-tree-encoding !diff !merge
"""
_EMPTY_DIRECTORIES = (b".git/refs/heads", b".git/refs/tags")


class Member(NamedTuple):
    """A directory or a file: mode with its type, size in bytes (0 for a directory), seconds since the epoch."""

    mode: int
    size: int
    mtime: int


class Image(NamedTuple):
    """What `write_image` wrote: the members, and where they and the archive are in the file."""

    members: Mapping[bytes, Member]
    files: Mapping[bytes, Extent]
    tgz: Extent


class Source(NamedTuple):
    """What a download is made of: a commit, what the tags of its events refer to (None: there is none), NAME, and the
    time of the commit; and the number that the archive is known by."""

    oid: Oid
    tags: Mapping[int, Oid | None]
    name: str
    time_ns: int
    number: int = 0

    @property
    def mtime(self) -> int:
        """Of every member, in seconds."""
        return self.time_ns // 1_000_000_000


def write_image(file: SpoolFile, repo: GitRepo, source: Source) -> Image:
    """Write the image of a commit to an empty file. Raises `DamagedError`, `StorageError`, `TooLargeError`, and
    `HeavyError` when the budget of ``repo`` is used up."""
    with storage_errors(NOT_KEPT):
        files = _add_repository(file, repo, source)
        files |= _add_work_tree(file, repo, repo.commit(source.oid).tree, source.mtime)
        members = _members(files, source.mtime)
        return Image(members, files, file.add(_gzip(_tar(source.name, members, files, file))))


def _add_repository(file: SpoolFile, repo: GitRepo, source: Source) -> dict[bytes, Extent]:
    """What is in ``.git`` but its index. The pack comes first, since it is written to an empty file. The tags are those
    of commits that the tip reaches: a pack that is taken as it is may have others."""
    found = whole_pack(repo, source.oid)
    if found is not None:
        pack, data = found
        file.add([data])
    else:
        pack = write_pack(repo, source.oid, file.file)
        file.grow(pack.size)
    pack_path = f".git/objects/pack/pack-{pack.name}".encode()
    refs = {MAIN.encode(): PackedRef(source.oid)}
    for index, tag in source.tags.items():
        # a tag of its own, or none
        oid = tag if tag in pack.commits else repo.commit_of_event(source.oid, index).oid
        if oid in pack.commits:
            refs[b"refs/tags/%d" % index] = PackedRef(oid)
    small = {
        pack_path + b".idx": pack.idx,
        b".git/packed-refs": packed_refs.build(refs),
        b".git/HEAD": HEAD_OF_MAIN,
        b".git/config": _CONFIG,
        b".git/info/attributes": _ATTRIBUTES,
    }
    return {pack_path + b".pack": Extent(0, pack.size)} | {path: file.add([data]) for path, data in small.items()}


def _add_work_tree(file: SpoolFile, repo: GitRepo, tree: Oid, mtime: int) -> dict[bytes, Extent]:
    """The files of the tip, as they are stored, and the index that knows them."""
    files = {}
    entries = []
    limit = file.size + _MOST_BYTES
    for path, mode, oid in _work_files(repo, tree):
        data = repo.blob(oid)
        entries.append((path, mode, oid, len(data)))
        files[path] = file.add([data])
        if file.size > limit:
            raise TooLargeError(f"{repo.path}: too large to download")
    files[b".git/index"] = file.add([index_file(entries, mtime)])
    return files


def _members(files: Mapping[bytes, Extent], mtime: int) -> dict[bytes, Member]:
    """All files and the directories they need, sorted by components, so that a directory comes first."""
    directories = {b"", *_EMPTY_DIRECTORIES}
    for path in [*files, *_EMPTY_DIRECTORIES]:
        while path := path.rpartition(b"/")[0]:
            directories.add(path)
    members = {path: Member(DIRECTORY, 0, mtime) for path in directories}
    members |= {path: Member(FILE, extent.size, mtime) for path, extent in files.items()}
    return dict(sorted(members.items(), key=lambda item: item[0].split(b"/")))


def _work_files(repo: GitRepo, root: Oid) -> Iterator[tuple[bytes, int, Oid]]:
    """Path, mode and id of the blobs below a tree, without submodules and what is not safe to unpack."""
    trees = [(b"", root)]
    count = 0
    while trees:
        prefix, tree = trees.pop()
        entries = repo.tree(tree)
        count += len(entries)
        if count > _MOST_FILES:
            raise TooLargeError(f"{repo.path}: too many files to download")
        hidden = _hidden_names(entry.name for entry in entries)
        for entry in entries:
            path = prefix + entry.name
            if entry.name in hidden or len(path) > _LONGEST_PATH:
                continue
            if entry.is_tree:
                trees.append((path + b"/", entry.oid))
            elif not entry.is_submodule:
                yield path, entry.mode, entry.oid


def _hidden_names(names: Iterable[bytes]) -> set[bytes]:
    """Those names of one directory that some system takes for ``.git`` or for another directory; and ``HEAD`` where it
    makes a git directory of this one, whose configuration git would obey to anybody who goes there."""
    seen = {name: folded(decode(name)) for name in names}
    found = set(seen.values())
    is_git_directory = {("objects",), ("refs",)} <= found or ("commondir",) in found
    return {
        name
        for name, parts in seen.items()
        if any(is_dot_git(part) for part in parts)
        or (len(parts) > 1 and "" in parts)
        or (is_git_directory and parts == ("head",))
    }


def _gzip(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A gzip stream (RFC 1952) without a name and a time in its head."""
    # level 1, since most of it, the pack, is small already
    stream = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in pieces:
        yield stream.compress(piece)
    yield stream.flush()


def _tar(name: str, members: Mapping[bytes, Member], files: Mapping[bytes, Extent], file: SpoolFile) -> Iterator[bytes]:
    """The members below one directory NAME, as GNU tar writes them, which keeps names of any bytes and length."""
    for path, member in members.items():
        info = tarfile.TarInfo(f"{name}/{path.decode('utf-8', 'surrogateescape')}" if path else name)
        info.type = tarfile.DIRTYPE if member.mode == DIRECTORY else tarfile.REGTYPE
        info.mode, info.size, info.mtime = member.mode & 0o7777, member.size, member.mtime
        yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        for offset in range(0, member.size, _CHUNK):
            yield file.read(offset, _CHUNK, files[path])
        yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
