"""Checks of the objects, each read and compared with its id while others may write, and of the packs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from katafs.directories import walk
from katafs.errors import KataError
from katafs.git import Oid
from katafs.git.beneath import File, open_plain
from katafs.git.format.stored import BLOB, object_id
from katafs.git.store import mending
from katafs.kata.fsck.exam import Examination, Problem, events, printable
from katafs.kata.fsck.file_checks import STALE_WORK
from katafs.kata.fsck.scan import age

_MOST_FILES, _LARGEST_FILE = 10_000, 64 << 20


def look(exam: Examination) -> list[mending.Damage]:
    """Read all objects that a reference reaches, and all loose ones: those that are damaged."""
    tips = [found.oid for found in exam.references.values() if found.oid is not None]
    seen: set[Oid] = set()
    main = [exam.main] if exam.main is not None else []
    found = list(mending.verify(exam.repo, [*main, *(tip for tip in tips if mending.is_there(exam.repo, tip))], seen))
    unused = (mending.damage_of(exam.repo, oid, 0) for oid in exam.repo.objects.loose if oid not in seen)
    return found + [damage for damage in unused if damage is not None]


def problems(exam: Examination, damage: list[mending.Damage]) -> Iterator[Problem]:
    """What is still wrong of what `look` found, with the events and files that need it."""
    loose = exam.repo.objects.loose
    there = (each for each in damage if each.kind or each.oid in loose)
    still = [each for each in there if mending.damage_of(exam.repo, each.oid, each.kind)]
    if not still:
        return
    where = _touched(exam, {found.oid for found in still if found.kind})
    copies = _copies(exam, {found.oid for found in still if found.kind == BLOB})
    for found in sorted(still):
        oid = found.oid.hex()
        what = f"object {oid} is missing" if found.is_missing else f"object {oid} {printable(found.why)}"
        if not found.kind:
            message = f"{what}; nothing refers to it, but nobody could store the same again"
            yield Problem("object-damaged", message, partial(exam.keep, _file(exam, found.oid), move=True))
            continue
        message = f"{what}: {where.get(found.oid) or 'no event of main needs it'}"
        packed = exam.repo.objects.read_packed(found.oid)
        mend = None
        if packed is not None and found.oid in loose:
            message += "; a pack has it whole"
            mend = partial(exam.keep, _file(exam, found.oid), move=True)
        elif found.oid in copies:
            message += f"; {printable(copies[found.oid][0])} in the kata's directory has its bytes"
            mend = partial(mending.put_object, exam.repo, found.oid, BLOB, copies[found.oid][1])
        advice = "" if mend else _advice(exam)
        yield Problem("object-missing" if found.is_missing else "object-damaged", message, mend, advice)


def _advice(exam: Examination) -> str:
    if (exam.git_dir / "objects/info/alternates").is_file():
        return "it may be borrowed, which katafs does not do: as the owner, git repack -a -d copies what is borrowed"
    return "no copy is in this kata; copy the file of the object from a backup"


def _file(exam: Examination, oid: Oid) -> str:
    return os.path.relpath(exam.repo.objects.loose.path(oid), os.path.realpath(exam.path))


def _touched(exam: Examination, wanted: set[Oid]) -> dict[Oid, str]:
    """For each object the events and files of ``main`` that cannot be read without it."""
    places: dict[Oid, tuple[set[int], set[bytes]]] = {oid: (set(), set()) for oid in wanted}
    whereabouts = mending.Whereabouts(exam.repo, wanted)
    by_commit: dict[Oid, set[int]] = {}
    for index, oid in exam.expected.items():
        by_commit.setdefault(oid, set()).add(index)
    for index, tag in exam.tags.items():
        if tag.oid is not None and tag.oid not in exam.chain.commits:
            by_commit.setdefault(tag.oid, set()).add(index)
    for commit, tree in _trees(exam, by_commit):
        indexes = by_commit.get(commit, set())
        if commit in places:
            places[commit][0].update(indexes)
        for oid, path in whereabouts.below(tree):
            places[oid][0].update(indexes)
            places[oid][1].add(path)
    sentences = {}
    for oid, (indexes, paths) in places.items():
        shown = [printable(path) or "everything" for path in sorted(paths)[:5]] + (["…"] if len(paths) > 5 else [])
        if indexes or paths:
            what = events(indexes) if indexes else "an option"
            sentences[oid] = f"{', '.join(shown) or 'everything'} of {what} cannot be read"
    return sentences


def _trees(exam: Examination, named: Iterable[Oid]) -> Iterator[tuple[Oid, Oid]]:
    """The commits of ``main``, and those that tags name where its history breaks off, each with its tree."""
    yield from ((step.oid, step.tree) for step in exam.chain.steps)
    for oid in set(named) - exam.chain.commits:
        try:
            yield oid, exam.repo.commit(oid).tree
        except KataError:
            yield oid, oid


def _copies(exam: Examination, wanted: set[Oid]) -> dict[Oid, tuple[str, bytes]]:
    """Files of the kata's directory, which saver kept up to date for years, that are the blobs that are wanted."""
    found: dict[Oid, tuple[str, bytes]] = {}
    left, owner = _MOST_FILES, os.lstat(exam.path).st_uid
    for directory in walk(exam.path) if wanted else ():
        directory.directories = [name for name in directory.directories if name != ".git"]
        for name in directory.names:
            data = _plain_file(directory.path(name), owner)
            oid = object_id(BLOB, data) if data is not None else b""
            if data is not None and oid in wanted:
                found[oid] = ("/".join([*directory.way, name]), data)
            left -= 1
            if left <= 0:
                return found
    return found


def _plain_file(path: str, owner: int) -> bytes | None:
    """The bytes of a file that is the owner's: he is not to be given what he could not read."""
    try:
        with File(open_plain(path)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != owner or status.st_size > _LARGEST_FILE:
                return None
            return file.read(_LARGEST_FILE)
    except OSError:
        return None


def indexes(exam: Examination) -> Iterator[Problem]:
    """Without its index nobody finds what is in a pack; one that cannot be read is as bad."""
    directory = exam.git_dir / "objects/pack"
    if not directory.is_dir():
        return
    for path, why in mending.damaged_indexes(exam.repo, is_thorough=exam.lacks_objects):
        yield _index(path, "pack-index-damaged", f"the index of {printable(path.name)} {printable(why)}")
    for path in sorted(directory.glob("*.pack")):
        is_alone = not os.path.lexists(path.with_suffix(".idx"))
        if is_alone and (exam.lacks_objects or age(path) > STALE_WORK):
            message = f"{printable(path.name)} has no index, so that nobody finds the objects in it"
            yield _index(path, "pack-without-index", message)


def _index(path: Path, code: str, message: str) -> Problem:
    idx = mending.index_of(path)
    mend = partial(mending.put_index, path, idx) if idx is not None else None
    advice = f"as the owner: git index-pack .git/objects/pack/{printable(path.name)}"
    return Problem(code, message, mend, "" if mend else advice)


def beside(exam: Examination) -> Iterator[Problem]:
    """What git would believe although it is not true any more, and what keeps packs from being packed."""
    for what, remove in mending.stale_files(exam.repo):
        yield Problem("stale-file", printable(what, 300), remove, is_passing=True)
