"""Checks of the objects, each read and compared with its id while others may write, and of the packs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from katafs.git import Oid
from katafs.git.format.stored import COMMIT
from katafs.git.odb.packs import DAMAGE
from katafs.git.store import mending
from katafs.kata.fsck import chains
from katafs.kata.fsck.exam import Examination, Problem, giving_up
from katafs.kata.fsck.file_checks import STALE_WORK
from katafs.kata.fsck.scan import age
from katafs.kata.fsck.words import events, printable


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
    advice_of_newest = _giving_up(exam, still)
    for found in sorted(still):
        oid = found.oid.hex()
        what = f"object {oid} is missing" if found.is_missing else f"object {oid} {printable(found.why)}"
        if not found.kind:
            message = f"{what}; nothing refers to it, but nobody could store the same again"
            yield Problem("object-damaged", message, partial(exam.keep, _file(exam, found.oid), move=True))
            continue
        message = f"{what}: {_needed_by(exam, found)}"
        packed = exam.repo.objects.read_packed(found.oid)
        mend = None
        if packed is not None and found.oid in loose:
            message += "; a pack has it whole"
            mend = partial(exam.keep, _file(exam, found.oid), move=True)
        advice = "" if mend else _advice(exam) + advice_of_newest
        yield Problem("object-missing" if found.is_missing else "object-damaged", message, mend, advice)


def _advice(exam: Examination) -> str:
    if (exam.git_dir / "objects/info/alternates").is_file():
        return "it may be borrowed, which katafs does not do: as the owner, git repack -a -d copies what is borrowed"
    return "copy its file from a backup; or remove it, if it is there, and git hash-object -w a file that has the bytes"


def _giving_up(exam: Examination, damage: list[mending.Damage]) -> str:
    """How to do without the newest events, where only they need what is damaged, and nobody packed them: git syncs
    nothing, and a power cut can leave the name of a commit and nothing of its files."""
    needing = {found.oid if found.kind == COMMIT else found.commit for found in damage}
    steps = exam.chain.steps
    broken = [place for place, step in enumerate(steps) if step.oid in needing]
    oldest = len(steps) - 1 if exam.chain.problem else max(broken, default=-1)
    lost = {step.oid for step in steps[: oldest + 1]}
    tips: list[Oid] = []
    if oldest + 1 < len(steps):
        tips = [steps[oldest + 1].oid]
    else:
        # of an index that cannot be read another check tells
        with suppress(*DAMAGE):
            tips = [oid for oid in chains.ends(exam.repo) if oid not in exam.chain.commits]
    if len(tips) != 1 or not lost or not all(oid in exam.repo.objects.loose for oid in lost):
        return ""
    return "; " + giving_up(exam, lost | needing, tips[0])


def _file(exam: Examination, oid: Oid) -> str:
    return os.path.relpath(exam.repo.objects.loose.path(oid), os.path.realpath(exam.path))


def _needed_by(exam: Examination, found: mending.Damage) -> str:
    """What cannot be read without an object, of the first event that has it."""
    commit = found.oid if found.kind == COMMIT else found.commit
    indexes = {index for index, oid in exam.expected.items() if oid == commit}
    if commit not in exam.chain.commits:
        indexes |= {index for index, tag in exam.tags.items() if tag.oid == commit}
        if not indexes:
            return "no event of main needs it"
    what = f"{printable(found.path) or 'everything'} of {events(indexes) if indexes else 'an option'}"
    return f"{what} cannot be read, nor what later events have of the same"


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
