"""``download/``: the kata as an ordinary git repository, unpacked and packed. Made when somebody asks, per tip."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

from katafs.errors import NotFoundError, StaleError, TooLargeError
from katafs.git import GitRepo, Oid
from katafs.kata.read.kata import Kata
from katafs.kata.views.download import Download, download_name, make_download
from katafs.kata.views.image import Source
from katafs.kata.views.spool import Spool
from katafs.tree.catalogue import DIR, FILE, FIRST_ARCHIVE, key_above, row_at
from katafs.tree.context import Context
from katafs.tree.makers import FixedDir, fence, makes
from katafs.tree.nodes import Entry, Later, Link, Node, Work
from katafs.tree.numbers import DOWNLOAD, FIXED, HashedPaths, Key, path_hash
from katafs.tree.timeouts import NEVER

_ROOT, _TGZ = row_at("download/NAME"), row_at("download/NAME.tgz")


def name_of(kata: Kata) -> str:
    """NAME of a kata's download."""
    return download_name(kata.kata_id, kata.manifest(), kata.snapshot(0).commit.time)


def _make(path: Path, source: Source, last: int, spool: Spool) -> Download | Later:
    repo = GitRepo(path)
    repo.look_at_tags(range(last + 1))
    tags = {index: repo.tag(index) for index in range(last + 1)}
    made = make_download(path, source._replace(tags=tags), spool)
    return made if isinstance(made, Download) else Later(made)


class _FromImage(Node):
    """Part of a download. Its image may have to be made first."""

    queue = "download"

    def __init__(self, ctx: Context, kata: Kata, key: Key, tip: Oid, image: Download | None) -> None:
        self._time_ns = image.time_ns if image is not None else kata.tip_at(tip).time_ns
        super().__init__(key, ctx.owner(kata), self._time_ns)
        self._ctx, self._kata, self._tip = ctx, kata, tip
        self._name = (DOWNLOAD, kata.kata_id, tip)
        self._image: Download | None = None
        if image is not None:
            self._take(image)

    def prepare(self) -> Work | None:
        if self._image is not None:
            return None
        last = self._kata.tip_at(self._tip).last
        self._ctx.made.check(self._name)
        source = Source(self._tip, {}, name_of(self._kata), self._time_ns, self._archive())
        return partial(_make, self._kata.path, source, last, self._ctx.spool)

    def prepared(self, result: object) -> None:
        assert isinstance(result, Download)
        self._ctx.downloads.put(self._kata.kata_id, result)
        self._take(result)

    def _archive(self) -> int:
        """What the archive will be known by."""
        return _number(self._ctx, self._kata, self._tip)

    def too_large(self, error: TooLargeError) -> None:
        self._ctx.made.refuse(self._name, error)

    @property
    def _at_hand(self) -> Download:
        assert self._image is not None, "prepare was not called"
        return self._image

    def _take(self, image: Download) -> None:
        self._image = image


@makes(_TGZ.path)
class TgzFile(_FromImage):
    """The archive of a tip. Each has a number of its own: who reads one for long reads on while events come. Raises
    `NotFoundError` for one that is gone."""

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        tip, image = ctx.downloads.numbered(kata.kata_id, key.a)
        if tip is None:
            tip = kata.tip().commit.oid
            # as an earlier version has numbered the newest
            if key.a == _TGZ.number:
                image = ctx.downloads.at(kata.kata_id, tip)
            elif key.a != _number(ctx, kata, tip):
                raise NotFoundError(f"kata {kata.kata_id} has no such archive now")
        super().__init__(ctx, kata, key, tip, image)
        #: what names the content, whoever makes it
        self.identity = (*self._name, key.a)

    def _archive(self) -> int:
        return self.key.a if self.key.a != _TGZ.number else super()._archive()

    def size(self) -> int | None:
        if self._image is not None:
            self._ctx.made.remember_size(self.identity, self._image.tgz_size)
        return self._ctx.made.size(self.identity)

    def read(self, offset: int, length: int) -> bytes:
        return self._at_hand.read_tgz(offset, length)


