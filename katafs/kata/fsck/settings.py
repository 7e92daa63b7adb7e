"""Checks of what git would obey, and katafs does not (configuration, hooks), and of the manifest."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from katafs.errors import DamagedError, ReadOnlyError
from katafs.git import read_config
from katafs.git.beneath import File, open_plain
from katafs.git.config import settings as parse
from katafs.git.store.history import new_config
from katafs.git.store.storing import replace_file
from katafs.kata.fsck.exam import Examination, Problem, each, printable
from katafs.kata.legacy.migrate import needs_migration
from katafs.kata.model.ids import identity
from katafs.kata.model.versions import check_version

# what git and libgit2 write when they make a repository; anything else was put there
_USUAL_SETTINGS = re.compile(
    r"core\.(repositoryformatversion|filemode|bare|logallrefupdates|ignorecase|precomposeunicode|symlinks)|"
    r"user\.(name|email)|gc\.auto|extensions\.preciousobjects|init\.defaultbranch|safe\.directory"
)
_MOST_CONFIG = 1 << 16


def hooks(exam: Examination) -> Iterator[Problem]:
    try:
        entries = list(os.scandir(exam.git_dir / "hooks"))
    except OSError:
        return
    found = sorted(
        entry.name
        for entry in entries
        if not entry.name.endswith(".sample")
        and entry.stat(follow_symlinks=False).st_mode & stat.S_IXUSR
        and not entry.is_dir(follow_symlinks=False)
    )
    if found:
        message = f"git would run {', '.join(map(printable, found[:5]))} from .git/hooks; katafs does not"
        yield Problem("hook", message, is_note=True)


def config(exam: Examination) -> Iterator[Problem]:
    """The configuration: there, and one with which git would write to the repository. What is unusual is told."""
    path = exam.git_dir / "config"
    try:
        with File(open_plain(path)) as file:
            text = file.read(_MOST_CONFIG)
    except FileNotFoundError:
        mend = partial(replace_file, path, new_config(*identity(exam.kata_id)))
        yield Problem("config-missing", "there is no .git/config, so that nobody can write to the kata", mend)
        return
    except OSError as error:
        yield Problem("config-refused", f".git/config cannot be read: {error.strerror}", advice="see to the file")
        return
    names: set[str] = set()
    with suppress(ValueError):
        # of a section with a name, such as that of a branch, without it
        names.update(f"{name.partition('.')[0]}.{name.rpartition('.')[2]}" for name, _ in parse(text))
    unusual = sorted(name for name in names if not _USUAL_SETTINGS.fullmatch(name))
    if unusual:
        message = f".git/config sets {', '.join(map(printable, unusual[:5]))}: katafs does not obey it, git may"
        yield Problem("config-unusual", message, is_note=True)
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
        yield Problem(
            "manifest-lost", "there is no manifest.json in the newest commit", advice="take one from a backup"
        )
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
