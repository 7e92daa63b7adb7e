"""``packed-refs``: a line ``<id> SP <name>`` for each reference, maybe ``^<id>`` of what a tag is of after it.

The first line may say how the others are: ``peeled``, ``fully-peeled``, ``sorted`` (git's gitrepository-layout).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from katafs.git.format.stored import Oid

HEADER = b"# pack-refs with:"
_LINE = re.compile(rb"^([0-9a-fA-F]{40}) (\S+)\n(?:(\^[0-9a-fA-F]{40})\n)?", re.MULTILINE)
_KNOWN = re.compile(rb"[0-9a-fA-F]{40} refs/\S+|#.*|\^[0-9a-fA-F]{40}|")
_WHOLE_LINE = re.compile(rb"\n([0-9a-fA-F]{40} (\S+)\n)")
_HEX_LINE = re.compile(rb"(?:\A|\n)[0-9a-fA-F]{40}")
#: of a sorted file so much is read at a time: more than two lines that anybody can mean
BLOCK = 8192
# what ends like a reference's line and is none; git reads no file with one of them
_MOST_WRONG = 1000

#: gives so many bytes from an offset, or fewer at the end
Read = Callable[[int, int], bytes]


class PackedRef(NamedTuple):
    """One reference, and the line below it, if there is one."""

    oid: Oid
    peeled: bytes = b""


def parse(text: bytes) -> dict[bytes, PackedRef]:
    """All references, by name; lines that are none of git's are left out (`wrong_lines`)."""
    text = text if text.endswith(b"\n") else text + b"\n"
    return {name: PackedRef(bytes.fromhex(oid.decode()), peeled) for oid, name, peeled in _LINE.findall(text)}


def wrong_lines(text: bytes) -> int:
    """How many lines are none of git's."""
    is_cut = bool(text) and not text.endswith(b"\n")
    return is_cut + sum(_KNOWN.fullmatch(line) is None for line in text.split(b"\n"))


def header_of(text: bytes) -> bytes:
    """The first line, if it says how the others are: ``sorted`` by the names, or not."""
    first = text.partition(b"\n")[0]
    return first if first.startswith(HEADER) else b""


def find_sorted(read: Read, size: int, name: bytes) -> Oid | None:
    """The id of a reference in a sorted file of ``size`` bytes, of which only some blocks are read. Raises ValueError
    where a line is longer than anybody can mean."""
    low, high = 0, size
    while high - low > BLOCK:
        middle = (low + high) // 2
        block = read(middle, BLOCK)
        # the first reference whose line begins after the middle; what is below a line belongs to it
        found = _WHOLE_LINE.search(block)
        if found is None or (start := middle + found.start(1)) >= high:
            raise ValueError("packed-refs has a line that is too long")
        if found[2] == name:
            return bytes.fromhex(found[1][:40].decode())
        low, high = (start, high) if found[2] < name else (low, start)
    return find(read(low, high - low), name)


def find(text: bytes, name: bytes) -> Oid | None:
    """The id of a reference in a file, or whole lines of one; of several, the last one's. That takes 20 ms for 16 MiB,
    where `parse` takes half a second, and keeps all others waiting. Raises ValueError where too many lines are wrong.
    """
    text = text if text.endswith(b"\n") else text + b"\n"
    end, wrong = len(text), 0
    while (at := text.rfind(b" " + name + b"\n", 0, end)) >= 40:
        if _HEX_LINE.fullmatch(text, max(at - 41, 0), at):
            return bytes.fromhex(text[at - 40 : at].decode())
        end, wrong = at + 1, wrong + 1
        if wrong > _MOST_WRONG:
            raise ValueError("packed-refs has too many wrong lines")
    return None


def build(refs: Mapping[bytes, PackedRef], before: bytes = b"") -> bytes:
    """The file. What the one ``before`` said of its lines stays said, as those that are kept are as they were."""
    header = header_of(before) or (HEADER if before else HEADER + b" peeled fully-peeled")
    if b" sorted" not in header:
        header = header.rstrip() + b" sorted "
    lines = [
        b"%b %b\n" % (ref.oid.hex().encode(), name) + (ref.peeled and ref.peeled + b"\n")
        for name, ref in sorted(refs.items())
    ]
    return b"".join([header, b"\n", *lines])
