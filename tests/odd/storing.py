"""Ways in which git stores one and the same: packs, indexes, what stands beside them, references."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.katas import git

Way = Callable[[Path, random.Random], None]


def _packs(path: Path) -> list[Path]:
    return sorted((path / ".git/objects/pack").glob("*.pack"))


def one_pack(path: Path, dice: random.Random) -> None:
    """All that is reached in one pack, with its deltas made anew, in each version of pack and index."""
    settings = (
        f"pack.indexVersion={dice.choice((1, 1, 2))}",
        f"repack.useDeltaBaseOffset={dice.choice(('true', 'false'))}",
        f"pack.compression={dice.choice((-1, 0, 1, 9))}",
        f"pack.writeReverseIndex={dice.choice(('true', 'false'))}",
        f"pack.packSizeLimit={dice.choice(('0', '1m'))}",
    )
    options = [part for setting in settings for part in ("-c", setting)]
    depth, window = f"--depth={dice.choice((0, 50, 250, 4095))}", f"--window={dice.choice((3, 10, 50))}"
    git(path, *options, "repack", dice.choice(("-adfq", "-Adfq", "-dq", "-aq")), depth, window)


def slices(path: Path, dice: random.Random) -> None:
    """Several packs, each of some of the objects, which may be in more than one; what is left is loose."""
    listed = git(path, "cat-file", "--batch-all-objects", "--batch-check=%(objectname)").split()
    for _ in range(dice.choice((2, 3, 5))):
        some = dice.sample(listed, dice.randrange(1, len(listed) + 1))
        options = [dice.choice(("--index-version=1", "--index-version=2", "--index-version=2,0x40"))]
        options += dice.choice(([], ["--delta-base-offset"]))
        git(path, "pack-objects", "-q", *options, ".git/objects/pack/pack", stdin=b"\n".join(some) + b"\n")
    if dice.random() < 0.7:
        git(path, "prune-packed", "-q")


def thin_pack(path: Path, dice: random.Random) -> None:
    """As what was fetched: deltas from what another pack has, which `index-pack` appends."""
    if b"\n" not in git(path, "rev-list", "main").strip():
        return
    wanted = b"main\n^main~1\n"
    thin = git(path, "pack-objects", "-q", "--thin", "--stdout", "--revs", "--all-progress-implied", stdin=wanted)
    version = dice.choice(("1", "2", "2,0x20"))
    git(path, "index-pack", "--stdin", "--fix-thin", f"--index-version={version}", stdin=thin)


def far_offsets(path: Path, dice: random.Random) -> None:
    """An index that has most of its offsets in the table of those of 64 bits."""
    for pack in _packs(path):
        index = pack.with_suffix(".idx")
        index.unlink()
        pack.with_suffix(".rev").unlink(missing_ok=True)
        git(path, "index-pack", f"--index-version=2,0x{dice.choice((0x10, 0x80, 0x400)):x}", "-o", index, pack)


def cruft(path: Path, dice: random.Random) -> None:
    git(path, "repack", "--cruft", "-dq", *dice.choice(((), ("--write-midx",))))


def midx(path: Path, dice: random.Random) -> None:
    git(path, "multi-pack-index", "write", *dice.choice(((), (), ("--bitmap",), ("--incremental",))), "--no-progress")


def bitmaps(path: Path, dice: random.Random) -> None:
    git(path, "repack", "-adbq", *dice.choice(((), ("--write-midx",))))


def commit_graph(path: Path, dice: random.Random) -> None:
    options = dice.choice(((), ("--split",), ("--changed-paths",), ("--split=no-merge", "--changed-paths")))
    git(path, "commit-graph", "write", "--reachable", "--no-progress", *options)


def keep(path: Path, dice: random.Random) -> None:
    for pack in _packs(path)[:1]:
        pack.with_suffix(".keep").write_bytes(dice.choice((b"", b"fetch-pack 12 on host\n")))


def other_names(path: Path, dice: random.Random) -> None:
    """git takes any name; a multi-pack-index has the old ones."""
    if (path / ".git/objects/pack/multi-pack-index").exists():
        return
    for pack in _packs(path):
        name = dice.choice((f"pack-{dice.randbytes(20).hex()}", "pack-" + "f" * 64, "pack-x" + pack.stem))
        if (pack.parent / f"{name}.pack").exists():
            continue
        for file in pack.parent.glob(f"{pack.stem}.*"):
            file.rename(file.with_name(name + file.suffix))


def unpacked(path: Path, dice: random.Random) -> None:
    """All that is packed loose as well."""
    packs, hidden = path / ".git/objects/pack", path / ".git/objects/hidden"
    # git unpacks nothing that it finds
    packs.rename(hidden)
    for pack in sorted(hidden.glob("*.pack")):
        level = f"core.looseCompression={dice.choice((0, 1, 9))}"
        git(path, "-c", level, "unpack-objects", "-q", stdin=pack.read_bytes())
    if packs.exists():
        packs.rmdir()
    hidden.rename(packs)


def deflated_otherwise(path: Path, dice: random.Random) -> None:
    """Loose objects with the small windows that some writers use, which git inflates as well."""
    for file in sorted((path / ".git/objects").glob("??/*"))[:40]:
        data = zlib.decompress(file.read_bytes())
        deflate = zlib.compressobj(dice.randrange(10), wbits=dice.choice((9, 12, 15)), strategy=dice.choice((0, 2, 4)))
        pieces = [deflate.compress(data[:7]), deflate.flush(zlib.Z_FULL_FLUSH), deflate.compress(data[7:])]
        file.chmod(0o644)
        file.write_bytes(b"".join([*pieces, deflate.flush()]))


def gc(path: Path, dice: random.Random) -> None:
    git(path, "gc", "-q", *dice.choice(((), ("--aggressive",), ("--prune=never",))))


WAYS: tuple[Way, ...] = (one_pack, slices, thin_pack, far_offsets, cruft, midx, bitmaps, commit_graph, keep)
WAYS += (other_names, unpacked, deflated_otherwise, gc)


# -- references


def packed_references(path: Path, dice: random.Random) -> None:
    """In ``packed-refs`` as git writes it today, or wrote it, with files in front of it that are newer."""
    older = git(path, "rev-list", "--max-count=1", "--skip=1", "main").decode().strip()
    newest = git(path, "rev-parse", "main").decode().strip()
    if older and dice.random() < 0.3:
        git(path, "update-ref", "refs/heads/main", older)
        git(path, "pack-refs", "--all")
        git(path, "update-ref", "refs/heads/main", newest)
    else:
        git(path, "pack-refs", "--all", *dice.choice(((), ("--no-prune",))))
    file = path / ".git/packed-refs"
    lines = file.read_bytes().splitlines(keepends=True)
    form = dice.choice(("as it is", "no header", "unsorted", "unpeeled", "uppercase"))
    if form == "no header":
        lines = lines[1:]
    elif form == "unsorted":
        entries = re.findall(rb"^[^#^].*\n(?:\^.*\n)?", b"".join(lines), re.MULTILINE)
        lines = [b"# pack-refs with: peeled \n", *dice.sample(entries, len(entries))]
    elif form == "unpeeled":
        lines = [b"# pack-refs with: sorted \n", *(line for line in lines[1:] if not line.startswith(b"^"))]
    elif form == "uppercase":
        lines = [lines[0], *(line[:41].upper() + line[41:] for line in lines[1:])]
    file.write_bytes(b"".join(lines))


def odd_files(path: Path, dice: random.Random) -> None:
    """Files of references with what git passes over behind the id, or with capitals."""
    for file in (file for file in (path / ".git/refs").glob("**/*") if file.is_file()):
        oid = file.read_bytes().strip()
        if len(oid) == 40:
            ends = (b"", b"\n", b"\r\n", b" \n", b"\n\n# x")
            file.write_bytes((oid.upper() if dice.random() < 0.1 else oid) + dice.choice(ends))


def detached_head(path: Path, dice: random.Random) -> None:
    (path / ".git/HEAD").write_bytes(git(path, "rev-parse", "main~0"))


def work_tree(path: Path, dice: random.Random) -> None:
    git(path, "worktree", "add", "--no-checkout", "--detach", path.with_name(f"{path.name}-tree"), "main")


def symbolic_main(path: Path, dice: random.Random) -> None:
    """main as another name of a branch, and a tag that is one of another tag."""
    git(path, "update-ref", "refs/heads/trunk", "refs/heads/main")
    git(path, "symbolic-ref", "refs/heads/main", "refs/heads/trunk")


REFERENCES: tuple[Way, ...] = (packed_references, odd_files, detached_head, work_tree, symbolic_main)


def store(path: Path, dice: random.Random) -> list[str]:
    """Have git store a repository in an odd way: what was done."""
    ways = dice.sample(WAYS, dice.choice((0, 1, 1, 2, 3)))
    ways += dice.sample(REFERENCES, dice.choice((0, 1, 2)))
    for way in ways:
        # what this git cannot do, or not with what is there, as a bitmap of several packs, is not done
        with contextlib.suppress(subprocess.CalledProcessError):
            way(path, dice)
    if dice.random() < 0.3:
        (path / ".git/objects/pack/tmp_pack_died").write_bytes(b"PACK")
        os.utime(path / ".git/objects/pack/tmp_pack_died", (0, 0))
    return [way.__name__ for way in ways]
