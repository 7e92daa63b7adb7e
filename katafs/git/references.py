"""All references of a repository as they are stored, whole or not: what `katafs fsck` looks at.

Formats: git's gitrepository-layout (``refs``, ``packed-refs``, ``HEAD``).
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from katafs.git.objects import Oid
from katafs.git.repo import open_plain

_ID = re.compile(rb"([0-9a-f]{40})\s*")
_SYMBOLIC = re.compile(rb"ref:\s*(refs/\S+)\s*")
_PACKED_LINE = re.compile(rb"([0-9a-f]{40}) (refs/\S+)|#.*|\^[0-9a-f]{40}|")
_MOST_BYTES, _MOST_PACKED = 4096, 64 << 20
_DEEPEST = 16


class Reference(NamedTuple):
    """One reference: the id that it holds, or the name of another, or neither when it cannot be read."""

    oid: Oid | None
    target: str | None = None
    text: bytes = b""  # of its file; for a symbolic link what that says
    is_packed_only: bool = False


def references(git_dir: Path) -> dict[str, Reference]:
    """All references below ``refs``, by name. Those in files of their own are read before ``packed-refs``, so that one
    that git packs meanwhile is seen. Links are not followed, locks left out.
    """
    found: dict[str, Reference] = {}
    waiting = ["refs"]
    while waiting:
        directory = waiting.pop()
        try:
            entries = list(os.scandir(git_dir / directory))
        except OSError:
            continue
        for entry in entries:
            name = f"{directory}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if name.count("/") < _DEEPEST:
                    waiting.append(name)
            elif not entry.name.endswith(".lock"):
                reference = read_reference(git_dir, name)
                if reference is not None:
                    found[name] = reference
    packed, _ = packed_references(git_dir)
    return {**{name: Reference(oid, is_packed_only=True) for name, oid in packed.items()}, **found}


def read_reference(git_dir: Path, name: str) -> Reference | None:
    """The reference in a file of its own, such as ``HEAD``; None when there is none."""
    path = git_dir / name
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return Reference(None, text=os.fsencode(os.readlink(path)))
        if not stat.S_ISREG(status.st_mode):
            return None if stat.S_ISDIR(status.st_mode) else Reference(None)
        with open(path, "rb", opener=open_plain) as file:
            text = file.read(_MOST_BYTES)
            # a directory on the way may be a link: what is not the owner's is not told
            is_own = os.fstat(file.fileno()).st_uid == os.lstat(git_dir).st_uid
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Reference(None, text=str(error.strerror).encode())
    if found := _ID.fullmatch(text):
        return Reference(bytes.fromhex(found[1].decode()), text=text)
    if found := _SYMBOLIC.fullmatch(text):
        return Reference(None, os.fsdecode(found[1]), text)
    return Reference(None, text=text if is_own else b"")


def packed_references(git_dir: Path) -> tuple[dict[str, Oid], int]:
    """What ``packed-refs`` says, and how many of its lines are none of git's."""
    try:
        with open(git_dir / "packed-refs", "rb", opener=open_plain) as file:
            if os.fstat(file.fileno()).st_size > _MOST_PACKED:
                return {}, 1
            text = file.read(_MOST_PACKED)
    except FileNotFoundError:
        return {}, 0
    except OSError:
        return {}, 1
    found: dict[str, Oid] = {}
    wrong = int(bool(text) and not text.endswith(b"\n"))
    for line in text.split(b"\n"):
        match = _PACKED_LINE.fullmatch(line)
        if match is None:
            wrong += 1
        elif match[2] is not None:
            found[os.fsdecode(match[2])] = bytes.fromhex(match[1].decode())
    return found, wrong
