"""Builders of repositories, and what is asked of their downloads."""

from __future__ import annotations

import hashlib
import os
import subprocess
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from katafs.git import GitRepo
from katafs.kata.views.download import Download, make_download
from katafs.kata.views.image import FILE, Member, Source
from katafs.kata.views.spool import Spool
from tests.katas import git, tags_of

NAME = "cyber-dojo-2026-02-03-AbCdEf-Fizz-Buzz"
MTIME = 1_770_000_000
Tree = Mapping[bytes, "bytes | Tree | tuple[int, str]"]


def put(path: Path, kind: str, data: bytes) -> str:
    """Write a loose object as it is, however wrong; its id."""
    whole = f"{kind} {len(data)}\0".encode() + data
    oid = hashlib.sha1(whole).hexdigest()
    file = path / ".git" / "objects" / oid[:2] / oid[2:]
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(zlib.compress(whole, 1))
    return oid


def put_tree(path: Path, tree: Tree) -> str:
    """A tree of blobs, trees, and entries given as mode and id."""
    entries = []
    for name, value in tree.items():
        if isinstance(value, bytes):
            mode, oid = 0o100644, put(path, "blob", value)
        elif isinstance(value, tuple):
            mode, oid = value
        else:
            mode, oid = 0o040000, put_tree(path, value)
        entries.append((name + b"/" * (mode == 0o040000), b"%o %b\0%b" % (mode, name, bytes.fromhex(oid))))
    return put(path, "tree", b"".join(entry for _, entry in sorted(entries)))


def put_commit(path: Path, tree: Tree | str, *parents: str, number: int = 0) -> str:
    """A commit, which becomes the tip of main and has the tag ``number``."""
    tree_id = tree if isinstance(tree, str) else put_tree(path, tree)
    who = f"AbCdEf <AbCdEf@cyber-dojo.org> {MTIME - 1000 + number} +0000"
    lines = [f"tree {tree_id}", *(f"parent {parent}" for parent in parents), f"author {who}", f"committer {who}"]
    oid = put(path, "commit", "\n".join([*lines, "", f"{number} ran tests, grün"]).encode())
    (path / ".git" / "refs" / "heads" / "main").write_text(oid + "\n")
    (path / ".git" / "refs" / "tags" / str(number)).write_text(oid + "\n")
    return oid


def make(path: Path, spool: Path | None = None, **changed: Any) -> Download:
    repo = GitRepo(path)
    tip = repo.main()
    assert tip is not None
    values: dict[str, Any] = {"oid": tip, "tags": tags_of(repo.path), "name": NAME, "time_ns": MTIME * 10**9, **changed}
    made = make_download(path, Source(**values), Spool(spool))
    return made if isinstance(made, Download) else made()


def tgz(image: Download) -> bytes:
    return image.read_tgz(0, image.tgz_size)


def contents(image: Download) -> dict[bytes, tuple[Member, bytes]]:
    return {
        path: (member, image.read(path, 0, member.size) if member.mode == FILE else b"")
        for path, member in image.members.items()
    }


def unpack_tgz(image: Download, directory: Path) -> Path:
    """What GNU tar makes of the archive: the repository."""
    directory.mkdir()
    command = ["tar", "-x", "-z", "-f", "-", "-C", str(directory)]
    done = subprocess.run(command, input=tgz(image), capture_output=True, check=True)
    assert done.stderr == b""
    assert os.listdir(directory) == [image.name]
    return directory / image.name


def unpacked(path: Path, directory: Path) -> Path:
    """The repository that a download of the one at ``path`` unpacks to."""
    image = make(path)
    try:
        return unpack_tgz(image, directory)
    finally:
        image.close()


def assert_clean(path: Path, *options: str) -> None:
    """git finds nothing changed, at once, and when it has to read the files again."""
    assert git(path, *options, "diff-files") == b""
    assert git(path, *options, "status", "--porcelain", "--ignored") == b""
    for file in path.rglob("*"):
        if ".git" not in file.parts:
            os.utime(file)
    assert git(path, *options, "status", "--porcelain") == b""
    assert git(path, *options, "diff", "HEAD", "--") == b""
