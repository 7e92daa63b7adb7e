"""Repositories that are large in one way each, made in seconds: what is added to native katas with event 0."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

from tests.katas import git, pretty_json, row_time, stored_rows

_TIME = 1_700_000_000


def _import(path: Path, lines: list[bytes]) -> None:
    git(path, "fast-import", "--quiet", stdin=b"".join(lines))


def _commit(number: int, subject: str, parent: bytes, files: dict[str, bytes]) -> bytes:
    text = subject.encode()
    who = f"commit refs/heads/main\ncommitter a <a@example.org> {_TIME + number} +0000\n".encode()
    begin = b"%sdata %d\n%s\n%s" % (who, len(text), text, b"from %s\n" % parent if parent else b"")
    return begin + b"".join(
        b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(data), data) for name, data in files.items()
    )


def _tip(path: Path) -> bytes:
    return git(path, "rev-parse", "main").strip()


def events(path: Path, count: int, size: int = 0, *, tags: bool = True) -> None:
    """So many events more, with ``size`` bytes beside what a row has."""
    rows = stored_rows(path)
    parent, lines = _tip(path), []
    for index in range(len(rows), len(rows) + count):
        rows.append({"index": index, "colour": "red", "time": row_time(index % 900), "x": "y" * size, "type": "test"})
        changes = {"event.json": json.dumps(rows[-1]).encode()}
        if index == count:
            changes["events_summary.json"] = pretty_json(rows)
        lines.append(_commit(index, f"{index} ran tests, no prediction, got red", parent, changes))
        if tags:
            lines.append(b"reset refs/tags/%d\nfrom refs/heads/main\n\n" % index)
        parent = b""
    _import(path, lines)


def options(path: Path, count: int) -> None:
    """An option that was set so many times."""
    parent, lines = _tip(path), []
    for number in range(count):
        value = b"off\n" if number % 2 else b"on\n"
        lines.append(_commit(number, "set option colour to x", parent, {"config/colour": value}))
        parent = b""
    _import(path, lines)


def values(path: Path, count: int) -> None:
    """An event whose row has so many values; a manifest, too, with numbers that not every parser takes."""
    rows = stored_rows(path)
    row = {"index": len(rows), "colour": "red", "time": row_time(0), "x": [[1, [], {}]] * (count // 4), "type": "test"}
    manifest = json.loads(git(path, "show", "main:manifest.json")) | {"x": [[float("inf"), [], {}]] * (count // 4)}
    changes = {"event.json": row, "events_summary.json": [*rows, row], "manifest.json": manifest}
    files = {name: json.dumps(value).encode() for name, value in changes.items()}
    _import(
        path,
        [
            _commit(len(rows), "ran tests", _tip(path), files),
            b"reset refs/tags/%d\nfrom refs/heads/main\n\n" % len(rows),
        ],
    )


def references(path: Path, count: int) -> None:
    """So many tags that are no event's, unsorted, beside all that there are."""
    git(path, "pack-refs", "--all")
    packed = path / ".git/packed-refs"
    lines = packed.read_text().splitlines()[1:]
    lines += [f"{number:040x} refs/tags/x{number}" for number in range(count)]
    packed.write_text("\n".join(["# pack-refs with: peeled fully-peeled", *lines, ""]))


def files(path: Path, count: int) -> None:
    """An event with so many files, in one directory."""
    rows = stored_rows(path)
    rows.append({"index": len(rows), "colour": "red", "time": row_time(1), "type": "test"})
    changes = {"events_summary.json": pretty_json(rows), "event.json": pretty_json(rows[-1])}
    changes |= {f"files/d/{number}.txt": b"%d\n" % number for number in range(count)}
    subject = f"{len(rows) - 1} ran tests, no prediction, got red"
    tag = b"reset refs/tags/%d\nfrom refs/heads/main\n\n" % (len(rows) - 1)
    _import(path, [_commit(1, subject, _tip(path), changes), tag])


def indexes(path: Path, count: int) -> None:
    """So many indexes of 32 MiB that take no room on the disk."""
    for number in range(count):
        stem = path / f".git/objects/pack/pack-{number:040x}"
        stem.with_suffix(".pack").write_bytes(b"PACK\0\0\0\2\0\0\0\0")
        with stem.with_suffix(".idx").open("wb") as file:
            file.write(b"\xfftOc\0\0\0\2")
            file.truncate(32 << 20)


def chain(path: Path, count: int, size: int = 4 << 20) -> None:
    """A file of event 0 becomes the end of a chain of so many deltas, each of which makes ``size`` bytes."""
    for pack_file in path.glob(".git/objects/pack/*.pack"):
        data = pack_file.read_bytes()
        pack_file.with_suffix(".idx").unlink()
        pack_file.unlink()
        git(path, "unpack-objects", "-q", stdin=data)
    wanted = b"hello 2\n"
    oid = hashlib.sha1(b"blob %d\0%s" % (len(wanted), wanted)).digest()
    (path / f".git/objects/{oid.hex()[:2]}/{oid.hex()[2:]}").unlink()
    whole = _number(size) * 2 + _copy(0, size // 2) + _copy(size // 2, size // 2)
    pack = bytearray(b"PACK" + (2).to_bytes(4) + (count + 2).to_bytes(4))
    entries = [(3, wanted.ljust(size, b"\0")), *[(6, whole)] * count]
    entries.append((6, _number(size) + _number(len(wanted)) + _copy(0, len(wanted))))
    places = []
    for kind, data in entries:
        places.append(len(pack))
        pack += _head(kind, len(data)) + (_back(places[-1] - places[-2]) if kind == 6 else b"") + zlib.compress(data)
    pack += hashlib.sha1(pack).digest()
    names = [hashlib.sha1(bytes([n % 256, n // 256])).digest() for n in range(len(entries) - 1)] + [oid]
    stem = path / f".git/objects/pack/pack-{hashlib.sha1(pack).hexdigest()}"
    stem.with_suffix(".pack").write_bytes(pack)
    stem.with_suffix(".idx").write_bytes(_index(dict(zip(names, places, strict=True)), bytes(pack[-20:])))


def _number(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def _copy(offset: int, size: int) -> bytes:
    return b"\xff" + offset.to_bytes(4, "little") + size.to_bytes(3, "little")


def _head(kind: int, size: int) -> bytes:
    first, size = kind << 4 | size & 15, size >> 4
    return bytes([first | 0x80]) + _number(size) if size else bytes([first])


def _back(distance: int) -> bytes:
    digits = [distance & 0x7F]
    while distance := distance >> 7:
        distance -= 1
        digits.append(distance & 0x7F | 0x80)
    return bytes(reversed(digits))


def _index(places: dict[bytes, int], pack: bytes) -> bytes:
    names = sorted(places)
    fanout = b"".join(sum(name[0] <= first for name in names).to_bytes(4) for first in range(256))
    offsets = b"".join(places[name].to_bytes(4) for name in names)
    idx = b"\xfftOc\0\0\0\2" + fanout + b"".join(names) + bytes(4 * len(names)) + offsets + pack
    return idx + hashlib.sha1(idx).digest()
