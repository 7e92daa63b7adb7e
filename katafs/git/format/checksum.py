"""The SHA-1 of all that comes before it, in which packs, their indexes, git's ``index`` and files of chunks end."""

from __future__ import annotations

import hashlib


def checksummed(data: bytes | bytearray) -> bytes:
    """A file with its checksum at its end."""
    return bytes(data) + hashlib.sha1(data).digest()


def is_whole(data: bytes) -> bool:
    """Whether a file ends in its own checksum."""
    return hashlib.sha1(memoryview(data)[:-20]).digest() == data[-20:]
