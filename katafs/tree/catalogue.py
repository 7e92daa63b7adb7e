"""The catalogue: what is seen in a mount, with a row for each place where it stands.

Whatever asks what there is asks this table: listings and lookups, the way from a number to a node, what a commit makes
stale, which files have outcomes, what is told of an entry that cannot be read. What makes a node, or the content of a
file of an event, is bound to its rows where it is defined (`katafs.tree.makers`); what nothing is bound to is not
listed.

Numbers are part of inode numbers (`katafs.tree.numbers`), which kernels hold across daemons, and NFS clients for weeks.
One that was given out never changes, and is never given to anything else: append only. The order of rows, and of what
is named elsewhere (kinds of acts, options), decides nothing.
"""

from __future__ import annotations

import re
import stat
from enum import Enum
from functools import cache
from posixpath import split
from typing import NamedTuple

from katafs.errors import NotFoundError
from katafs.tree.numbers import DIFF, DOWNLOAD, EVENT, FENCE, FIXED, GROUP, META, PLAIN, PREFIX, TIP_DIRECTORY, Key
from katafs.tree.timeouts import IMMUTABLE, MUTABLE, NEVER, PLACE

FILE, WRITABLE_FILE = stat.S_IFREG | 0o444, stat.S_IFREG | 0o644
DIR, OUTER_DIR = stat.S_IFDIR | 0o555, stat.S_IFDIR | 0o755
LINK = stat.S_IFLNK | 0o777


class Changes(Enum):
    """What makes a thing stale: after it the kernel is told to ask again."""

    NEVER = "nothing that is to be told"
    EVENT = "an event"
    COMMIT = "every commit: an event, or an option"
    VERSION = "nothing: its name is soon that of another version, which has a number of its own"


class Shown(Enum):
    """In which katas a thing is seen, of those whose events can be read; PLAIN and below concern versions 0 and 1."""

    ALWAYS = "in all"
    BY_NAME = "in all: it opens by its name, and is not listed"
    WRITABLE = "where katafs writes"
    AS_STORED = "where the layout shows what it stores under that name, as saver's does, and the tip has it"
    NOT_AS_STORED = "in the other layouts, of version 2"
    VERSION_2 = "where the manifest says version 2 or later"
    STEPS = "where there is more than event 0"
    PLAIN = "stored as git: made from it"
    STORED = "stored as plain files: the very file"
    WAITING = "stored as git: written by a service, and its row is to come"


_LEGACY = (Shown.PLAIN, Shown.STORED, Shown.WAITING)


class Row(NamedTuple):
    """One thing at one place.

    ``path`` is in the kata; one that begins with a slash is in the mount. N, W, ID and NAME stand for what is computed,
    … for any path. ``kind`` and ``number`` are those of its `Key`: what an event has is numbered by ``b`` of it (a
    slot), a diff by its view, the others by ``a``; where only the kind says what a thing is, the number is 0. A thing
    that stands at several places has its number at each.

    ``entry_timeout`` and ``attr_timeout`` say for how many seconds the kernel keeps the name, and the attributes.
    """

    path: str
    kind: int
    number: int
    mode: int = FILE
    entry_timeout: float = IMMUTABLE
    attr_timeout: float = IMMUTABLE
    changes: Changes = Changes.NEVER
    shown: Shown = Shown.ALWAYS

    @property
    def id(self) -> tuple[int, int]:
        """What a thing is known by, wherever it stands."""
        return self.kind, self.number

    @property
    def name(self) -> bytes:
        return _name(self.path)

    def key(self, kata_id: str, index: int = 0) -> Key:
        return Key(EVENT, kata_id, index, self.number) if self.kind == EVENT else Key(self.kind, kata_id, self.number)

    def key_at(self, kata_id: str, last: int) -> Key:
        """That of what stands there when event ``last`` is the newest."""
        key = self.key(kata_id, last)
        return key._replace(b=last + 1) if self.changes is Changes.VERSION else key


# Numbers of which keys are made in several places: of a kata, and of an event. From FIRST_PATH on the slots of an event
# are the paths of its files in git order.
KATA, TIP_FILES = 0, 1
SELF, FILES, CONFIG, FIRST_PATH = 0, 1, 2, 32
PLAIN_DIRECTORY, STORED_EVENT = 25, 26
# of a group: from here on its members; of a kata: from here on its archives, each with a hash
FIRST_MEMBER, FIRST_ARCHIVE = 64, 1 << 22


def _of_event(name: str, slot: int) -> tuple[Row, ...]:
    """A file of an event; at the tip it is that of the newest event, so that its name soon is another file's."""
    return Row(f"events/N/{name}", EVENT, slot), Row(name, EVENT, slot, entry_timeout=NEVER)


def _option(name: str, *, slot: int, number: int, plain: int, stored: int) -> tuple[Row, ...]:
    """An option: of an event, of the tip, and the plain file of versions 0 and 1."""
    return (
        Row(f"events/N/config/{name}", EVENT, slot),
        Row(f"config/{name}", FIXED, number, WRITABLE_FILE, attr_timeout=NEVER),
        Row(name, FIXED, plain, WRITABLE_FILE, NEVER, NEVER, shown=Shown.PLAIN),
        Row(name, FIXED, stored, WRITABLE_FILE, NEVER, NEVER, shown=Shown.STORED),
    )


