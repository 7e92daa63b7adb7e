"""cyber-dojo's groups: who is in a class, and what all of its katas say. Nothing here is ever written to.

A group is a directory ``Ab/Cd/Ef``, as a kata is, with the ids of its members (FORMAT: version 0 in ``IDX/kata.id``,
later ones in ``katas.txt``). Whoever can write there is hostile, and so is what is in a kata.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedRandom
from pathlib import Path

from katafs.errors import DamagedError, KataError, NotFoundError, unreadable
from katafs.git import GitRepo, Oid
from katafs.git.beneath import read_part
from katafs.git.budget import Budget
from katafs.kata.model.ids import is_kata_id, kata_path
from katafs.kata.model.steps import COLUMNS, Step, csv_events, csv_lines, history, history_text
from katafs.kata.reader import Past, reader
from katafs.kata.store import is_git

_MOST = 64  # members
_LIST = 4 << 10  # bytes of ``katas.txt`` that are read; a member has ten, and each line is looked for in the store
_MEMBER = re.compile(rb"([0-9A-Za-z]{6}) ([0-9]|[1-5][0-9]|6[0-3])")
_TO_ALL = stat.S_IROTH | stat.S_IXOTH
_SECOND = 1_000_000_000

#: by what the events of a kata are known to be the same: its tip; the times, sizes and inodes of plain files; why it
#: cannot be read; None where its directory is closed to others
State = Oid | tuple[tuple[int, int, int], ...] | str | None


@dataclass(frozen=True, slots=True)
class Member:
    """A kata of a group. ``path`` is in the store."""

    index: int
    kata_id: str
    path: Path
    state: State


@dataclass(frozen=True, slots=True)
class Group:
    """A group as it was at one moment: ``digest`` is another when one of its members is, and so is ``time_ns``, which
    is about when something in it changed last. ``left_out`` says what is no member, a few words each."""

    group_id: str
    members: tuple[Member, ...]
    digest: bytes
    time_ns: int
    left_out: tuple[str, ...] = ()


def status_of(root: Path, group_id: str) -> tuple[os.stat_result, int]:
    """The status of the directory of a group or kata, and the permissions that it and the two above it have in common.
    Raises `NotFoundError` where one of them is no directory, or a link."""
    path = kata_path(root, group_id)
    try:
        found = [os.lstat(place) for place in (path.parent.parent, path.parent, path)]
    except OSError as error:
        raise NotFoundError(f"{path}: {error.strerror}") from error
    if not all(stat.S_ISDIR(status.st_mode) for status in found):
        raise NotFoundError(f"{path} is not a directory")
    return found[-1], found[0].st_mode & found[1].st_mode & found[2].st_mode & 0o777


def look(root: Path, store: Path, group_id: str) -> Group:
    """A group of the directory ``root``, a path without links, as it is now. Reads 4 KiB and a reference a kata at
    most. To be called in a worker thread. Raises `NotFoundError`."""
    newest = status_of(root, group_id)[0].st_mtime_ns
    members: dict[int, Member] = {}
    left_out: list[str] = []
    for index, kata_id in _named(kata_path(root, group_id), left_out):
        if index in members or any(kata_id == member.kata_id for member in members.values()):
            left_out.append(f"{index} {kata_id}, since one of them was there before")
            continue
        try:
            state, time_ns = _state(store, kata_id)
        except NotFoundError as error:
            left_out.append(f"{index} {kata_id}: {error}")
        else:
            members[index] = Member(index, kata_id, kata_path(store, kata_id), state)
            newest = max(newest, time_ns)
    in_order = tuple(members[index] for index in sorted(members))
    digest = blake2b(repr(in_order).encode(), digest_size=16).digest()
    time_ns = newest // _SECOND * _SECOND + int.from_bytes(digest[:4]) % _SECOND
    return Group(group_id, in_order, digest, time_ns, tuple(left_out[:_MOST]))


def _named(directory: Path, left_out: list[str]) -> Iterator[tuple[int, str]]:
    """The indexes and ids in a group, as they stand there."""
    try:
        text = read_part(f"{directory}/katas.txt", _LIST)
    except FileNotFoundError:
        lines = list(_version_0(directory))
    except OSError as error:
        left_out.append(f"katas.txt: {error.strerror}")
        return
    else:
        lines = text.split(b"\n")
        if len(text) == _LIST:
            left_out.append(f"what of katas.txt is behind the first {_LIST >> 10} KiB")
            lines.pop()
    for line in lines:
        found = _MEMBER.fullmatch(line)
        if found is not None and is_kata_id(found[1].decode()):
            yield int(found[2]), found[1].decode()
        elif line and len(left_out) < _MOST:
            left_out.append(f"the line {line[:20].decode(errors='replace')!r}")


def _version_0(directory: Path) -> Iterator[bytes]:
    for index in range(_MOST):
        try:
            yield b"%s %d" % (read_part(f"{directory}/{index}/kata.id", 20).strip(), index)
        except OSError:
            continue


def _state(store: Path, kata_id: str) -> tuple[State, int]:
    """The state of a kata, and when it last changed, in ns. Raises `NotFoundError`."""
    status, permissions = status_of(store, kata_id)
    path = kata_path(store, kata_id)
    if permissions & _TO_ALL != _TO_ALL:
        return None, status.st_ctime_ns
    if not is_git(path):
        names = ("", "manifest.json", "events.json")
        found = [known for name in names if (known := _lstat(path / name)) is not None]
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in found), max(one.st_mtime_ns for one in found)
    times = [_lstat(path / ".git" / name) for name in ("refs/heads/main", "packed-refs")]
    newest = max((one.st_mtime_ns for one in times if one is not None), default=status.st_mtime_ns)
    try:
        # with a budget it does not wait for another host
        return GitRepo(path, budget=Budget()).main() or "it has no branch main", newest
    except KataError as error:
        return str(error), newest


def _lstat(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


# -- what is made of it, in a process of its own


def group_steps(group: Group) -> Iterator[tuple[Member, list[Step] | KataError]]:
    """The events of each member that is not closed to others, or why they cannot be read; one kata at a time."""
    for member in group.members:
        if member.state is None:
            continue
        try:
            if isinstance(member.state, str):
                raise DamagedError(member.state)
            past = Past(member.path, member.kata_id, member.state) if isinstance(member.state, bytes) else None
            yield member, history((past or reader(member.path)).rows(), member.kata_id)
        except KataError as error:
            yield member, error
        except RecursionError as error:
            yield member, unreadable(f"kata {member.kata_id}", error)


def write_events(group: Group, file: BufferedRandom, _path: Path) -> None:
    """``events.csv``: the columns of ``katafs log --csv``, and the index of the member in front."""
    file.write(csv_lines([["member", *COLUMNS]]).encode())
    for member, steps in group_steps(group):
        if not isinstance(steps, KataError):
            file.write(csv_events(steps, member.kata_id, {"member": member.index}).encode())


def write_history(group: Group, file: BufferedRandom, _path: Path) -> None:
    """``history``: that of each kata, below a line with the index and id of the member."""
    for number, (member, steps) in enumerate(group_steps(group)):
        file.write(f"{chr(10) * bool(number)}{member.index:02} {member.kata_id}".encode())
        file.write(b": its events cannot be read\n" if isinstance(steps, KataError) else b"\n" + history_text(steps))
