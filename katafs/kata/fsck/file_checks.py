"""Checks of the files in ``.git`` that are no references or objects, of what katafs does not obey there, and of the
manifest beside it."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from katafs.directories import remove_tree
from katafs.errors import DamagedError, ReadOnlyError
from katafs.git import read_config
from katafs.git.beneath import File, close_quietly, open_plain, read_whole
from katafs.git.format.stored import is_whole
from katafs.git.refs.locks import STALE_MAIN
from katafs.git.refs.reading import read_reference
from katafs.git.store.history import new_config
from katafs.git.store.storing import now, replace_file
from katafs.kata.fsck.exam import Examination, Problem, each
from katafs.kata.fsck.scan import mend_owners_and_modes, newest_mtime
from katafs.kata.fsck.words import printable
from katafs.kata.legacy.migrate import needs_migration
from katafs.kata.model.ids import identity
from katafs.kata.model.layouts import check_version

# How old, in seconds, what a writer leaves behind must be. References are locked for some milliseconds; git's index
# and configuration for as long as a person's editor is open; objects are written for as long as a repack takes.
_STALE_OTHER_LOCK = 600.0
STALE_WORK = 3600.0
# a kata is being made as long as it lacks what every kata has, and this many seconds after
BEING_MADE = 60.0
_LARGEST_INDEX = 64 << 20  # bytes
_CHECKED_ELSEWHERE = re.compile(r"\.git/refs/|\.git/HEAD$|manifest\.json$")
_REFERENCE_LOCK = re.compile(r"\.git/(?:refs/.+|HEAD|packed-refs)\.lock")


def owners_and_modes(exam: Examination) -> Iterator[Problem]:
    """The owner of the kata's directory must be able to go on with everything in ``.git``, and nobody else."""
    mend = partial(mend_owners_and_modes, exam.path)
    if foreign := exam.scan.foreign:
        owner = os.lstat(exam.path).st_uid
        message = f"{_some(foreign)} not owned by the owner of the kata's directory, user {owner}"
        # else it may be the directory that was given to the wrong one
        is_clear = (len(foreign) + len(exam.scan.closed)) * 2 < exam.scan.count
        advice = "" if is_clear else "chown -R the kata to the user whose it is"
        yield Problem("wrong-owner", message, mend if is_clear else None, advice, needs_root=True)
    if closed := exam.scan.closed:
        message = f"{_some(closed)} somebody else's, and nothing that the kata's owner may read"
        yield Problem("wrong-owner", message, advice="look at what it is, and chown it where it is the kata's")
    if modes := exam.scan.wrong_modes:
        message = f"{_some(modes)} closed to the owner of the kata, or open for everybody to write"
        yield Problem("wrong-mode", message, mend, needs_root=True)
    # references, HEAD and the manifest have checks of their own
    if odd := [name for name in exam.scan.odd if not _CHECKED_ELSEWHERE.match(name)]:
        message = f"{_some(odd)} no plain file: katafs does not follow or open such things"
        yield Problem("odd-file", message, advice="replace it by what it stands for, or remove it")
    if unreadable := exam.scan.unreadable:
        yield Problem("unreadable", f"{_some(unreadable)} not to be read", advice="run katafs fsck as root")


def locks(exam: Examination) -> Iterator[Problem]:
    """Lock files that nobody holds: git and libgit2 wait for them for ever."""
    for name, age in sorted(exam.scan.locks.items()):
        is_reference = _REFERENCE_LOCK.fullmatch(name) is not None
        limit = STALE_MAIN if is_reference else _STALE_OTHER_LOCK
        if age > limit:
            lock = name.removeprefix(".git/").removesuffix(".lock")
            message = f"{printable(name)} was left behind {_ago(age)} ago by a writer that died"
            yield Problem("lock-stale", message, partial(exam.mender.locks.break_lock, lock, limit))
        elif age < -STALE_MAIN:
            message = f"{printable(name)} has a time in the future, so that it cannot be judged"
            yield Problem("lock-held", message, advice="remove it if nobody writes to this kata")
        elif not is_reference and age > STALE_MAIN:
            message = f"{printable(name)} is {_ago(age)} old: a writer may be at work"
            yield Problem("lock-held", message, advice=f"look again when it is {_ago(_STALE_OTHER_LOCK)} old")


