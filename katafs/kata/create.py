"""Making a new kata from the manifest that cyber-dojo's creator sends."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from katafs.errors import InvalidError, KataError, StorageError
from katafs.git import GitWriter, init_repository
from katafs.kata.events import Row, time_of
from katafs.kata.ids import is_kata_id, kata_path, random_id
from katafs.kata.layouts import OPTION_DEFAULTS
from katafs.kata.message import parse_files
from katafs.owner import acting_as_owner
from katafs.text import parse_strict, pretty_bytes

_TRIES = 256


def parse_manifest(data: bytes) -> dict[str, Any]:
    """The manifest, a JSON object with ``visible_files``. Raises `InvalidError` that says what is wrong."""
    manifest = parse_strict(data)
    if not isinstance(manifest, dict):
        raise InvalidError("the manifest is not a JSON object")
    if "visible_files" not in manifest:
        raise InvalidError("the manifest has no visible_files")
    parse_files(manifest["visible_files"])
    return manifest


def create_kata(
    store: Path, manifest: Mapping[str, Any], kata_id: str | None = None, now: datetime | None = None
) -> str:
    """Make a native kata in ``store`` and return its id; it is whole and durable when it appears.

    Raises `InvalidError` for a manifest or an id that will not do, `StorageError` (EEXIST when ``kata_id`` is taken).
    """
    if kata_id is not None and not is_kata_id(kata_id):
        raise InvalidError(f"{kata_id!r} is not a kata id")
    moment = now or datetime.now(UTC)
    try:
        with acting_as_owner(store):
            claimed = _claim(store, kata_id)
            _fill(store, claimed, manifest, moment)
    except OSError as error:
        raise StorageError(f"cannot make a kata in {store}: {error.strerror}", error.errno or errno.EIO) from error
    return claimed


def _fill(store: Path, kata_id: str, manifest: Mapping[str, Any], moment: datetime) -> None:
    """Make the kata under a name that no reader looks at, then move it over the claimed, empty directory."""
    path = kata_path(store, kata_id)
    work = Path(tempfile.mkdtemp(prefix=".new-", dir=store))
    try:
        _make(work, kata_id, manifest, moment)
        shutil.copystat(path, work)
        work.rename(path)
        _sync(path.parent)
    except (OSError, KataError):
        shutil.rmtree(work, ignore_errors=True)
        path.rmdir()
        raise


def _claim(store: Path, kata_id: str | None) -> str:
    """An id whose directory we made: ids are unique across katas, groups and clusters (FORMAT: Ids)."""
    for _ in range(_TRIES if kata_id is None else 1):
        candidate = kata_id or random_id()
        if kata_id is None and _is_taken_elsewhere(store, candidate):
            continue
        path = kata_path(store, candidate)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir()
        except FileExistsError:
            if kata_id is not None:
                raise
            continue
        _sync(path.parent)
        _sync(path.parent.parent)
        _sync(store)
        return candidate
    raise StorageError("no free kata id was found", errno.EEXIST)


def _is_taken_elsewhere(store: Path, kata_id: str) -> bool:
    return any(kata_path(store.parent / family, kata_id).exists() for family in ("groups", "clusters"))


def _make(work: Path, kata_id: str, manifest: Mapping[str, Any], moment: datetime) -> None:
    kept = {key: value for key, value in manifest.items() if key not in ("visible_files", "version", "created", "id")}
    stored = pretty_bytes({**kept, "version": 2, "created": time_of(moment), "id": kata_id})
    files = parse_files(manifest["visible_files"])
    email = f"{kata_id}@cyber-dojo.org"
    writer = GitWriter(init_repository(work, kata_id, email))
    row: Row = {"index": 0, "event": "created", "time": time_of(moment), "type": "created"}
    flags = {"files": {path.decode(): text.truncated for path, text in sorted(files.items())}}
    blobs = {
        b"manifest.json": stored,
        b"stdout": b"",
        b"stderr": b"",
        b"status": b"0",
        b"truncations.json": pretty_bytes({**flags, "stdout": False, "stderr": False, "status": False}),
        b"events_summary.json": pretty_bytes([row]),
        b"event.json": pretty_bytes(row),
    }
    config = {name.encode(): writer.blob(value.encode() + b"\n") for name, value in OPTION_DEFAULTS.items()}
    file_tree = writer.file_tree({path: text.content for path, text in files.items()})
    subtrees = {b"config": writer.tree(None, config), b"files": file_tree}
    tree = writer.tree(None, {name: writer.blob(data) for name, data in blobs.items()}, subtrees)
    commit = writer.commit(tree, [], "0 kata creation", kata_id, email, int(moment.timestamp()))
    writer.move_main(commit, None)
    writer.set_tag(0, commit)
    # Services take the version of a kata from its working tree (FORMAT: version detection).
    (work / "manifest.json").write_bytes(stored)
    _sync_all(work)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sync_all(directory: Path) -> None:
    """Sync every file and directory of a new repository: libgit2 syncs objects and references only."""
    for parent, _, names in os.walk(directory):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))

