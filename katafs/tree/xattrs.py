"""Extended attributes: what an event or a kata is, in words that ``getfattr`` and ``find`` can ask for."""

from __future__ import annotations

from katafs.kata.model.layouts import NEWEST_VERSION
from katafs.kata.model.steps import step_of
from katafs.kata.read.kata import Kata
from katafs.kata.read.snapshot import Snapshot
from katafs.text import visible

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
