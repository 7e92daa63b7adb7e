"""A kata as an ordinary git repository to take away: ``download/NAME/**`` and ``download/NAME.tgz``.

Work tree and ``.git`` of one tip, with all its history and its tags, a clean status and no remote. Both forms hold
the same members, contents and times, and one tip gives the same bytes each time, whatever has been repacked since.

Whoever unpacks it trusts nobody: nothing in a kata leaves NAME/, is a link, or makes git run a program. What would
(``.git`` in any spelling, a directory that is itself a git directory) is not in the work tree, so that `git status`
calls it deleted.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from katafs.errors import IsDirectoryError, NotDirectoryError, NotFoundError, StorageError, TooLargeError
from katafs.git import GitRepo, Oid
from katafs.git.pack import IndexEntry, index_file, write_pack
from katafs.git.repo import MODE_BLOB, MODE_SYMLINK

DIRECTORY = 0o040755
FILE = 0o100644

_CHUNK = 1 << 20
# a few objects can name each other so often that the files of their tree would fill any disk
_MOST_FILES = 100_000
_MOST_BYTES = 1 << 30
# in front of it come NAME and the place where it is unpacked, and Linux takes no path of 4,096 bytes
_LONGEST_PATH = 3000

_DOT_GIT = re.compile(r"\.git|git~[0-9]+")
# characters that macOS does not look at in names, as in git's core.protectHFS
_IGNORED = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])

# The first line turns off what could make a fresh work tree look changed, or run a filter, whatever the kata's
# .gitattributes and the user's settings say; the stat settings make git content with what our index knows.
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


# -- the name


def download_name(kata_id: str, manifest: Mapping[str, Any], first_commit: int = 0) -> str:
    """``cyber-dojo-YYYY-MM-DD-ID[-EXERCISE]``: letters, digits and ``-`` only, whatever the manifest says.

    `first_commit` (seconds since the epoch) gives the day, in UTC, when ``created`` does not.
    """
    day = _created(manifest.get("created")) or _utc_day(first_commit)
    exercise = manifest.get("exercise")
    words = re.findall("[A-Za-z0-9]+", exercise) if isinstance(exercise, str) else []
    suffix = "-".join(words)[:80].rstrip("-")
    return f"cyber-dojo-{day.isoformat()}-{kata_id}" + (f"-{suffix}" if suffix else "")


def _created(value: Any) -> datetime.date | None:
    """The day of ``[Y,M,D,…]``, or None."""
    if not isinstance(value, list) or len(value) < 3 or any(type(part) is not int for part in value[:3]):
        return None
    try:
        return datetime.date(*value[:3])
    except (ValueError, OverflowError):
        return None


def _utc_day(seconds: int) -> datetime.date:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).date()
    except (ValueError, OverflowError, OSError):
        return datetime.date(1970, 1, 1)


# -- the finished image


class Download:
    """One tip, ready to be read; made by `make_download`, given back by `close`.

    Needs no repository and little memory: contents and archive are in temporary files without a name. Any thread may
    read, one at a time. What the operating system refuses is a `StorageError`.
    """

    def __init__(self, name: str, tip: Oid, mtime: int, contents: _Contents, archive: _Spool) -> None:
        self.name = name
        self.tip = tip
        self.members = contents.members(mtime)
        self._contents = contents
        self._archive = archive
        self._children: dict[bytes, list[bytes]] = {}
        for path, member in self.members.items():
            if member.mode == DIRECTORY:
                self._children[path] = []
            if path:
                parent, _, last = path.rpartition(b"/")
                self._children[parent].append(last)

    @property
    def tgz_size(self) -> int:
        """The size of the archive in bytes."""
        return self._archive.size

    def children(self, path: bytes) -> list[bytes]:
        """The names in the directory ``path``, sorted."""
        if self._member(path).mode != DIRECTORY:
            raise NotDirectoryError(f"{path!r} in {self.name} is a file")
        return self._children[path]

    def read(self, path: bytes, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the file ``path``; fewer only at its end."""
        if self._member(path).mode == DIRECTORY:
            raise IsDirectoryError(f"{path!r} in {self.name} is a directory")
        with _storage_errors():
            return self._contents.read_file(path, offset, size)

    def read_tgz(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes of the archive; fewer only at its end."""
        with _storage_errors():
            return self._archive.read(offset, size)

    def close(self) -> None:
        """Give the disk space back. May be called again."""
        self._contents.close()
        self._archive.close()

    def _member(self, path: bytes) -> Member:
        try:
            return self.members[path]
        except KeyError:
            raise NotFoundError(f"no {path!r} in {self.name}") from None


class _Spool:
    """A temporary file without a name: nobody has to clear it away. Written, flushed, then read."""

    def __init__(self, directory: Path | None) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=directory)
        self.size = 0

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.size += len(data)

    def read(self, offset: int, size: int) -> bytes:
        # not the position nor the buffer of the file, which belong to the thread that writes
        return os.pread(self.file.fileno(), size, offset)

    def close(self) -> None:
        # what a full disk did not take is tried again here, and nobody needs it
        with contextlib.suppress(OSError):
            self.file.close()


class _Contents(_Spool):
    """The files of a download, one after the other."""

    def __init__(self, directory: Path | None) -> None:
        super().__init__(directory)
        # offset and size by path
        self._files: dict[bytes, tuple[int, int]] = {}

    def add(self, path: bytes, data: bytes) -> None:
        self._files[path] = (self.size, len(data))
        self.write(data)

    def add_written(self, path: bytes, size: int) -> None:
        """A file that somebody else has just written to the end of `file`."""
        self._files[path] = (self.size, size)
        self.size += size

    def read_file(self, path: bytes, offset: int, size: int) -> bytes:
        start, length = self._files[path]
        return self.read(start + offset, min(size, length - offset)) if offset < length else b""

    def members(self, mtime: int) -> dict[bytes, Member]:
        """All files and the directories they need, sorted by components: directories before what is in them."""
        directories = {b"", *_EMPTY_DIRECTORIES}
        for path in [*self._files, *_EMPTY_DIRECTORIES]:
            while path := path.rpartition(b"/")[0]:
                directories.add(path)
        members = {path: Member(DIRECTORY, 0, mtime) for path in directories}
        members |= {path: Member(FILE, size, mtime) for path, (_, size) in self._files.items()}
        return dict(sorted(members.items(), key=lambda item: item[0].split(b"/")))


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        raise StorageError(f"a download cannot be kept: {os.strerror(number)}", number) from error


# -- making it


def make_download(
    path: Path, tip: Oid, tags: Mapping[int, Oid], name: str, mtime: int, spool: Path | None = None
) -> Download:
    """The image of commit ``tip`` of the repository ``path/.git``; takes 20 ms for 100 events, so call it in a thread.

    Tags of commits that the tip does not reach are left out. `mtime` (seconds since the epoch) is everybody's. `spool`
    is the directory for temporary files. Raises `DamagedError`, `StorageError`, `TooLargeError`; nothing is left then.
    """
    repo = GitRepo(path)
    with contextlib.ExitStack() as on_failure, _storage_errors():
        contents = _Contents(spool)
        on_failure.callback(contents.close)
        _add_repository(contents, repo, tip, tags)
        _add_work_tree(contents, repo, repo.commit(tip).tree, mtime)
        contents.file.flush()
        archive = _Spool(spool)
        on_failure.callback(archive.close)
        download = Download(name, tip, mtime, contents, archive)
        _write_tgz(archive, download)
        on_failure.pop_all()
        return download


def _add_repository(contents: _Contents, repo: GitRepo, tip: Oid, tags: Mapping[int, Oid]) -> None:
    """What is in ``.git`` but its index. The pack comes first, since it is written to an empty file."""
    pack = write_pack(repo, tip, contents.file)
    contents.add_written(f".git/objects/pack/pack-{pack.name}.pack".encode(), pack.size)
    contents.add(f".git/objects/pack/pack-{pack.name}.idx".encode(), pack.idx)
    refs = {f"refs/tags/{index}": oid for index, oid in tags.items() if oid in pack.commits}
    refs["refs/heads/main"] = tip
    lines = [f"{oid.hex()} {ref}\n".encode() for ref, oid in sorted(refs.items())]
    contents.add(b".git/packed-refs", _PACKED_REFS_HEADER + b"".join(lines))
    contents.add(b".git/HEAD", b"ref: refs/heads/main\n")
    contents.add(b".git/config", _CONFIG)
    contents.add(b".git/info/attributes", _ATTRIBUTES)


def _add_work_tree(contents: _Contents, repo: GitRepo, tree: Oid, mtime: int) -> None:
    """The files of the tip, as they are stored, and the index that knows them."""
    entries = []
    limit = contents.size + _MOST_BYTES
    for path, mode, oid in _work_files(repo, tree):
        data = repo.blob(oid)
        entries.append(IndexEntry(path, mode, oid, len(data)))
        contents.add(path, data)
        if contents.size > limit:
            raise TooLargeError(f"{repo.path}: too large to download")
    contents.add(b".git/index", index_file(entries, mtime))


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
            elif entry.mode & 0o170000 in (MODE_BLOB & 0o170000, MODE_SYMLINK):
                yield path, entry.mode, entry.oid


def _hidden_names(names: Iterable[bytes]) -> set[bytes]:
    """Those names of one directory that some system takes for ``.git`` or for another directory; and ``HEAD`` where
    it makes a git directory of this one, whose configuration git would obey to anybody who goes there.
    """
    folded = {name: _folded(name) for name in names}
    found = set(folded.values())
    is_git_directory = {("objects",), ("refs",)} <= found or ("commondir",) in found
    return {
        name
        for name, parts in folded.items()
        if any(_DOT_GIT.fullmatch(part) for part in parts)
        or (len(parts) > 1 and "" in parts)
        or (is_git_directory and parts == ("head",))
    }


def _folded(name: bytes) -> tuple[str, ...]:
    """The components that macOS or Windows could see in ``name``: without case and what they ignore."""
    text = name.decode("utf-8", "replace").translate(_IGNORED).lower()
    return tuple(part.partition(":")[0].rstrip(" .") for part in text.split("\\"))


# -- the archive


def _write_tgz(archive: _Spool, download: Download) -> None:
    # level 1: most of it is a pack, which has been deflated already. No name and no time in the head (RFC 1952)
    gzip = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for piece in _tar(download):
        archive.write(gzip.compress(piece))
    archive.write(gzip.flush())
    archive.file.flush()


def _tar(download: Download) -> Iterator[bytes]:
    """The members below one directory NAME, in GNU tar's format, which has no limit on the bytes of a name."""
    for path, member in download.members.items():
        info = tarfile.TarInfo("/".join(filter(None, (download.name, path.decode("utf-8", "surrogateescape")))))
        info.type = tarfile.DIRTYPE if member.mode == DIRECTORY else tarfile.REGTYPE
        info.mode, info.size, info.mtime = member.mode & 0o7777, member.size, member.mtime
        yield info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        for offset in range(0, member.size, _CHUNK):
            yield download.read(path, offset, _CHUNK)
        yield b"\0" * (-member.size % tarfile.BLOCKSIZE)
    yield b"\0" * 2 * tarfile.BLOCKSIZE
