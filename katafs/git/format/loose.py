"""Objects: their kinds and ids, and the header that is in front of one in a file of its own.

A loose object is zlib of ``<kind> SP <decimal size> NUL <data>``; its id is the SHA-1 of the same.
"""

from __future__ import annotations

import hashlib

Oid = bytes  # 20 bytes

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4
KINDS = {b"commit": COMMIT, b"tree": TREE, b"blob": BLOB, b"tag": TAG}
WORDS = {kind: word for word, kind in KINDS.items()}
#: the longest header of an object, in bytes, that anybody can mean
HEADER = 64


def header(kind: int, size: int) -> bytes:
    """What is in front of the data of an object."""
    return b"%b %d\0" % (WORDS[kind], size)


def object_id(kind: int, data: bytes) -> Oid:
    digest = hashlib.sha1(b"%b %d\0" % (WORDS[kind], len(data)))
    digest.update(data)
    return digest.digest()


#: the only object that has no bytes, and is neither damaged nor the empty tree
EMPTY_BLOB = object_id(BLOB, b"")


def parse_header(text: bytes) -> tuple[int, int, int]:
    """Kind and size, and where the data starts."""
    end = text.index(b"\0", 0, HEADER)
    word, _, digits = text[:end].partition(b" ")
    if word not in KINDS or not digits.isdigit():
        raise ValueError("it has no header")
    return KINDS[word], int(digits), end + 1
