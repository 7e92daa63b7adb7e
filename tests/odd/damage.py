"""Damage to the files of a repository, of all kinds that disks, programs and hostile owners make."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

#: given a repository's ``.git`` and dice: what was done, in words; empty where there is nothing to damage
Damage = Callable[[Path, random.Random], str]
_FANOUT_END = 8 + 1024
_HUGE, _READABLE = 6 << 30, 64 << 20


def _files(git_dir: Path, *patterns: str) -> list[Path]:
    """Those that can be read here, which a huge one cannot."""
    found = sorted(file for pattern in patterns for file in git_dir.glob(pattern) if file.is_file())
    return [file for file in found if file.stat().st_size < _READABLE]


_PACKS, _INDEXES, _LOOSE = "objects/pack/*.pack", "objects/pack/*.idx", "objects/[0-9a-f][0-9a-f]/*"
_BESIDE: tuple[str, ...] = (
    "objects/pack/*.rev",
    "objects/pack/*.bitmap",
    "objects/pack/*.mtimes",
    "objects/pack/multi-pack-index*",
)
_BESIDE += ("objects/info/**/*", "objects/pack/*.keep")
_REFERENCES = ("packed-refs", "refs/heads/main", "refs/tags/*")
_OTHERS = ("HEAD", "config", "index", "shallow", "logs/**/*")


def _choose(git_dir: Path, dice: random.Random) -> Path | None:
    """A file to damage; each kind of file as often as others, however many there are."""
    kinds = [(_PACKS,), (_PACKS,), (_INDEXES,), (_INDEXES,), (_LOOSE,), (_LOOSE,), _BESIDE, _REFERENCES, _OTHERS]
    found = [files for kind in kinds if (files := _files(git_dir, *kind))]
    return dice.choice(dice.choice(found)) if found else None


def _is_reference(git_dir: Path, file: Path) -> bool:
    name = file.relative_to(git_dir).as_posix()
    return name.startswith("refs/") or name in ("packed-refs", "HEAD")


def overwrite(file: Path, data: bytes) -> None:
    """Write a file anew, whoever may write it."""
    if file.exists() or file.is_symlink():
        file.unlink()
    file.write_bytes(data)


# -- bytes


def flip(data: bytes, dice: random.Random) -> bytes:
    """Some bits are others."""
    changed = bytearray(data)
    # heads and the ends of files hold what matters most
    ends = (0, min(64, len(data)), len(data))
    for _ in range(dice.choice((1, 1, 1, 3, 30))):
        at = dice.randrange(dice.choice(ends[1:])) if dice.random() < 0.8 else len(data) - 1 - dice.randrange(ends[1])
        changed[at] ^= 1 << dice.randrange(8)
    return bytes(changed)


def overwrite_bytes(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    piece = dice.choice((b"\0", b"\xff", dice.randbytes(1))) * dice.choice((1, 4, 8, 20, 100))
    return data[:at] + piece[: len(data) - at] + data[at + len(piece) :]


def truncate(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.choice((0, 1, 12, dice.randrange(len(data)), len(data) - 1, len(data) - min(20, len(data))))]


def extend(data: bytes, dice: random.Random) -> bytes:
    return data + dice.choice((b"\0", b"\n", dice.randbytes(20), bytes(5000), data))


def zero_pages(data: bytes, dice: random.Random) -> bytes:
    """Pages that never reached the disk."""
    page = dice.choice((512, 4096))
    at = dice.randrange(len(data) // page + 1) * page
    return data[:at] + bytes(len(data[at : at + page])) + data[at + page :]


def cut_out(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + data[at + dice.choice((1, 4, 20, 512)) :]


def moved(data: bytes, dice: random.Random) -> bytes:
    """Two parts have changed places."""
    if len(data) < 64:
        return data[::-1]
    one, other = sorted(dice.sample(range(len(data) // 20), 2))
    one, other = one * 20, other * 20
    parts = data[:one], data[other : other + 20], data[one + 20 : other], data[one : one + 20], data[other + 20 :]
    return b"".join(parts)


_BYTES = (flip, flip, overwrite_bytes, truncate, extend, zero_pages, cut_out, moved)


def bytes_of_a_file(git_dir: Path, dice: random.Random) -> str:
    file = _choose(git_dir, dice)
    if file is None or not (data := file.read_bytes()):
        return ""
    how = dice.choice(_BYTES)
    # what makes another id of an id, or none of a reference, would be another state of the repository
    if _is_reference(git_dir, file):
        return references(git_dir, dice)
    changed = how(data, dice)
    if file.suffix in (".idx", ".pack") and len(changed) > 40 and dice.random() < 0.5:
        changed = changed[:-20] + hashlib.sha1(changed[:-20]).digest()
    overwrite(file, changed)
    return f"{how.__name__} {file.relative_to(git_dir)}"


# -- files


def another_kind(git_dir: Path, dice: random.Random) -> str:
    """A directory, a link, a pipe, a huge file with nothing in it where a file was; or a file that cannot be there."""
    file = _choose(git_dir, dice)
    if file is None:
        return ""
    kind = dice.choice(("directory", "link", "link to nothing", "link to itself", "pipe", "huge", "gone", "swapped"))
    if _is_reference(git_dir, file) and kind in ("gone", "directory", "swapped", "link"):
        return ""
    data = file.read_bytes()
    other = _choose(git_dir, dice)
    file.unlink()
    if kind == "directory":
        (file / "inside").mkdir(parents=True)
    elif kind.startswith("link"):
        # whatever this test writes next, nobody can write there
        file.symlink_to({"link": "/proc/version", "link to itself": file.name}.get(kind, "/nowhere"))
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "huge":
        file.write_bytes(data)
        os.truncate(file, dice.choice((_HUGE, 200 << 20, 70 << 20)))
    elif kind == "swapped" and other is not None and other != file and not _is_reference(git_dir, other):
        file.write_bytes(other.read_bytes())
        overwrite(other, data)
    return f"{kind} {file.relative_to(git_dir)}"


def whole_directory(git_dir: Path, dice: random.Random) -> str:
    """A directory of objects is gone, is a file, or nobody may read it."""
    name = dice.choice(("objects", "objects/pack", "objects/info", "refs", "objects/00"))
    path, kind = git_dir / name, dice.choice(("gone", "file", "link"))
    if not path.is_dir():
        return ""
    shutil.rmtree(path)
    if kind == "file":
        path.write_bytes(b"file")
    elif kind == "link":
        path.symlink_to("/proc/tty")
    return f"{kind} {name}"


# -- references


def references(git_dir: Path, dice: random.Random) -> str:
    """Rubbish, never another id that git would take."""
    file = dice.choice(_files(git_dir, *_REFERENCES) or [git_dir / "refs/heads/main"])
    rubbish: tuple[bytes, ...] = (
        b"",
        b"\0" * 41,
        b"ref: refs/heads/../../../../etc/passwd\n",
        b"ref: " + b"x" * 5000,
        b"x" * 40 + b"\n",
    )
    rubbish += (b"0" * 40 + b"\n", dice.randbytes(41), b"12" * 10 + b"\n", b"1f" * 32 + b"\n")
    if file.name != "packed-refs":
        overwrite(file, dice.choice(rubbish))
        return f"rubbish in {file.relative_to(git_dir)}"
    lines = file.read_bytes().splitlines(keepends=True)
    line = dice.choice((b"rubbish\n", b"\0\n", b"^\n", b"12" * 20 + b"\n", b"12" * 20 + b" \n", b"x" * 9000 + b"\n"))
    lines.insert(dice.randrange(len(lines) + 1), line * dice.choice((1, 1, 3000)))
    overwrite(file, b"".join(lines))
    return "a line in packed-refs"


# -- indexes


def index(git_dir: Path, dice: random.Random) -> str:
    """An index of version 2 that lies, with the right checksum."""
    files = [file for file in _files(git_dir, _INDEXES) if file.read_bytes()[:4] == b"\xfftOc"]
    if not files:
        return ""
    file = dice.choice(files)
    changed = bytearray(file.read_bytes())
    (count,) = struct.unpack_from(">I", changed, _FANOUT_END - 4)
    offsets = _FANOUT_END + 24 * count
    how = dice.choice(("offset", "offsets", "swap", "fanout", "count", "twice", "version", "far", "checksums", "id"))
    one, other = dice.randrange(count), dice.randrange(count)
    if how == "offset":
        value = dice.choice((0, 4, 12, 13, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, dice.randrange(1 << 32)))
        struct.pack_into(">I", changed, offsets + 4 * one, value)
    elif how == "offsets":
        changed[offsets : offsets + 4 * count] = changed[offsets : offsets + 4] * count
    elif how == "swap":
        at, to = offsets + 4 * one, offsets + 4 * other
        changed[at : at + 4], changed[to : to + 4] = changed[to : to + 4], changed[at : at + 4]
    elif how == "fanout":
        struct.pack_into(">I", changed, 8 + 4 * dice.randrange(256), dice.choice((0, 1, count, count + 1, 0xFFFFFFFF)))
    elif how == "count":
        struct.pack_into(">I", changed, _FANOUT_END - 4, dice.choice((0, count - 1, count + 1, count * 2, 0x0FFFFFFF)))
    elif how in ("twice", "id"):
        at, to = _FANOUT_END + 20 * one, _FANOUT_END + 20 * min(one + 1, count - 1)
        changed[to : to + 20] = changed[at : at + 20] if how == "twice" else dice.randbytes(20)
    elif how == "version":
        struct.pack_into(">I", changed, 4, dice.choice((0, 1, 3, 4, 0xFFFFFFFF)))
    elif how == "far":
        changed[offsets : offsets + 4 * count] = b"".join(struct.pack(">I", 0x80000000 + n) for n in range(count))
        table = b"".join(struct.pack(">Q", dice.choice((12, 1 << 62, (1 << 64) - 1))) for _ in range(count))
        changed[offsets + 4 * count : offsets + 4 * count] = dice.choice((b"", table))
    else:
        changed[_FANOUT_END + 20 * count : offsets] = bytes(4 * count)
    overwrite(file, bytes(changed[:-20]) + hashlib.sha1(changed[:-20]).digest())
    return f"index: {how} of {file.name}"


def index_of_another(git_dir: Path, dice: random.Random) -> str:
    """Packs have each other's indexes."""
    files = _files(git_dir, _INDEXES)
    if len(files) < 2:
        return ""
    one, other = dice.sample(files, 2)
    data = one.read_bytes()
    overwrite(one, other.read_bytes())
    if dice.random() < 0.5:
        overwrite(other, data)
    return f"index of {one.name} is that of {other.name}"