def _control(path: str, number: int) -> Row:
    return Row(path, FIXED, number, WRITABLE_FILE, attr_timeout=NEVER, shown=Shown.WRITABLE)


def _of_tip(
    path: str, number: int, changes: Changes, mode: int = DIR, *, shown: Shown = Shown.ALWAYS, name: float = IMMUTABLE
) -> Row:
    """What a kata has once, and what may change; ``name`` says for how many seconds its name is kept."""
    return Row(path, FIXED, number, mode, name, MUTABLE, changes, shown)


TABLE: tuple[Row, ...] = (
    # of the mount
    Row("/", META, 1, OUTER_DIR, attr_timeout=MUTABLE),
    Row("/.katafs", META, 2, DIR),
    Row("/.katafs/README.md", META, 3, FILE, NEVER, MUTABLE),
    Row("/.katafs/version", META, 4, FILE, NEVER, MUTABLE),
    Row("/.katafs/stats", META, 5, FILE, NEVER, NEVER),
    Row("/.katafs/groups", META, 6, DIR, NEVER, NEVER),
    Row("/.katafs/groups/ID", GROUP, 0, DIR, NEVER, NEVER),
    Row("/.katafs/groups/ID/events.csv", GROUP, 1, FILE, NEVER, NEVER, Changes.VERSION),
    Row("/.katafs/groups/ID/history", GROUP, 2, FILE, NEVER, NEVER, Changes.VERSION),
    Row("/.katafs/groups/ID/index.html", GROUP, 3, FILE, NEVER, NEVER, Changes.VERSION),
    Row("/.katafs/groups/ID/N-ID", GROUP, FIRST_MEMBER, LINK, NEVER, NEVER),
    Row("/Ab", PREFIX, 0, OUTER_DIR, PLACE, PLACE),
    # of a kata
    _of_tip("", KATA, Changes.COMMIT, OUTER_DIR, name=MUTABLE),
    _of_tip("files", TIP_FILES, Changes.EVENT),
    _of_tip("events", 2, Changes.EVENT),
    _of_tip("events/latest", 3, Changes.EVENT, LINK),
    _of_tip("diff", 4, Changes.EVENT),
    _of_tip("diff/latest", 5, Changes.EVENT, LINK, shown=Shown.STEPS, name=MUTABLE),
    _of_tip("download", 6, Changes.COMMIT),
    Row("download/NAME", FIXED, 7, DIR, MUTABLE, NEVER, Changes.COMMIT),
    Row("download/NAME.tgz", FIXED, 8, FILE, NEVER, NEVER),
    _of_tip("download.tgz", 9, Changes.COMMIT, LINK),
    Row(".git", FIXED, 10, DIR, MUTABLE, NEVER, shown=Shown.VERSION_2),
    Row("control", FIXED, 11, DIR, shown=Shown.WRITABLE),
    Row("manifest.json", FIXED, 12),
    _of_tip("config", 13, Changes.COMMIT),
    _of_tip("README.md", 14, Changes.NEVER, FILE, shown=Shown.AS_STORED),
    _of_tip("options.json", 15, Changes.COMMIT, FILE, shown=Shown.AS_STORED),
    _control("control/ran_tests", 16),
    _control("ran_tests", 16),
    _control("control/predicted_right", 17),
    _control("control/predicted_wrong", 18),
    _control("control/reverted", 19),
    _control("control/checked_out", 20),
    _control("control/file_create", 21),
    _control("control/file_delete", 22),
    _control("control/file_rename", 23),
    _control("control/file_edit", 24),
    _of_tip("html", 40, Changes.COMMIT),
    Row("html/index.html", FIXED, 41, FILE, MUTABLE, IMMUTABLE, Changes.VERSION),
    Row("history", FIXED, 42, FILE, NEVER, IMMUTABLE, Changes.VERSION),
    *_option("theme", slot=16, number=32, plain=65, stored=82),
    *_option("colour", slot=17, number=33, plain=66, stored=83),
    *_option("predict", slot=18, number=34, plain=67, stored=84),
    *_option("revert_red", slot=19, number=35, plain=68, stored=85),
    *_option("revert_amber", slot=20, number=36, plain=69, stored=86),
    *_option("revert_green", slot=21, number=37, plain=70, stored=87),
    # of an event
    Row("events/N", EVENT, SELF, DIR),
    Row("events/N/files", EVENT, FILES, DIR),
    Row("events/N/config", EVENT, CONFIG, DIR),
    Row("events/N.json", EVENT, 3, shown=Shown.BY_NAME),
    Row("events.json", EVENT, 4, FILE, NEVER, shown=Shown.AS_STORED),
    *_of_event("stdout", 5),
    *_of_event("stderr", 6),
    *_of_event("status", 7),
    *_of_event("truncations.json", 8),
    Row("events/N/manifest.json", EVENT, 9),
    *_of_event("event.json", 10),
    *_of_event("events_summary.json", 11),
    Row("events.json", EVENT, 11, FILE, NEVER, shown=Shown.NOT_AS_STORED),
    Row("events/N/files/…", EVENT, FIRST_PATH),
    Row("files/…", EVENT, FIRST_PATH, FILE, MUTABLE),
    # of two events, by view
    Row("diff/W..N", DIFF, 0),
    Row("diff/W..N.json", DIFF, 1, shown=Shown.BY_NAME),
    Row("diff/W..N.summary.json", DIFF, 2, shown=Shown.BY_NAME),
    Row("html/W..N.html", DIFF, 3),
    # by their paths; at the tip directories are others than those of the event, and files are the same
    Row("files/…/", TIP_DIRECTORY, 0, DIR, MUTABLE, MUTABLE, Changes.EVENT),
    Row("download/NAME/…", DOWNLOAD, 0, FILE, NEVER, NEVER),
    Row(".git/…", PLAIN, 0, FILE, NEVER, NEVER, shown=Shown.VERSION_2),
    Row("…/.git", FENCE, 0, FILE, NEVER, NEVER, shown=Shown.BY_NAME),
    # the plain paths of versions 0 (N/event.json) and 1 (N.event.json)
    Row("manifest.json", FIXED, 80, FILE, NEVER, NEVER, shown=Shown.STORED),
    Row("events.json", FIXED, 81, WRITABLE_FILE, NEVER, NEVER, shown=Shown.STORED),
    Row("events.json", EVENT, 29, WRITABLE_FILE, NEVER, NEVER, shown=Shown.PLAIN),
    Row("N.event.json", EVENT, 24, shown=Shown.PLAIN),
    Row("N/event.json", EVENT, 24, shown=Shown.PLAIN),
    # stored as plain files, too
    Row("N", EVENT, PLAIN_DIRECTORY, DIR, shown=Shown.PLAIN),
    Row("N.event.json", EVENT, STORED_EVENT, FILE, NEVER, NEVER, shown=Shown.STORED),
    Row("N/event.json", EVENT, STORED_EVENT, FILE, NEVER, NEVER, shown=Shown.STORED),
    Row("N.event.json", EVENT, 27, WRITABLE_FILE, NEVER, NEVER, shown=Shown.WAITING),
    Row("N/event.json", EVENT, 27, WRITABLE_FILE, NEVER, NEVER, shown=Shown.WAITING),
    Row("N", EVENT, 28, OUTER_DIR, NEVER, NEVER, shown=Shown.WAITING),
)

