"""New katas of plain-path services (FORMAT §3.1): directories and files one by one, real ones until all is there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from katafs.errors import DamagedError, InvalidError, NotFoundError, ReadOnlyError, TooLargeError, storage_errors
from katafs.git.beneath import appears, is_shared
from katafs.git.store.storing import sync_directory
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.legacy.pending import Pending, flush_pending
from katafs.kata.legacy.plain_files import LARGEST, is_plain_name, plain_names, read_file, write_at
from katafs.kata.legacy.plain_kata import PlainKata, parse_event
from katafs.kata.legacy.plain_rows import is_part_of_row, parse_object, parse_plain_rows
from katafs.kata.model.layouts import plain_version
from katafs.kata.model.options import OPTION_DEFAULTS
from katafs.kata.model.rows import without_contents
from katafs.kata.record.commit import Announce, Committed, Job, set_option
from katafs.kata.record.exclusive import UNNOTED, Attempt
from katafs.owner import acting_as_owner
from katafs.text import is_portable

# the files and the directory of which a new kata is made, in either version
FILES = (b"manifest.json", b"events.json", b"0.event.json")
DIRECTORY, FILE_IN_DIRECTORY = b"0", b"0/event.json"
_SMALL = 1 << 20


def is_begun(path: Path) -> bool:
    """Whether a kata is being made in ``path``, by what is there and what is not."""
    if os.path.lexists(path / ".git"):
        return False
    has_event = os.path.lexists(path / "0.event.json") or os.path.lexists(path / "0/event.json")
    return not (has_event and os.path.lexists(path / "manifest.json") and os.path.lexists(path / "events.json"))


def make_new(path: Path, is_directory: bool, attempt: Attempt = UNNOTED) -> None:
    """mkdir(2), or O_EXCL, as the owner of what is above; synced. Raises `LateError`, `NotFoundError`,
    `StorageError`."""
    with storage_errors(f"{path} cannot be made", str(path)), acting_as_owner(path.parent):
        attempt.make(path, is_directory=is_directory)
        sync_directory(path.parent)


def migrating(job: Job) -> Job:
    """What writes to a control file or an option, once its kata is migrated, and what waits for its row recorded."""
    return Job(job.path, job.kata_id, _migrate_first, (job,), job.counted_as)


def _migrate_first(path: Path, kata_id: str, job: Job, **told: Callable[..., None]) -> Committed | None:
    migrate_kata(path, kata_id)
    flush_pending(path, kata_id)
    return job(**told)


def write_plain(
    path: Path, kata_id: str, name: bytes, offset: int, data: bytes, *, announce: Announce | None = None
) -> Committed | None:
    """Write to a plain file of the kata in ``path``. A kata that is whole, or becomes so, is migrated; what was written
    to one that was is a commit."""
    was_plain = not os.path.lexists(path / ".git")
    try:
        return _write_plain(path, kata_id, name, offset, data, announce)
    except (DamagedError, InvalidError, NotFoundError, ReadOnlyError):
        # another host may have migrated it meanwhile
        if not was_plain or not is_shared(path) or not appears(path / ".git"):
            raise
        return _write_plain(path, kata_id, name, offset, data, announce)


def _write_plain(
    path: Path, kata_id: str, name: bytes, offset: int, data: bytes, announce: Announce | None
) -> Committed | None:
    if is_begun(path) or (not os.path.lexists(path / ".git") and not _is_whole(path, kata_id)):
        if name not in (*FILES, FILE_IN_DIRECTORY):
            raise ReadOnlyError(f"{os.fsdecode(name)} is no file of a new kata")
        _write_new(path, kata_id, name, offset, data, announce)
        return None
    is_plain = not os.path.lexists(path / ".git")
    if is_plain and name in (*FILES, FILE_IN_DIRECTORY) and is_new(path) and _has_written(path, name, offset, data):
        # by a daemon that died before it could make the repository
        migrate_kata(path, kata_id, announce=announce)
        return None
    migrate_kata(path, kata_id)
    if name == b"events.json":
        return Pending(path, kata_id).append(data, announce)
    if name.decode("ascii", "replace") in OPTION_DEFAULTS:
        value = data.decode("utf-8", "replace").rpartition("\n")[2]
        return set_option(path, kata_id, name.decode(), value, announce=announce, is_shown=True)
    raise ReadOnlyError(f"{os.fsdecode(name)} is there, and does not change")


def _write_new(path: Path, kata_id: str, name: bytes, offset: int, data: bytes, announce: Announce | None) -> None:
    """Write to a file of a new kata. What cannot become one is refused, whole: `ReadOnlyError` for a manifest of
    another version, and the files go; `InvalidError` for what does not go with the others, and the file is empty
    again."""
    known = read_file(path, name)
    if offset > len(known):
        raise InvalidError(f"{os.fsdecode(name)} begins at {offset}")
    if offset + len(data) > LARGEST:
        raise TooLargeError(f"a plain file has {LARGEST >> 20} MiB at most")
    text = known[:offset] + data + known[offset + len(data) :]
    # of a large one that is plainly not whole not all is looked at for each piece
    if len(text) <= _SMALL or text.rstrip()[-1:] == b"}":
        if name == b"manifest.json" and (error := refused_manifest(text)) is not None:
            _undo(path, (*FILES, FILE_IN_DIRECTORY), os.unlink)
            raise error
        if problem := _broken(name, text) or _problem(path, name, text):
            _undo(path, (name,), lambda file: os.truncate(file, 0))
            raise InvalidError(problem)
    with storage_errors(f"{os.fsdecode(name)} cannot be written"), acting_as_owner(path):
        write_at(path / os.fsdecode(name), offset, data)
    if is_begun(path) or not _is_whole(path, kata_id):
        return
    try:
        migrate_kata(path, kata_id, announce=announce)
    except (DamagedError, ReadOnlyError) as error:
        _undo(path, (name,), lambda file: os.truncate(file, 0))
        raise InvalidError(str(error)) from error


def refused_manifest(text: bytes) -> InvalidError | ReadOnlyError | None:
    """Why no kata can be made by plain paths of a manifest that begins so; None if one can."""
    if problem := _broken(b"manifest.json", text):
        return InvalidError(problem)
    try:
        manifest = parse_object(text, "manifest.json")
    except DamagedError:
        return None  # it is not whole
    problems: list[str] = []
    parse_event(0, {}, {"files": manifest.get("visible_files")}, problems)
    if not is_portable(manifest):
        problems.append("the manifest has what not every parser of JSON takes")
    if problems or not manifest or plain_version(manifest) is not None:
        return InvalidError(problems[0]) if problems else None
    version = manifest["version"]
    if str(version).isdecimal() or (type(version) is float and version >= 2):
        return ReadOnlyError(f"katas of version {str(version)[:40]} are not made by plain paths, but by katafs create")
    return InvalidError("the manifest's version is no number of one")


def _broken(name: bytes, text: bytes) -> str:
    """Why a file of a new kata is no JSON, whatever follows; or nothing."""
    if is_part_of_row(text):
        return ""
    if name == b"events.json":
        return parse_plain_rows(text)[1]
    try:
        parse_object(text, name.decode())
    except DamagedError as error:
        return str(error)
    return ""


def _problem(path: Path, name: bytes, text: bytes) -> str:
    """What is wrong with the files of a new kata, if all are there, with one of them as it will be; or nothing."""

    def content(of: bytes) -> bytes:
        return text if of == name else read_file(path, of)

    try:
        manifest = parse_object(content(b"manifest.json"), "manifest.json")
        version = plain_version(manifest)
        if name == (FILE_IN_DIRECTORY if version else b"0.event.json"):
            return f"a kata of version {version} has no {name.decode()}"
        event = parse_object(content(b"0.event.json" if version else FILE_IN_DIRECTORY), "event 0")
        rows, wrong = parse_plain_rows(content(b"events.json"))
    except (DamagedError, NotFoundError):
        return ""
    if wrong or not rows:
        return ""
    problems: list[str] = []
    files = parse_event(0, rows[0], event, problems).files
    if len(rows) > 1:
        problems.append("a new kata has one event")
    own = without_contents(event)
    if version and (own != rows[0] or own.get("index", 0) != 0):
        problems.append("event 0 is not what its row in events.json says")
    if version and "visible_files" in manifest:
        visible = parse_event(0, rows[0], {"files": manifest["visible_files"]}, problems).files
        if {file: text.content for file, text in visible.items()} != {
            file: text.content for file, text in files.items()
        }:
            problems.append("the files of event 0 are not the visible_files of the manifest")
    return problems[0] if problems else ""


def is_new(path: Path) -> bool:
    """Whether no more than what a new kata is made of is there as plain files."""
    return all(name in (*FILES, DIRECTORY) or not is_plain_name(name) for name, _ in plain_names(path))


def _has_written(path: Path, name: bytes, offset: int, data: bytes) -> bool:
    with contextlib.suppress(NotFoundError):
        return read_file(path, name)[offset:] == data
    return False


def _undo(path: Path, names: Sequence[bytes], undo: Callable[[bytes], None]) -> None:
    """Undo what was written to files of a new kata; of an old one, whatever is wrong with it, nothing."""
    if os.path.lexists(path / ".git") or not is_new(path):
        return
    with acting_as_owner(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                undo(os.path.join(os.fsencode(path), name))
        sync_directory(path)


def _is_whole(path: Path, kata_id: str) -> bool:
    try:
        plain = PlainKata(kata_id, path)
        plain.event(0)
    except (DamagedError, InvalidError, NotFoundError):
        return False
    # of a new kata, nothing is missing; an old one is whole, whatever is wrong with it
    return plain.last > 0 or not plain.problems