# -- loose objects


def loose(git_dir: Path, dice: random.Random) -> str:
    """A loose object whose head lies, or with other bytes, well deflated."""
    files = _files(git_dir, _LOOSE)
    if not files:
        return ""
    file = dice.choice(files)
    head, _, data = zlib.decompress(file.read_bytes()).partition(b"\0")
    word = head.split()[0]
    sizes = (0, 1, len(data) - 1, len(data) + 1, len(data) * 2, 1 << 20, 1 << 40, -1)
    size = dice.choice(sizes) if dice.random() < 0.6 else len(data)
    changed = dice.choice((data, data, data[:-1], data + b"x", bytes(len(data)), b"", bytes(18 << 20)))
    heads: tuple[bytes, ...] = (
        b"%b %d" % (word, size),
        b"%b %d" % (word, size),
        b"blob %d" % size,
        b"%b  %d" % (word, size),
    )
    heads += (b"%b 0%d" % (word, size), b"%b +%d" % (word, size), b"x" * 100, word, "blob \u0661".encode())
    stored = zlib.compress(
        dice.choice(heads) + b"\0" + changed, 1 if len(changed) > 1 << 20 else dice.choice((0, 1, 9))
    )
    if dice.random() < 0.1:
        stored += stored
    if stored == file.read_bytes() or (size, changed) == (len(data), data):
        return ""
    overwrite(file, stored)
    return f"loose {file.parent.name}{file.name}: {re.sub(rb'x+', b'x', head)!r} of {len(data)} has {len(changed)}"


SIMPLE: tuple[Damage, ...] = (bytes_of_a_file, bytes_of_a_file, bytes_of_a_file, another_kind, another_kind, references)
SIMPLE += (index, index, index_of_another, loose, loose, whole_directory)