_COMPUTED = re.compile(r"\b(N|ID|NAME|Ab)\b|…|^$")
# of those at several places the longest path, which says most
_BY_NUMBER = {row.id: row for row in sorted(TABLE, key=lambda row: (len(row.path), row.path))}
_WITH_VERSIONS = {row.id for row in TABLE if row.changes is Changes.VERSION}


@cache
def row_at(path: str, shown: Shown | None = None) -> Row:
    """The row of a path; where more than one thing stands there, of what is shown so. Raises `KeyError`."""
    found = [
        row for row in TABLE if row.path == path and (row.shown not in _LEGACY if shown is None else row.shown is shown)
    ]
    if len(found) != 1:
        raise KeyError(f"{len(found)} rows of {path}")
    return found[0]


def standing_in(directory: str) -> list[Row]:
    """The rows of what stands in a directory under a name that is not computed, sorted by name; versions 0 and 1 left
    out."""
    found = [row for row in TABLE if split(row.path)[0] == directory and row.shown not in _LEGACY]
    return sorted((row for row in found if not _COMPUTED.search(split(row.path)[1])), key=lambda row: row.name)


def thing_of(key: Key) -> tuple[int, int]:
    kind = key.kind
    if kind == EVENT:
        return kind, min(key.b, FIRST_PATH)
    if kind == DIFF:
        return kind, key.b & 3
    if kind == FIXED and key.a >= FIRST_ARCHIVE:
        return row_at("download/NAME.tgz").id
    if kind not in (FIXED, META, GROUP):
        return kind, 0
    thing = kind, min(key.a, FIRST_MEMBER) if kind == GROUP else key.a
    return thing if not key.b or thing in _WITH_VERSIONS else (kind, -1)


def row_of(key: Key) -> Row:
    """A row of what a key names. Raises `NotFoundError`."""
    try:
        return _BY_NUMBER[thing_of(key)]
    except KeyError as error:
        raise NotFoundError(f"nothing has the number of {key}") from error


def key_above(key: Key) -> Key:
    """The key of the directory in which something stands that has a row of its own, but for a kata itself."""
    return row_at(split(row_of(key).path)[0]).key(key.kata, key.a)


@cache
def _name(path: str) -> bytes:
    return split(path)[1].encode()


def kata_key(kata_id: str) -> Key:
    return Key(FIXED, kata_id, KATA)
