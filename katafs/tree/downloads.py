"""``download/``: the kata as an ordinary git repository, unpacked and packed. Made when somebody asks, per tip."""

from __future__ import annotations

import functools
import stat
from pathlib import Path
from weakref import WeakKeyDictionary

from katafs.errors import NotFoundError, StaleError, TooLargeError
from katafs.git import GitRepo, Oid
from katafs.kata.read.kata import Kata
from katafs.kata.views.download import Download, download_name, make_download
from katafs.kata.views.image import Source
from katafs.kata.views.spool import Spool
from katafs.tree.context import Context
from katafs.tree.fence import fence
from katafs.tree.nodes import MUTABLE, NEVER, Directory, Entry, File, Later, Link, Maker, Node
from katafs.tree.numbers import DOWNLOAD, FIXED, HashedPaths, Key

# fixed entries of a kata
DOWNLOADS, DOWNLOAD_ROOT, DOWNLOAD_TGZ, DOWNLOAD_LINK = 6, 7, 8, 9

# of the images that are kept; their members never change
_HASHED: WeakKeyDictionary[Download, HashedPaths] = WeakKeyDictionary()


def name_of(kata: Kata) -> str:
    """NAME of a kata's download."""
    return download_name(kata.kata_id, kata.manifest(), kata.snapshot(0).commit.time)


def _make(path: Path, tip: Oid, last: int, name: str, mtime: int, spool: Spool) -> Download | Later:
    repo = GitRepo(path)
    tags = {index: repo.tag(index) for index in range(last + 1)}
    made = make_download(path, Source(tip, tags, name, mtime), spool)
    return made if isinstance(made, Download) else Later(made)


class _FromImage(Node):
    """Part of a download. Its image may have to be made first; then ``_image`` is there."""

    attr_timeout = NEVER
    slowness = "download"

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        self._tip = kata.tip()
        super().__init__(key, ctx.owner(kata), self._tip.time_ns)
        self._ctx, self._kata = ctx, kata
        self._image = ctx.downloads.newest(kata.kata_id, self._tip.commit.oid)
        if self._image is not None:
            self._resolve(self._image)

    def to_make(self) -> Maker | None:
        if self._image is not None:
            return None
        tip = self._tip
        self._ctx.made.check((DOWNLOAD, self._kata.kata_id, tip.commit.oid))
        mtime = tip.time_ns // 1_000_000_000
        return functools.partial(
            _make, self._kata.path, tip.commit.oid, tip.last, name_of(self._kata), mtime, self._ctx.spool
        )

    def made(self, result: object) -> None:
        assert isinstance(result, Download)
        self._image = self._ctx.downloads.put(self._kata.kata_id, result)
        self._resolve(self._image)

    def too_large(self, error: TooLargeError) -> None:
        self._ctx.made.refuse((DOWNLOAD, self._kata.kata_id, self._tip.commit.oid), error)

    def image(self) -> Download:
        assert self._image is not None, "to_make was not called"
        return self._image

    def _resolve(self, image: Download) -> None:
        """Called once the image is at hand."""


class TgzFile(_FromImage, File):
    """``download/NAME.tgz``."""

    def __init__(self, ctx: Context, kata: Kata) -> None:
        super().__init__(ctx, kata, Key(FIXED, kata.kata_id, DOWNLOAD_TGZ))
        self.identity = (DOWNLOAD, kata.kata_id, self._tip.commit.oid)

    def size(self) -> int | None:
        if self._image is None:
            return self._ctx.made.size(self.identity)
        return self._image.tgz_size

    def _resolve(self, image: Download) -> None:
        self._ctx.made.remember_size((DOWNLOAD, self._kata.kata_id, image.tip), image.tgz_size)

    def read(self, offset: int, length: int) -> bytes:
        return self.image().read_tgz(offset, length)


class Member(_FromImage):
    """A file or directory of ``download/NAME/``, by its path. Raises `StaleError` where the path is not."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        self._path: bytes | None = b"" if key.kind == FIXED else None
        if key.kind == FIXED:
            self.mode = stat.S_IFDIR | 0o555
        super().__init__(ctx, kata, key)

    def _resolve(self, image: Download) -> None:
        if self._path is None:
            self._path = _hashed(image).path(self.key)
        if self._path is None:
            raise StaleError("no such file in the download now")
        member = image.members[self._path]
        self.mode = stat.S_IFDIR | 0o555 if stat.S_ISDIR(member.mode) else stat.S_IFREG | 0o444
        self.mtime_ns = member.mtime * 1_000_000_000 if self._path else self._tip.time_ns

    def size(self) -> int | None:
        if stat.S_ISDIR(self.mode):
            return 0
        return self._image.members[self._path].size if self._image is not None and self._path is not None else None

    def read(self, offset: int, length: int) -> bytes:
        assert self._path is not None
        return self.image().read(self._path, offset, length)

    def names(self) -> list[bytes]:
        assert self._path is not None
        return list(self.image().children(self._path))

    def child(self, name: bytes) -> Entry:
        assert self._path is not None
        image = self.image()
        path = self._path + b"/" + name if self._path else name
        if name == b".git" and self._path not in (b"", b".git"):
            return fence(self)
        if not name or path not in image.members:
            raise NotFoundError(f"no {name!r} in the download")
        return Entry(Member(self._ctx, self._kata, member_key(self._kata, image, path)), NEVER)

    def parent(self) -> Key:
        if not self._path:
            return Key(FIXED, self._kata.kata_id, DOWNLOADS)
        return member_key(self._kata, self.image(), self._path.rpartition(b"/")[0])


def member_key(kata: Kata, image: Download, path: bytes) -> Key:
    """The key of a path in ``download/NAME/``: a hash of it, where no other path has the same."""
    if not path:
        return Key(FIXED, kata.kata_id, DOWNLOAD_ROOT)
    return _hashed(image).key(DOWNLOAD, kata.kata_id, path)


def _hashed(image: Download) -> HashedPaths:
    hashed = _HASHED.get(image)
    if hashed is None:
        hashed = _HASHED[image] = HashedPaths(path for path in image.members if path)
    return hashed


class DownloadsDir(Directory):
    """``download/``: NAME and NAME.tgz. Listing it makes nothing."""

    attr_timeout = MUTABLE

    def __init__(self, ctx: Context, kata: Kata) -> None:
        kata_id = kata.kata_id
        super().__init__(Key(FIXED, kata_id, DOWNLOADS), ctx.owner(kata), kata.tip().time_ns, Key(FIXED, kata_id, 0))
        self._ctx, self._kata = ctx, kata
        self._name = name_of(kata).encode()

    def names(self) -> list[bytes]:
        return [self._name, self._name + b".tgz"]

    def child(self, name: bytes) -> Entry:
        if name == self._name:
            return Entry(Member(self._ctx, self._kata, Key(FIXED, self._kata.kata_id, DOWNLOAD_ROOT)), MUTABLE)
        if name == self._name + b".tgz":
            return Entry(TgzFile(self._ctx, self._kata), MUTABLE)
        raise NotFoundError(f"no {name!r} in download")


def download_link(ctx: Context, kata: Kata) -> Link:
    """``download.tgz``."""
    target = f"download/{name_of(kata)}.tgz"
    return Link(Key(FIXED, kata.kata_id, DOWNLOAD_LINK), ctx.owner(kata), kata.tip().time_ns, target)
