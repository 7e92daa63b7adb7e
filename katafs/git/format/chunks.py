"""Files of chunks: multi-pack-indexes and commit-graphs (git's gitformat-chunk), as far as it is to be known whether
what they speak of is still there.

Both begin with four bytes of magic, a version, the version of the hash (1: SHA-1), and how many chunks there are (one
byte, in a commit-graph before, in a multi-pack-index after the number of files they build on). Then comes a table of
chunks: four bytes of name, eight of offset; the last one ends the file, but for its checksum.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from katafs.git.format.loose import Oid
from katafs.git.format.pack import is_whole

_MIDX, _GRAPH = b"MIDX", b"CGPH"


def _chunks(data: bytes, magic: bytes) -> dict[bytes, bytes]:
    """The chunks of a file, by name."""
    if data[:6] != magic + b"\1\1" or not is_whole(data):
        raise ValueError("it does not go with its checksum, or is of another version")
    start = 12 if magic == _MIDX else 8
    table = [struct.unpack_from(">4sQ", data, start + 12 * place) for place in range(data[6] + 1)]
    return {name: data[at:end] for (name, at), (_, end) in pairwise(table)}


def midx_packs(data: bytes) -> list[str]:
    """The packs, by the names of their indexes, that a multi-pack-index speaks of."""
    try:
        return [name.decode("ascii") for name in _chunks(data, _MIDX)[b"PNAM"].rstrip(b"\0").split(b"\0") if name]
    except (KeyError, struct.error) as error:
        raise ValueError("a multi-pack-index without packs") from error


def graph_commits(data: bytes) -> list[Oid]:
    """The commits that a commit-graph speaks of."""
    try:
        ids = _chunks(data, _GRAPH)[b"OIDL"]
    except (KeyError, struct.error) as error:
        raise ValueError("a commit-graph without commits") from error
    return [ids[at : at + 20] for at in range(0, len(ids), 20)]
