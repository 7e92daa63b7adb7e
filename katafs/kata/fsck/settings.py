"""Checks of what git would obey, and katafs does not: configuration and hooks."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from functools import partial

from katafs.git import read_config
from katafs.git.beneath import File, open_plain
from katafs.git.store.history import new_config
from katafs.git.store.storing import replace_file
from katafs.kata.fsck.exam import Examination
from katafs.kata.fsck.findings import Problem, printable
from katafs.kata.model.ids import identity

# what git and libgit2 write when they make a repository; anything else was put there
_USUAL_SETTINGS = re.compile(
    r"core\.(repositoryformatversion|filemode|bare|logallrefupdates|ignorecase|precomposeunicode|symlinks)|"
    r"user\.(name|email)|gc\.auto|extensions\.preciousobjects|init\.defaultbranch|safe\.directory"
)
_END_OF_KEY = re.compile(r"[=\s]")
_MOST_CONFIG = 1 << 16


def hooks(exam: Examination) -> Iterator[Problem]:
    """Programs that git would run; katafs does not."""
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
    unusual = sorted(name for name in _settings(text) if not _USUAL_SETTINGS.fullmatch(name))
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


def _settings(text: bytes) -> set[str]:
    """The names that a configuration sets, ``section.key``."""
    names = set()
    section = ""
    for line in text.decode("utf-8", "replace").splitlines():
        stripped = line.strip()
        if found := re.match(r'\[\s*([^\s"\]]+)[^\]]*\]?(.*)', stripped):
            section, stripped = found[1].lower(), found[2].strip()
        if stripped and stripped[0] not in "#;":
            key = _END_OF_KEY.split(stripped, maxsplit=1)[0]
            names.add(f"{section}.{key.lower()}")
    return names