def young_locks(exam: Examination) -> bool:
    """Whether the lock of a reference is there that is too young to be judged, and will soon be old enough."""
    ages = [age for name, age in exam.scan.locks.items() if _REFERENCE_LOCK.fullmatch(name)]
    return any(-STALE_MAIN <= age <= STALE_MAIN for age in ages)


def temporary_files(exam: Examination) -> Iterator[Problem]:
    """Objects and packs that were being written by somebody who died: no reader looks at them."""
    old = [name for name, age in exam.scan.temporary.items() if age > STALE_WORK]
    if old:
        steps = [partial((exam.path / name).unlink, missing_ok=True) for name in old]
        message = f"{_some(old)} left behind by a writer that died more than an hour ago"
        yield Problem("temporary-file", message, each(*steps))


def worktrees(exam: Examination) -> Iterator[Problem]:
    """What a save of the saver of 2021 to 2026 left behind that crashed: it worked in a worktree in ``/tmp``."""
    try:
        names = sorted(os.listdir(exam.git_dir / "worktrees"))
    except OSError:
        return
    for name in names:
        path = exam.git_dir / "worktrees" / name
        if path.is_symlink() or not path.is_dir() or now(exam.git_dir) - newest_mtime(path) < STALE_WORK:
            continue
        if (path / "locked").exists() or _is_in_use(path / "gitdir"):
            message = f"worktree {printable(name)} is locked, or its directory is still there"
            yield Problem("worktree", message, is_note=True)
        else:
            message = f"worktree {printable(name)} is left over from a save that crashed"
            yield Problem("worktree-left", message, partial(_remove_worktree, exam, path))


def _is_in_use(gitdir: Path) -> bool:
    try:
        return os.path.lexists(read_whole(gitdir, 4096).strip())
    except (OSError, ValueError):
        return False


def _remove_worktree(exam: Examination, path: Path) -> None:
    head = read_reference(path, "HEAD")
    if head is not None and head.oid is not None:
        exam.keep_commit(head.oid, f"worktree-{path.name}")
    remove_tree(path)


def index_file(exam: Examination) -> Iterator[Problem]:
    """git's index ends with the SHA-1 of what stands before; git makes a new one when it is not there."""
    try:
        data = read_whole(exam.git_dir / "index", _LARGEST_INDEX)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EFBIG):
            yield Problem("index-damaged", f".git/index cannot be read: {error.strerror}", advice="see to the file")
        return
    # git may leave out the checksum
    if data[:4] != b"DIRC" or not (is_whole(data) or data[-20:] == bytes(20)):
        message = ".git/index is damaged; katafs does not use it, git makes a new one"
        yield Problem("index-damaged", message, partial(exam.keep, ".git/index", move=True))


def borrowed_objects(exam: Examination) -> Iterator[Problem]:
    """What katafs does not read: objects of other repositories, replacements."""
    for name in ("objects/info/alternates", "objects/info/http-alternates", "info/grafts", "shallow"):
        path = exam.git_dir / name
        if path.is_file() and path.stat().st_size:
            message = f".git/{name} is there: git takes part of the history from elsewhere, katafs does not"
            yield Problem("not-obeyed", message, is_note=True)
    if any(name.startswith("refs/replace/") for name in exam.references):
        yield Problem("not-obeyed", "git replaces objects by refs/replace, katafs does not", is_note=True)


def _some(names: list[str]) -> str:
    """``3 files are`` with the first of them, or the only one."""
    first = printable(min(names) or "the kata's directory")
    return f"{first} is" if len(names) == 1 else f"{first} and {len(names) - 1} more are"


