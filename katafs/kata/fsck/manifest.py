"""Checks of the manifest: in the newest commit, and in the kata's directory."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from functools import partial

from katafs.errors import DamagedError, ReadOnlyError
from katafs.git.beneath import File, open_plain
from katafs.git.store.storing import replace_file
from katafs.kata.fsck.exam import Examination
from katafs.kata.fsck.findings import Problem, printable
from katafs.kata.legacy.migrate import needs_migration
from katafs.kata.model.versions import check_version


def check(exam: Examination) -> Iterator[Problem]:
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

    def mend() -> None:
        exam.keep("manifest.json")
        replace_file(path, stored)

    message = "manifest.json is not what was committed; services take the version of the kata from it"
    yield Problem("manifest-differs", message, mend)
