"""Reading references: each in a file of its own, else in ``packed-refs``."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from katafs.errors import DamagedError, HeavyError, unreadable
from katafs.git import beneath
from katafs.git.beneath import GONE, File
from katafs.git.budget import REFERENCE_BYTE, SEARCHED_BYTE, Budget
from katafs.git.format import packed_refs
from katafs.git.format.packed_refs import PackedRef
from katafs.git.format.stored import Oid

MAIN = "refs/heads/main"
#: what ``HEAD`` says where it stands for that
HEAD_OF_MAIN = f"ref: {MAIN}\n".encode()
PACKED_REFS = "packed-refs"
#: bytes of ``packed-refs`` that are searched: some 250,000 references; of a sorted one only some blocks are read
MOST_PACKED = 16 << 20
#: bytes of it that are read to write it anew
MOST_REWRITTEN = 64 << 20
_ID = re.compile(rb"([0-9a-fA-F]{40})\s*")
# another reference, and by no way around it (git-check-ref-format(1))
_SYMBOLIC = re.compile(rb"ref:\s*(refs/(?:(?!\.\.)\S)+)\s*")
# an id at the start of a file, as git reads it
_START = re.compile(rb"([0-9a-fA-F]{40})(?:\s|$)")
_ZERO = bytes(20)
_MOST_BYTES, _DEEPEST = 4096, 16
# in files of their own; of ``packed-refs``, read whole; and what may be spent, when several are looked for together
_FEW_TAGS, _FEW_BYTES, _FEW_MICROSECONDS = 256, 1 << 16, 5_000.0
# references that are names of others, one after the other (git: 5)
_SYMBOLIC_STEPS = 5
# How long a file may seem to be gone that another host replaces
_PATIENCE, _PAUSE = 1.5, 0.02


class References:
    """The references of one repository, read again for each question. Belongs to one thread. ``git_dir`` is a path
    without links. Whoever may wait (``budget``) does so for what other hosts replace."""

    def __init__(self, git_dir: str, budget: Budget | None = None) -> None:
        self._git_dir = git_dir
        self._budget = budget or Budget()
        self._patience = _PATIENCE if self._budget.may_wait and beneath.is_shared(git_dir) else 0.0
        # whether there was no ``main`` after all
        self._is_unborn = False
        # packed-refs as it was read last; whether that was since somebody asked for ``main``
        self._packed: tuple[tuple[int, int, int], bytes] = ((0, 0, 0), b"")
        self._is_new = False

    def main(self) -> Oid | None:
        self._is_new = False
        return self.get(MAIN)

    def is_small(self) -> bool:
        """Whether what is remembered takes little memory: ``packed-refs`` may have many MiB, if somebody wants that."""
        return len(self._packed[1]) <= _FEW_BYTES

    def tag(self, index: int) -> Oid | None:
        """What the tag ``index`` refers to, or None when it cannot be read. Never by rev-parse: ``12`` may be an id."""
        try:
            return self.get(f"refs/tags/{index}")
        except DamagedError:
            return None

    def get(self, name: str, left: int = _SYMBOLIC_STEPS) -> Oid | None:
        """The id in a reference, or in that of which it is a name, and so on. Raises `DamagedError`."""
        text, deadline = None, 0.0
        while text is None:
            try:
                text = beneath.read_part(f"{self._git_dir}/{name}", _MOST_BYTES)
            except OSError as error:
                if error.errno not in GONE:
                    raise unreadable(f"{self._git_dir}: reference {name} cannot be read", error) from error
                packed, now = self.packed(name), time.monotonic()
                deadline = deadline or now + self._patience * self._may_be_there(name, packed)
                if now >= deadline:
                    self._is_unborn = packed is None and name == MAIN
                    return packed
                time.sleep(_PAUSE)
        # zeros are what git writes of a reference that is not there, and nobody's commit
        if (found := _START.match(text)) and (oid := bytes.fromhex(found[1].decode())) != _ZERO:
            return oid
        if left and (symbolic := _SYMBOLIC.fullmatch(text)):
            return self.get(os.fsdecode(symbolic[1]), left - 1)
        raise DamagedError(f"{self._git_dir}: reference {name} is no id")

    def _may_be_there(self, name: str, packed: Oid | None) -> bool:
        """Whether a reference may have a file that another host is replacing: then its line in packed-refs is one of
        long ago. Only ``main`` moves."""
        if name != MAIN or packed is None:
            return name == MAIN and not self._is_unborn
        directory, _, file = f"{self._git_dir}/{name}".rpartition("/")
        return self._patience > 0.0 and file in beneath.names_in(directory)

    def tags(self, indexes: Iterable[int]) -> dict[int, Oid]:
        """What `tag` says of these, but for those that may have files of their own: ``packed-refs`` is opened once."""
        found: dict[int, Oid | None] = {}
        with suppress(OSError, DamagedError, HeavyError), self._budget.within(_FEW_MICROSECONDS):
            own = _some_names(f"{self._git_dir}/refs/tags")
            if len(own) < _FEW_TAGS:
                found = self._packed_of({f"refs/tags/{index}": index for index in indexes if str(index) not in own})
        return {index: oid for index, oid in found.items() if oid is not None and oid != _ZERO}

    def packed(self, name: str) -> Oid | None:
        """The id in a line of ``packed-refs``. Raises `DamagedError`."""
        if self._is_new and name != MAIN and not self._budget.may_wait:
            # who answers for many need not open it again for the tags of one question
            self._budget.spend(SEARCHED_BYTE * len(self._packed[1]))
            with suppress(ValueError):
                if (found := packed_refs.find(self._packed[1], name.encode())) is not None:
                    return found
        return self._packed_of({name: 0}).get(0)

    def _packed_of(self, names: Mapping[str, int]) -> dict[int, Oid | None]:
        try:
            fd = beneath.open_beneath(f"{self._git_dir}/{PACKED_REFS}")
            try:
                status = os.fstat(fd)
                if status.st_size > packed_refs.BLOCK and b" sorted" in packed_refs.header_of(os.pread(fd, 256, 0)):
                    if len(names) > 1 and status.st_size <= _FEW_BYTES:
                        self._budget.spend(REFERENCE_BYTE * status.st_size)
                        text, each = beneath.read_all(fd, _FEW_BYTES), SEARCHED_BYTE
                    else:
                        text, each = None, REFERENCE_BYTE
                    self._budget.spend(each * packed_refs.BLOCK * len(names))

                    def read(at: int, size: int) -> bytes:
                        return os.pread(fd, size, at) if text is None else text[at : at + size]

                    find = partial(packed_refs.find_sorted, read, status.st_size)
                else:
                    version = (status.st_ino, status.st_size, status.st_mtime_ns)
                    is_read = self._packed[0] == version
                    first = SEARCHED_BYTE if is_read else REFERENCE_BYTE
                    self._budget.spend((first + SEARCHED_BYTE * (len(names) - 1)) * status.st_size)
                    if not is_read:
                        self._packed = (version, beneath.read_all(fd, MOST_PACKED))
                    self._is_new = True
                    find = partial(packed_refs.find, self._packed[1])
                return {which: find(name.encode()) for name, which in names.items()}
            finally:
                beneath.close_quietly(fd)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in GONE:
                return {}
            raise unreadable(f"{self._git_dir}: packed-refs cannot be read", error) from error


class Reference(NamedTuple):
    """One reference as it is stored: its id, or the name of another, or neither when it cannot be read."""

    oid: Oid | None
    target: str | None = None
    text: bytes = b""  # of its file; for a symbolic link what that says
    is_packed_only: bool = False


def references(git_dir: Path) -> dict[str, Reference]:
    """All references below ``refs``, by name. Those in files of their own are read before ``packed-refs``, so that one
    that git packs meanwhile is seen. Links are not followed, locks left out."""
    files = {name: read_reference(git_dir, name) for name in reference_files(git_dir)}
    packed = {name: Reference(ref.oid, is_packed_only=True) for name, ref in packed_references(git_dir)[0].items()}
    return packed | {name: reference for name, reference in files.items() if reference is not None}


def has_references(git_dir: Path) -> bool:
    """Whether there is a branch or a tag, by a glance: a repository that somebody has only begun to make has none."""
    if os.path.lexists(git_dir / PACKED_REFS):
        return True
    for name in ("refs/heads", "refs/tags"):
        with suppress(OSError):
            if any(not each.endswith(".lock") for each in _some_names(f"{os.path.realpath(git_dir)}/{name}")):
                return True
    return False


def _some_names(directory: str) -> set[str]:
    """The names in a directory below no link, `_FEW_TAGS` at most. Raises OSError."""
    fd = beneath.open_beneath(directory, os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            return {entry.name for entry in islice(entries, _FEW_TAGS)}
    finally:
        beneath.close_quietly(fd)


def reference_files(git_dir: Path, below: str = "refs") -> list[str]:
    """The names of the references that have files of their own. Of a directory that is a link, or unreadable, none."""
    found: list[str] = []
    waiting = [below]
    while waiting:
        directory = waiting.pop()
        try:
            if not beneath.is_direct(git_dir / directory, git_dir):
                continue
            entries = sorted(os.scandir(git_dir / directory), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            name = f"{directory}/{entry.name}"
            if not entry.is_dir(follow_symlinks=False):
                found += [name] * (not name.endswith(".lock"))
            elif name.count("/") < _DEEPEST:
                waiting.append(name)
    return found


def read_reference(git_dir: Path, name: str) -> Reference | None:
    """The reference in a file of its own, such as ``HEAD``; None when there is none."""
    path = git_dir / name
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return Reference(None, text=os.fsencode(os.readlink(path)))
        if not stat.S_ISREG(status.st_mode):
            return None if stat.S_ISDIR(status.st_mode) else Reference(None)
        with File(beneath.open_plain(path)) as file:
            text = file.read(_MOST_BYTES)
            # a directory on the way may be a link: what is not the owner's is not told
            is_own = os.fstat(file.fileno()).st_uid == os.lstat(git_dir).st_uid
    except OSError as error:
        return None if error.errno in GONE else Reference(None, text=str(error.strerror).encode())
    if found := _ID.fullmatch(text):
        return Reference(bytes.fromhex(found[1].decode()), text=text)
    if found := _SYMBOLIC.fullmatch(text):
        return Reference(None, os.fsdecode(found[1]), text)
    return Reference(None, text=text if is_own else b"")


def real_name(git_dir: Path, name: str) -> str:
    """The reference that is meant by a name, where that is a symbolic one: git moves the one that it names."""
    for _ in range(_SYMBOLIC_STEPS):
        found = read_reference(git_dir, name)
        if found is None or found.target is None:
            break
        name = found.target
    return name


def packed_references(git_dir: Path) -> tuple[dict[str, PackedRef], int]:
    """What ``packed-refs`` says, and how many of its lines are none of git's."""
    try:
        text = read_packed(git_dir)
    except OSError:
        return {}, 1
    return {os.fsdecode(name): ref for name, ref in packed_refs.parse(text).items()}, packed_refs.wrong_lines(text)


def read_packed(git_dir: Path) -> bytes:
    """``packed-refs``; empty when there is none. Raises OSError (EFBIG) when it is larger than is rewritten."""
    try:
        return beneath.read_whole(git_dir / PACKED_REFS, MOST_REWRITTEN)
    except FileNotFoundError:
        return b""
