"""Making a new kata from the manifest that cyber-dojo's creator sends.

A kata is made whole under a name that no reader looks at, ``.new-ID-…`` in the store, and moved to its place at the
end. Whatever stops that leaves nothing where readers look; only a process that is killed leaves its ``.new-ID-…``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from katafs.directories import remove_quietly
from katafs.errors import InvalidError, StorageError, storage_errors
from katafs.git import GitWriter
from katafs.git.store.history import check_out, init_repository
from katafs.git.store.storing import sync_directory, sync_path
from katafs.kata.model.ids import identity, is_kata_id, kata_path, random_id
from katafs.kata.model.layouts import NATIVE, Layout
from katafs.kata.model.rows import time_of
from katafs.kata.record.message import parse_files
from katafs.owner import acting_as_owner
from katafs.text import parse_strict, pretty_bytes

_TRIES = 256


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The manifest, a JSON object with ``visible_files``. Raises `InvalidError` that says what is wrong."""
    try:
        manifest = parse_strict(data)
    except InvalidError as error:
        raise InvalidError(str(error).replace("the message", "the manifest")) from error
    if not isinstance(manifest, dict):
        raise InvalidError("the manifest is not a JSON object")
    if "visible_files" not in manifest:
        raise InvalidError("the manifest has no visible_files")
    try:
        parse_files(manifest["visible_files"])
    except InvalidError as error:
        raise InvalidError(f"the manifest's visible_files: {error}") from error
    return manifest


def create_kata(
    store: Path,
    manifest: Mapping[str, Any],
    kata_id: str | None = None,
    now: datetime | None = None,
    history: Callable[[Path], None] | None = None,
    layout: Layout = NATIVE,
) -> str:
    """Make a kata in ``store`` and return its id; it is whole and durable when it appears. ``layout`` is that of saver,
    if it is to go on with it.

    ``history`` is called with the directory of the new repository and may add events, which then appear with it.
    Raises `InvalidError` for a manifest or an id that will not do, `StorageError` (EEXIST when ``kata_id`` is taken).
    After an error nothing of it is left.
    """
    if kata_id is not None and not is_kata_id(kata_id):
        raise InvalidError(f"{kata_id!r} is not a kata id")
    moment = now or datetime.now(UTC)

    def make(new_id: str, directory: Path) -> None:
        _make(directory, new_id, manifest, moment, layout)
        if history is not None:
            history(directory)

    with storage_errors(f"cannot make a kata in {store}"), acting_as_owner(store):
        for _ in range(_TRIES):
            candidate = kata_id or random_id()
            # ids are unique across katas, groups and clusters (FORMAT: Ids)
            families = (store.parent / "groups", store.parent / "clusters")
            if kata_id is None and any(os.path.lexists(kata_path(family, candidate)) for family in families):
                continue
            try:
                _create(store, candidate, partial(make, candidate))
            except FileExistsError:
                if kata_id is not None:
                    raise
            else:
                return candidate
    raise StorageError("no free kata id was found", errno.EEXIST)


def place_kata(store: Path, kata_id: str, make: Callable[[Path], None]) -> None:
    """Have ``make`` fill a directory, and put it where the kata ``kata_id`` of ``store`` is to be; durable when it
    appears. Raises `StorageError` (EEXIST when the id is taken), and then nothing of it is left."""
    with storage_errors(f"cannot make a kata in {store}"), acting_as_owner(store):
        _create(store, kata_id, make)


def _create(store: Path, kata_id: str, make: Callable[[Path], None]) -> None:
    """Make a kata and move it to its place. Raises FileExistsError when somebody has the id."""
    path = kata_path(store, kata_id)
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    made = store / f".new-{kata_id}-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as undo:
        undo.callback(remove_quietly, made)
        made.mkdir()
        make(made)
        # libgit2 syncs objects and references only
        for parent, _, names in os.walk(made):
            for name in names:
                sync_path(Path(parent, name))
            sync_directory(parent)
        _claim(path, undo)
        made.rename(path)
        for directory in (path.parent, path.parent.parent, store):
            sync_directory(directory)
        undo.pop_all()


def _claim(path: Path, undo: contextlib.ExitStack) -> None:
    """Take an id: whoever makes its directory has it, saver too. A rename alone would take any empty directory."""
    for tries_left in reversed(range(_TRIES)):
        try:
            for directory in (path.parent.parent, path.parent):
                with contextlib.suppress(FileExistsError):
                    directory.mkdir()
                    undo.callback(_remove_empty, directory)
            path.mkdir()
            break
        except FileNotFoundError:
            # somebody whose kata failed removed a directory that both were going to use
            if not tries_left:
                raise
    undo.callback(remove_quietly, path)


def _remove_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()


def _make(work: Path, kata_id: str, manifest: Mapping[str, Any], moment: datetime, layout: Layout) -> None:
    kept = {key: value for key, value in manifest.items() if key not in ("visible_files", "version", "created", "id")}
    stored = {**kept, "version": 2, "created": time_of(moment), "id": kata_id}
    files = parse_files(manifest["visible_files"])
    row = layout.row({"index": 0, "event": "created", "time": time_of(moment)}, "created")
    with GitWriter(init_repository(work, *identity(kata_id))) as writer:
        blobs, subtrees = layout.first_entries(writer, stored, row, files)
        subtrees[b"files"] = writer.file_tree({path: text.content for path, text in files.items()})
        tree = writer.tree(None, blobs, subtrees)
        commit = writer.commit(tree, [], "0 kata creation", *identity(kata_id), int(moment.timestamp()))
        writer.store(commit, {0: commit})
        writer.refs.move_main(commit, None)
        writer.refs.log_moves()
        writer.refs.set_tags({0: commit})
    if layout.is_shared_with_saver:
        # which saver read, until 2026, and merged into
        check_out(work)
    else:
        # Services take the version of a kata from its working tree (FORMAT: version detection).
        (work / "manifest.json").write_bytes(pretty_bytes(stored))