@makes(_ROOT.path, "download/NAME/…")
class Member(_FromImage):
    """A file or directory of ``download/NAME/``, by its path. Raises `StaleError` where the path is not."""

    _path: bytes

    def __init__(self, ctx: Context, kata: Kata, key: Key) -> None:
        tip = kata.tip().commit.oid
        super().__init__(ctx, kata, key, tip, ctx.downloads.at(kata.kata_id, tip))

    def _take(self, image: Download) -> None:
        super()._take(image)
        path = b"" if self.key.kind == FIXED else _hashed(image).path(self.key)
        if path is None:
            raise StaleError("no such file in the download now")
        self._path = path
        member = image.members[path]
        self.mode = DIR if stat.S_ISDIR(member.mode) else FILE
        self.mtime_ns = member.mtime * 1_000_000_000 if self._path else self._time_ns

    def size(self) -> int | None:
        if stat.S_ISDIR(self.mode):
            return 0
        return self._image.members[self._path].size if self._image is not None else None

    def read(self, offset: int, length: int) -> bytes:
        return self._at_hand.read(self._path, offset, length)

    def names(self) -> list[bytes]:
        return list(self._at_hand.children(self._path))

    def child(self, name: bytes) -> Entry:
        image, above = self._at_hand, self._path
        path = above + b"/" + name if above else name
        if name == b".git" and above not in (b"", b".git"):
            return fence(self)
        if not name or path not in image.members:
            raise NotFoundError(f"no {name!r} in the download")
        return Entry(Member(self._ctx, self._kata, member_key(self._kata, image, path)), NEVER)

    def parent(self) -> Key:
        if self.key.kind == FIXED:
            return key_above(self.key)
        return member_key(self._kata, self._at_hand, self._path.rpartition(b"/")[0])


def _number(ctx: Context, kata: Kata, tip: Oid) -> int:
    """What the archive of a tip is known by: the one that there is; or the one that would be made now, also by another
    daemon. Its bytes depend on how objects are packed: it is another one when they were packed anew."""
    if (image := ctx.downloads.at(kata.kata_id, tip)) is not None:
        return image.number
    # what was made of plain files is packed in one way
    packs = kata.repo.objects.packs.state() if not kata.is_stored_plain else b""
    return FIRST_ARCHIVE | path_hash(tip + packs) & (FIRST_ARCHIVE - 1)


def member_key(kata: Kata, image: Download, path: bytes) -> Key:
    """The key of a path in ``download/NAME/``: a hash of it, where no other path has the same."""
    if not path:
        return _ROOT.key(kata.kata_id)
    return _hashed(image).key(DOWNLOAD, kata.kata_id, path)


def _hashed(image: Download) -> HashedPaths:
    return HashedPaths.of(image, lambda: filter(None, image.members))


@makes("download")
class DownloadsDir(FixedDir):
    """``download/``: NAME and NAME.tgz. Listing it makes nothing."""

    def names(self) -> list[bytes]:
        name = name_of(self._kata).encode()
        return [name, name + b".tgz", *super().names()]

    def child(self, name: bytes) -> Entry:
        own = name_of(self._kata).encode()
        if name in (own, own + b".tgz"):
            if name == own:
                return self._entry(_ROOT, _ROOT.key(self._kata.kata_id))
            return self._entry(_TGZ, Key(FIXED, self._kata.kata_id, self._archive()))
        return super().child(name)

    def _archive(self) -> int:
        """The number of the archive of now: who has heard of it gets it, also when another tip comes before it was
        made."""
        downloads, tip = self._ctx.downloads, self._tip.commit.oid
        number = _number(self._ctx, self._kata, tip)
        if (self._kata.kata_id, number) not in downloads:
            downloads.promised.keep((self._kata.kata_id, number), tip)
        return number


@makes("download.tgz")
def _link(ctx: Context, kata: Kata, key: Key) -> Link:
    return Link(key, ctx.owner(kata), kata.tip().time_ns, f"download/{name_of(kata)}.tgz")
