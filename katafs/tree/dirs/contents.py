"""Files whose content is a blob, bytes made from one, or computed; what is in the files of an event; and extended
attributes: what an event or a kata is, in words that ``getfattr`` and ``find`` can ask for."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from functools import partial
from io import BufferedRandom
from pathlib import Path

from katafs.errors import HeavyError, NotFoundError, TooLargeError
from katafs.git import GitRepo, Oid
from katafs.git.odb.loose_files import LARGEST
from katafs.kata.model.layouts import NEWEST_VERSION
from katafs.kata.model.steps import step_of
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import BlobId, Content, Snapshot, Summary
from katafs.kata.views.spool import SpoolFile
from katafs.text import pretty, visible
from katafs.tree.catalogue import Shown, row_at, standing_in
from katafs.tree.context import Context
from katafs.tree.made import MadeCache, Make, make_elsewhere, make_here
from katafs.tree.makers import makes
from katafs.tree.nodes import Later, Node, Owner, Work
from katafs.tree.numbers import Key
from katafs.tree.timeouts import IMMUTABLE

# a larger one is inflated once, into a temporary file, in a process of its own
LARGE_BLOB = 1 << 20
# bytes in memory, of a node that is kept
_SMALL = 512
# What a content that is computed in a thread of the daemon may cost, in microseconds (`katafs.git.budget`).
TEXT_BUDGET = 30_000.0


class KeptFile(Node):
    """A file whose content has to be made, and is kept for a while under its ``identity``."""

    def __init__(self, key: Key, cache: MadeCache, owner: Owner, mtime_ns: int, identity: Hashable) -> None:
        super().__init__(key, owner, mtime_ns)
        self._cache = cache
        #: what names the content, whoever makes it
        self.identity = identity
        self._made: bytes | SpoolFile | None = None

    def size(self) -> int | None:
        return self._cache.size(self.identity)

    def prepare(self) -> Work | None:
        if self._made is None or (isinstance(self._made, SpoolFile) and self._made.closed):
            self._made = self._cache.get(self.identity)
        if self._made is not None:
            return None
        self._cache.check(self.identity)
        return self._work()

    def _work(self) -> Work:
        raise NotImplementedError

    def prepared(self, result: object) -> None:
        assert isinstance(result, (bytes, SpoolFile))
        self._made = result
        self._cache.put(self.identity, result)

    def too_large(self, error: TooLargeError) -> None:
        self._cache.refuse(self.identity, error)

    def read(self, offset: int, length: int) -> bytes:
        assert self._made is not None, "prepare was not called"
        if isinstance(self._made, SpoolFile):
            return self._made.read(offset, length)
        return self._made[offset : offset + length]


class ContentFile(KeptFile):
    """A file that is a blob, or bytes made from one. What is read of it is read from the kata, if it is not large."""

    queue = "blob"

    def __init__(self, key: Key, ctx: Context, mtime_ns: int, kata: Kata, content: Content) -> None:
        # not for all katas: one that lacks the object must not show it
        identity = (kata.kata_id, content.oid) if isinstance(content, BlobId) else None
        super().__init__(key, ctx.made, ctx.owner(kata), mtime_ns, identity)
        self._kata, self._kata_identity, self._content = kata, kata.identity, content
        self._size: int | None = None

    def is_lasting(self) -> bool:
        # rows that a writer mends are shown as they are stored from then on
        is_of_rows = isinstance(self._content, Summary)
        return (
            not is_of_rows and self._kata_identity is self._kata.identity is not None and self.attr_timeout == IMMUTABLE
        )

    def is_reusable(self) -> bool:
        is_large = isinstance(self._content, bytes) and len(self._content) >= _SMALL
        return not is_large and self.is_lasting()

    def size(self) -> int:
        if self._size is None:
            self._size = self._kata.size(self._content)
        return self._size

    def prepare(self) -> Work | None:
        return super().prepare() if isinstance(self._content, BlobId) and self.size() > LARGE_BLOB else None

    def _work(self) -> Work:
        assert isinstance(self._content, BlobId)
        write = partial(_inflate, self._content.oid)
        return lambda: Later(partial(make_elsewhere, self._cache.spool, self._kata.path, write))

    def read(self, offset: int, length: int) -> bytes:
        if self._made is not None:
            return super().read(offset, length)
        return self._kata.read(self._content, offset, length)


class MadeFile(KeptFile):
    """A file whose content ``make`` computes: at once when that costs little, and ``make_small`` can do it; else in a
    worker thread, or in a process of its own when that costs more than ``budget`` microseconds.

    A size need not be known at LOOKUP: the kernel is then told 0 with no timeout, and asks again before it reads. But
    once it knows a size it must not be told 0 again, or it would drop the pages under a reader.
    """

    budget = TEXT_BUDGET
    #: the same in the event loop, less than a request may cost; most need a third of it by the clock
    at_once = 8_000.0

    def __init__(
        self,
        key: Key,
        ctx: Context,
        kata: Kata,
        mtime_ns: int,
        identity: Hashable,
        make: Make,
        make_small: Make | None = None,
    ) -> None:
        super().__init__(key, ctx.made, ctx.owner(kata), mtime_ns, identity)
        self._kata, self._make, self._make_small = kata, make, make_small

    def prepare(self) -> Work | None:
        work = super().prepare()
        repo = self._kata.repo
        if work is not None and self._make_small is not None:
            # a thread with a repository of its own takes longer than all the rest
            with contextlib.suppress(HeavyError), repo.budget.within(self.at_once):
                self.prepared(self._make_small(repo))
                return None
        return work

    def _work(self) -> Work:
        return partial(make_here, self._cache.spool, self._kata.path, self._make, self.budget)


def _inflate(oid: Oid, file: BufferedRandom, path: Path) -> None:
    file.write(GitRepo(path, largest=LARGEST).blob(oid))


# -- the files of an event

#: Says what is in a file of an event, by its name. Raises `NotFoundError`.
_Says = Callable[[Kata, Snapshot, bytes], Content]
# by slot, with the name that it is asked for
_contents: dict[int, tuple[_Says, bytes]] = {}


def has_content(*paths: str, shown: Shown | None = None) -> Callable[[_Says], _Says]:
    """Bind what says what is in the files of an event at these paths."""

    def bind(maker: _Says) -> _Says:
        for path in paths:
            row = row_at(path, shown)
            _contents[row.number] = maker, row.name
        makes(*paths, shown=shown)(_file)
        return maker

    return bind


def content_of(kata: Kata, snapshot: Snapshot, slot: int) -> Content:
    """What is in a file of an event. Raises `NotFoundError`, also for what is no such file."""
    if slot not in _contents:
        raise NotFoundError(f"nothing says what is in slot {slot} of an event")
    says, name = _contents[slot]
    return says(kata, snapshot, name)


def _file(ctx: Context, kata: Kata, key: Key) -> Node:
    snapshot = kata.snapshot(key.a)
    return ContentFile(key, ctx, snapshot.time_ns, kata, content_of(kata, snapshot, key.b))


@has_content("events/N/stdout", "events/N/stderr", "events/N/status")
def _output(_kata: Kata, snapshot: Snapshot, name: bytes) -> Content:
    return snapshot.output(name)


@has_content(*(row.path for row in standing_in("events/N/config")))
def _option(kata: Kata, snapshot: Snapshot, name: bytes) -> Content:
    return kata.options(snapshot)[name.decode()].encode() + b"\n"


@has_content("events/N/manifest.json")
def _manifest(kata: Kata, snapshot: Snapshot, _name: bytes) -> Content:
    return kata.shown_json(snapshot.stored(b"manifest.json") or b"{}\n")


@has_content("events/N/truncations.json")
def _truncations(kata: Kata, snapshot: Snapshot, _name: bytes) -> Content:
    return kata.shown_json(snapshot.truncations(kata.repo))


@has_content("events/N/event.json")
def _row(kata: Kata, snapshot: Snapshot, _name: bytes) -> Content:
    return kata.tip().rows.text(snapshot.index)


@has_content("events/N/events_summary.json")
def _summary(kata: Kata, snapshot: Snapshot, _name: bytes) -> Content:
    rows = kata.tip().rows
    stored = snapshot.shown_as_stored(b"events_summary.json") if rows.is_portable else None
    return stored or Summary(rows, snapshot.index)


@has_content("events.json", shown=Shown.AS_STORED)
def _stored_events(kata: Kata, snapshot: Snapshot, _name: bytes) -> Content:
    """Of the saver layout, with the bytes that saver wrote."""
    rows = kata.tip().rows
    if not rows.is_portable:
        kata.repo.budget.spend_for_json(rows.stored)
        return pretty(rows.stored, ruby=True).encode()
    if (content := snapshot.stored(b"events.json")) is None:
        raise NotFoundError(f"event {snapshot.index} of kata {kata.kata_id} has no events.json")
    return content


PREFIX = b"user.katafs."
_LONGEST = 200  # characters of a text that comes from a kata


def event_attributes(kata: Kata, snapshot: Snapshot) -> dict[str, str]:
    """Those of ``events/N``; what its row does not say is left out.

    ``time`` is ISO 8601 in UTC, ``duration`` in seconds; ``colour`` is that of the row. Raises `DamagedError`.
    """
    row = kata.tip().rows.stored[snapshot.index]
    step = step_of(row, snapshot.index, kata.kata_id)
    told = {
        "index": snapshot.index,
        "type": step.type,
        "colour": row.get("colour") if isinstance(row.get("colour"), str) else None,
        "time": f"{step.time:%Y-%m-%dT%H:%M:%S.%f}Z" if step.time is not None else None,
        "duration": step.duration,
        "predicted": step.predicted,
        "added": step.added,
        "deleted": step.deleted,
        "commit": snapshot.commit.oid.hex(),
    }
    return _texts(told)


def kata_attributes(kata: Kata) -> dict[str, str]:
    """Those of a kata's directory. ``events`` is how many there are, the first included. Raises `DamagedError`."""
    tip, manifest, plain = kata.tip(), kata.manifest(), kata.plain_version()
    stored = manifest.get("version")
    version = max(stored, NEWEST_VERSION) if type(stored) is int else NEWEST_VERSION
    told = {
        "id": kata.kata_id,
        "events": tip.last + 1,
        "version": version if plain is None else plain,
        "layout": "plain" if kata.is_stored_plain else tip.layout.name,
        "commit": tip.commit.oid.hex(),
        **{key: manifest[key] for key in ("display_name", "exercise") if isinstance(manifest.get(key), str)},
    }
    return _texts(told)


def _texts(told: dict[str, object]) -> dict[str, str]:
    return {name: visible(str(value)[:_LONGEST], kept="") for name, value in told.items() if value is not None}
