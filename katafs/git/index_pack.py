"""Making the index of a pack that has none: one who dies between the renames of `katafs.git.new_pack` leaves such."""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import zlib
from pathlib import Path

from katafs.git.inside import open_inside, real_path
from katafs.git.objects import IN_MEMORY, object_id
from katafs.git.pack import idx_of, record_of
from katafs.git.pack_reader import PackReader
from katafs.git.storing import storing, sync_directory

# bytes; larger ones are for ``git index-pack``
_LARGEST = 16 << 20
_PIECE = 1 << 16


def index_of(path: Path) -> bytes | None:
    """The index of a pack; None when the pack is too large, damaged, or has differences from other packs."""
    real = os.path.join(real_path(path.parent), path.name)
    try:
        with open(real, "rb", opener=open_inside) as file:
            data = file.read(_LARGEST + 1)
        head, checksum = data[:12], data[-20:]
        if len(data) > _LARGEST or head[:8] != b"PACK\0\0\0\2" or hashlib.sha1(data[:-20]).digest() != checksum:
            return None
        reader = PackReader(real.removesuffix(".pack"))
        records = []
        offset = 12
        for _ in range(struct.unpack(">I", head[8:])[0]):
            end = _end(data, reader.entry(offset).start)
            records.append(record_of(object_id(*reader.read(offset, IN_MEMORY)), offset, zlib.crc32(data[offset:end])))
            offset = end
    except (OSError, KeyError, ValueError, zlib.error):
        return None
    return idx_of(sorted(records), checksum) if offset == len(data) - 20 else None


def _end(data: bytes, start: int) -> int:
    """Where the zlib stream ends that begins there. Raises ValueError when it does not."""
    inflater = zlib.decompressobj()
    at = start
    while not inflater.eof:
        piece = inflater.unconsumed_tail or data[at : at + _PIECE]
        if not piece:
            raise ValueError("an object is cut off")
        at += 0 if inflater.unconsumed_tail else len(piece)
        inflater.decompress(piece, _PIECE)
    return at - len(inflater.unused_data)


def put_index(path: Path, idx: bytes) -> None:
    """Put the index beside the pack at ``path``; on disk when this returns. Raises `StorageError`."""
    with storing("an index", path.parent, len(idx)):
        fd, name = tempfile.mkstemp(prefix="tmp_idx_", dir=path.parent)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(idx)
                file.flush()
                os.fchmod(fd, 0o444)
                os.fsync(fd)
            os.rename(name, path.with_suffix(".idx"))
        except BaseException:
            os.unlink(name)
            raise
        sync_directory(path.parent)
