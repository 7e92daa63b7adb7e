"""A kata as an ordinary git repository to take away: ``download/NAME/**`` and ``download/NAME.tgz``.

Work tree and ``.git`` of one tip, with all its history and its tags, a clean status and no remote. Both forms hold
the same members, contents and times, and one tip gives the same bytes each time, whatever has been repacked since.

It is safe to unpack: nothing leaves NAME/, is a link, or makes git run a program. What could (``.git`` in any
spelling, a git directory inside) is not in the work tree, so that `git status` calls it deleted.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any, NamedTuple

from katafs.errors import IsDirectoryError, KataError, NotDirectoryError, NotFoundError, StorageError, TooLargeError
from katafs.git import GitRepo, Oid
from katafs.git.pack import index_file, write_pack
from katafs.kata.names import folded, is_dot_git
from katafs.text import decode

DIRECTORY = 0o040755
FILE = 0o100644

_CHUNK = 1 << 20
# a few trees can name each other so often that their files would fill any disk
_MOST_FILES = 100_000
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
_PACKED_REFS_HEADER = b"# pack-refs with: peeled fully-peeled sorted \n"
_EMPTY_DIRECTORIES = (b".git/refs/heads", b".git/refs/tags")


class Member(NamedTuple):
    """A directory or a file: mode with its type, size in bytes (0 for a directory), seconds since the epoch."""

    mode: int
    size: int
    mtime: int


def download_name(kata_id: str, manifest: Mapping[str, Any], first_commit: int = 0) -> str:
    """``cyber-dojo-YYYY-MM-DD-ID[-EXERCISE]``: letters, digits and ``-`` only, whatever the manifest says.

    `first_commit` (seconds since the epoch) gives the day, in UTC, where ``created`` is no date.
    """
    exercise = manifest.get("exercise")
    words = re.findall("[A-Za-z0-9]+", exercise) if isinstance(exercise, str) else []
    suffix = "-".join(words)[:80].rstrip("-")
    day = _day(manifest.get("created"), first_commit)
    return f"cyber-dojo-{day.isoformat()}-{kata_id}" + (f"-{suffix}" if suffix else "")


def _day(created: Any, seconds: int) -> datetime.date:
    try:
        return datetime.date(*created[:3])
    except (KeyError, OverflowError, TypeError, ValueError):
        pass
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date()
    except (OSError, OverflowError, ValueError):
        return datetime.date(1970, 1, 1)


class Download:
    """One tip, ready to be read; made by `make_download`, given back by `close`.

    Needs no repository and little memory: contents and archive are in a temporary file without a name. Any thread may
    read, one at a time. What the operating system refuses is a `StorageError`.
    """

    def __init__(
        self, name: str, tip: Oid, members: Mapping[bytes, Member], files: Mapping[bytes, _Extent], spool: _Spool
    ) -> None:
        self.name, self.tip = name, tip
        # by path below NAME/, which is b"" itself; a directory before what is in it
        self.members = members
        self._files, self._spool = files, spool
        self._children: dict[bytes, list[bytes]] = {}
        for path, member in members.items():
            if member.mode == DIRECTORY:
                self._children[path] = []
            if path:
                parent, _, last = path.rpartition(b"/")
                self._children[parent].append(last)
        self._tgz = spool.add(_gzip(_tar(self)))

    @property
    def tgz_size(self) -> int:
        """The size of the archive in bytes."""
        return self._tgz.size

    def children(self, path: bytes) -> Sequence[bytes]:
        """The names in the directory ``path``, sorted."""
        self._expect(path, DIRECTORY, NotDirectoryError)
        return self._children[path]

    def read(self, path: bytes, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the file ``path``; fewer only at its end."""
        self._expect(path, FILE, IsDirectoryError)
        with _storage_errors():
            return self._spool.read(self._files[path], offset, size)

    def read_tgz(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the archive; fewer only at its end."""
        with _storage_errors():
            return self._spool.read(self._tgz, offset, size)

    def close(self) -> None:
        """Give the disk space back. May be called again."""
        self._spool.close()

    def _expect(self, path: bytes, mode: int, error: type[KataError]) -> None:
        if path not in self.members:
            raise NotFoundError(f"no {path!r} in {self.name}")
        if self.members[path].mode != mode:
            raise error(f"{path!r} in {self.name} is of another kind")


class _Extent(NamedTuple):
    """Where something is in a `_Spool`: its first byte and its size."""

    start: int
    size: int


class _Spool:
    """A temporary file without a name: nobody has to clear it away."""

    def __init__(self, directory: Path | None) -> None:
        self.file: BufferedRandom = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - lives as long as the image
        self.size = 0

    def add(self, pieces: Iterable[bytes]) -> _Extent:
        """Append something, which can be read at once."""
        start = self.size
        for piece in pieces:
            self.file.write(piece)
            self.size += len(piece)
        self.file.flush()
        return _Extent(start, self.size - start)

    def read(self, extent: _Extent, offset: int, size: int) -> bytes:
        # by no position that threads would share
        return os.pread(self.file.fileno(), max(0, min(size, extent.size - offset)), extent.start + offset)

    def close(self) -> None:
        # what a full disk did not take would be tried again here, and nobody needs it
        with contextlib.suppress(OSError):
            self.file.close()


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"a download cannot be kept: {error}", error.errno or errno.EIO) from error


def make_download(
    path: Path, tip: Oid, tags: Mapping[int, Oid], name: str, mtime: int, spool: Path | None = None
) -> Download:
    """The image of commit ``tip`` of the repository ``path/.git``. 30 ms for 100 events, so call it in a thread.

    Tags of commits that the tip does not reach are left out. `mtime` (seconds since the epoch) is every member's.
    `spool` is the directory for the temporary file, which holds twice the size of the packed history.
    Raises `DamagedError`, `StorageError`, `TooLargeError`, and leaves nothing behind then.
    """
    repo = GitRepo(path)
    with _storage_errors():
        space = _Spool(spool)
        try:
            files = _add_repository(space, repo, tip, tags)
            files |= _add_work_tree(space, repo, repo.commit(tip).tree, mtime)
            return Download(name, tip, _members(files, mtime), files, space)
        except BaseException:
            space.close()
            raise


def _add_repository(spool: _Spool, repo: GitRepo, tip: Oid, tags: Mapping[int, Oid]) -> dict[bytes, _Extent]:
    """What is in ``.git`` but its index. The pack comes first, since it is written to an empty file."""
    pack = write_pack(repo, tip, spool.file)
    spool.size = pack.size
    pack_path = f".git/objects/pack/pack-{pack.name}".encode()
    refs = {f"refs/tags/{index}": oid for index, oid in tags.items() if oid in pack.ids} | {"refs/heads/main": tip}
    lines = [f"{oid.hex()} {ref}\n".encode() for ref, oid in sorted(refs.items())]
    small = {
        pack_path + b".idx": pack.idx,
        b".git/packed-refs": _PACKED_REFS_HEADER + b"".join(lines),
        b".git/HEAD": b"ref: refs/heads/main\n",
        b".git/config": _CONFIG,
        b".git/info/attributes": _ATTRIBUTES,
    }
    return {pack_path + b".pack": _Extent(0, pack.size)} | {path: spool.add([data]) for path, data in small.items()}


def _add_work_tree(spool: _Spool, repo: GitRepo, tree: Oid, mtime: int) -> dict[bytes, _Extent]:
    """The files of the tip, as they are stored, and the index that knows them."""
    files = {}
    entries = []
    limit = spool.size + _MOST_BYTES
    for path, mode, oid in _work_files(repo, tree):
        data = repo.blob(oid)
        entries.append((path, mode, oid, len(data)))
        files[path] = spool.add([data])
        if spool.size > limit:
            raise TooLargeError(f"{repo.path}: too large to download")
    files[b".git/index"] = spool.add([index_file(entries, mtime)])
    return files


def _members(files: Mapping[bytes, _Extent], mtime: int) -> dict[bytes, Member]:
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
            elif stat.S_ISREG(entry.mode) or stat.S_ISLNK(entry.mode):
                yield path, entry.mode, entry.oid


def _hidden_names(names: Iterable[bytes]) -> set[bytes]:
    """Those names of one directory that some system takes for ``.git`` or for another directory; and ``HEAD`` where
    it makes a git directory of this one, whose configuration git would obey to anybody who goes there.
    """
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


def _tar(download: Download) -> Iterator[bytes]:
    """The members below one directory NAME, as GNU tar writes them, which keeps names of any bytes and length."""
    for path, member in download.members.items():
        name = path.decode("utf-8", "surrogateescape")
        info = tarfile.TarInfo(f"{download.name}/{name}" if path else download.name)
        info.type = tarfile.DIRTYPE if member.mode == DIRECTORY else tarfile.REGTYPE
        info.mode, info.size, info.mtime = member.mode & 0o7777, member.size, member.mtime
        yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        for offset in range(0, member.size, _CHUNK):
            yield download.read(path, offset, _CHUNK)
        yield bytes(-member.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)
