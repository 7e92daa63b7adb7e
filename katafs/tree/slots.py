"""What is in an event: the slots that are part of inode numbers, and the content of each."""

from __future__ import annotations

from katafs.errors import NotFoundError
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.kata.model.rows import Rows
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import OUTPUTS, Content, Snapshot
from katafs.text import pretty

# The slots of an event: fixed entries first, then from FIRST_PATH on the paths of its files in git order.
SELF, FILES, CONFIG, DOCUMENT, STORED_EVENTS = 0, 1, 2, 3, 4
NAMED_SLOTS = {
    b"stdout": 5,
    b"stderr": 6,
    b"status": 7,
    b"truncations.json": 8,
    b"manifest.json": 9,
    b"event.json": 10,
    b"events_summary.json": 11,
}
_SLOT_NAMES = {slot: name for name, slot in NAMED_SLOTS.items()}
_FIRST_OPTION = 16
FIRST_PATH = 32

# The files of an event beside files/ and config/, which the tip shows too
EVENT_FILES = tuple(NAMED_SLOTS)
# what is listed, in its order
EVENT_SLOTS = dict(sorted({**NAMED_SLOTS, b"files": FILES, b"config": CONFIG}.items()))
OPTION_SLOTS = dict(sorted((name.encode(), _FIRST_OPTION + number) for number, name in enumerate(OPTION_DEFAULTS)))
_OPTION_NAMES = {slot: name.decode() for name, slot in OPTION_SLOTS.items()}


def content_of(kata: Kata, snapshot: Snapshot, slot: int) -> Content | Rows:
    """What is in a file of an event, but for paths; the rows, where their text is to be joined. Raises
    `NotFoundError`."""
    content: Content | None = None
    name = _SLOT_NAMES.get(slot, b"")
    if name in OUTPUTS:
        content = snapshot.output(name)
    elif slot in _OPTION_NAMES:
        content = kata.options(snapshot)[_OPTION_NAMES[slot]].encode() + b"\n"
    elif name == b"manifest.json":
        content = kata.shown_json(snapshot.manifest())
    elif name == b"truncations.json":
        content = kata.shown_json(snapshot.truncations(kata.repo))
    elif name == b"event.json":
        content = kata.tip().rows.text(snapshot.index)
    elif name:
        rows = kata.tip().rows
        content = snapshot.stored_summary() if rows.is_portable else None
        if content is None:
            return rows
    elif slot == STORED_EVENTS:
        content = snapshot.stored_events()
        if not kata.tip().rows.is_portable:
            content = pretty(kata.tip().rows.stored, ruby=True).encode()
    if content is None:
        raise NotFoundError(f"event {snapshot.index} has no slot {slot}")
    return content