def _ago(seconds: float) -> str:
    length, unit = (1, "s") if seconds < 120 else (60, "min") if seconds < 7200 else (3600, "h")
    return f"{seconds / length:.0f} {unit}"


def config(exam: Examination) -> Iterator[Problem]:
    """The configuration: there, and one with which git would write to the repository."""
    path = exam.git_dir / "config"
    try:
        close_quietly(open_plain(path))
    except FileNotFoundError:
        mend = partial(replace_file, path, new_config(*identity(exam.kata_id)))
        yield Problem("config-missing", "there is no .git/config, so that nobody can write to the kata", mend)
        return
    except OSError as error:
        yield Problem("config-refused", f".git/config cannot be read: {error.strerror}", advice="see to the file")
        return
    found = read_config(exam.git_dir)
    if not found.may_be_written:
        message = f"{printable(found.why_not, 300)}: it is only read, and not mended"
        advice = "where that is a mistake, move .git/config away; --repair then writes a plain one"
        yield Problem("config-refused", message, advice=advice)
    elif found.is_precious:
        yield Problem("precious", "extensions.preciousObjects is set: its packs are left as they are", is_note=True)


def manifest(exam: Examination) -> Iterator[Problem]:
    """``manifest.json`` beside ``.git``: services take the version of a kata from it."""
    if exam.tip is None:
        return
    blob = exam.tip.root.blob(b"manifest.json")
    if blob is None:
        message = "there is no manifest.json in the newest commit"
        yield Problem("manifest-lost", message, advice="take one from a backup")
        return
    try:
        stored = exam.repo.blob(blob)
        value = json.loads(stored.decode("utf-8", "replace"))
    except DamagedError:
        return  # the check of objects tells of it
    except (ValueError, RecursionError):
        yield Problem("manifest-lost", "the manifest.json in the newest commit is not JSON", advice="see to it by hand")
        return
    if (later := later_version(exam)) is not None:
        yield Problem("version-later", f"{later}, and not mended", is_note=True)
    said = value.get("id") if isinstance(value, dict) else None
    if isinstance(said, str) and said != exam.kata_id:
        message = f"its manifest says that it is kata {printable(said)}"
        yield Problem("manifest-id", message, advice="move the kata to where it belongs, or remove the copy")
    if needs_migration(exam.path):
        # the plain one may still be in its place, and is to be kept
        message = "its migration was not finished: katafs migrate goes on with it, as does whoever writes to the mount"
        yield Problem("migration-left", message, is_note=True)
        return
    yield from _manifest_file(exam, stored, value)


def later_version(exam: Examination) -> str | None:
    """A sentence about a kata that a newer katafs has made; None for others. What is wrong in it nobody here knows."""
    try:
        check_version(exam.tip.manifest(exam.repo) if exam.tip is not None else {}, exam.kata_id)
    except ReadOnlyError as error:
        return str(error)
    except DamagedError:
        pass
    return None


def _manifest_file(exam: Examination, stored: bytes, value: object) -> Iterator[Problem]:
    path = exam.path / "manifest.json"
    try:
        with File(open_plain(path)) as file:
            shown = file.read(len(stored) + (1 << 20))
        if shown == stored or json.loads(shown.decode("utf-8", "replace")) == value:
            return
    except FileNotFoundError:
        message = "manifest.json is not there, from which services take the version of the kata"
        yield Problem("manifest-missing", message, partial(replace_file, path, stored))
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            message = f"manifest.json cannot be read: {error.strerror}"
            yield Problem("manifest-differs", message, advice="see to the file")
            return
        # a link, which is kept as what it is
    except (ValueError, RecursionError):
        pass  # then it differs
    mend = each(partial(exam.keep, "manifest.json"), partial(replace_file, path, stored))
    message = "manifest.json is not what was committed; services take the version of the kata from it"
    yield Problem("manifest-differs", message, mend)
