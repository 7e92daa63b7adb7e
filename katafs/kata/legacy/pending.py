"""Events that a plain-path service is writing (FORMAT §3.1): an event file first, its row afterwards.

Until its row comes an event is a real file in ``.katafs-pending`` in the kata's directory, named as in a plain kata:
there O_EXCL and mkdir decide who is first, whatever daemons there are, and what was written outlives them. The row
makes it a commit. An event whose row does not come is committed from its file when the next one begins, or after a
minute (`katafs.kata.legacy.plain_files` says where something waits). Who dies right after a commit leaves the file:
one that is like an event that is there is removed by who finds it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from katafs.directories import remove_quietly
from katafs.errors import (
    DamagedError,
    InvalidError,
    LateError,
    NotFoundError,
    StorageError,
    TooLargeError,
    storage_errors,
)
from katafs.git import repository_lock
from katafs.git.store.storing import now, sync_directory
from katafs.kata.legacy import plain_files
from katafs.kata.legacy.converting import plain_act
from katafs.kata.legacy.plain_kata import PlainEvent, parse_event
from katafs.kata.legacy.plain_paths import has_event, plain_row
from katafs.kata.legacy.plain_rows import parse_object, parse_plain_rows
from katafs.kata.model.layouts import plain_version
from katafs.kata.model.rows import MOST_ROWS, Row, moment_of, time_ns, time_of, without_contents
from katafs.kata.read.kata import Kata
from katafs.kata.record.commit import Announce, Committed, record
from katafs.kata.record.exclusive import UNNOTED, Attempt
from katafs.kata.record.placing import check_index
from katafs.owner import acting_as_owner
from katafs.text import is_portable, pretty

ROW_SECONDS = 60.0
_TRIES = 20
_OWN_KEYS = 512  # bytes of a row, at most, that its service does not say
_ROW_PATIENCE_SECONDS = 5.0


class Pending:
    """The events that are being written to the kata in ``path``, which is stored as git. For worker threads."""

    def __init__(self, path: Path, kata_id: str) -> None:
        self.path, self.kata_id = path, kata_id
        self.directory = path / plain_files.PENDING
        self._kata = Kata(kata_id, path)
        version = plain_version(self._kata.manifest())
        if version is None:
            raise NotFoundError(f"kata {kata_id} has no plain paths")
        self._kata.check_writable()
        self.version = version
        self.rows = self._kata.tip().rows.stored

    def file(self, index: int) -> Path:
        return plain_files.pending_file(self.path, self.version, index)

    def begin(self, index: int, attempt: Attempt = UNNOTED) -> None:
        """Take the index of a new event: its file in version 1, its directory in version 0. Raises as `check_index`."""
        path, is_directory = (self.file(index), False) if self.version else (self.file(index).parent, True)
        with self._locked():
            if attempt.has_made(path, is_directory=is_directory):
                return
            self.flush(older_than=0 if self.version else ROW_SECONDS, but=index)
            last = len(self.rows) - 1
            check_index(last, index)
            with contextlib.suppress(FileExistsError):
                self.directory.mkdir()
            plain_files.mark(self.path, self.kata_id)
            attempt.make(path, is_directory=is_directory)

    def wait_for_row(self) -> None:
        """A row of version 0 does not say whose it is, and is nowhere else: one event at a time."""
        if self.version or not self._with_files():
            return
        with self._locked():
            pass  # one that was recorded already is not to be waited for
        end = time.monotonic() + _ROW_PATIENCE_SECONDS
        while self._with_files() and time.monotonic() < end:
            time.sleep(0.01)

    def begin_file(self, index: int, attempt: Attempt = UNNOTED) -> None:
        """Make the file of an event of version 0, whose directory is there; the event before has its row then. It is
        not waited for before: as long as the directory is being made the kernel lets nobody else look up anything in
        the kata, who has the row of that event in hand."""
        if not attempt.has_made(self.file(index), is_directory=False):
            self.wait_for_row()
        with self._locked():
            self.flush(older_than=0, but=index)
            attempt.make(self.file(index), is_directory=False)

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Write to the file of an event; durable once it is whole. Raises `InvalidError` for what is no event."""
        if offset + len(data) > plain_files.LARGEST:
            raise TooLargeError(f"an event has {plain_files.LARGEST >> 20} MiB at most")
        with storage_errors(f"kata {self.kata_id} cannot be written"), acting_as_owner(self.path):
            plain_files.write_at(self.file(index), offset, data)
            if self.event(index) is not None:
                for directory in (self.file(index).parent, self.directory, self.path):
                    sync_directory(directory)

    def append(self, data: bytes, announce: Announce | None = None) -> Committed | None:
        """Take what was appended to ``events.json``: the row of an event. None when it is there already."""
        rows, wrong = parse_plain_rows(data)
        if wrong or len(rows) != 1:
            raise InvalidError(wrong or f"{len(rows)} rows were appended, not one")
        row = rows[0]
        with self._locked():
            waiting = self._with_files()
            index = row.get("index") if self.version else min(waiting, default=None)
            if type(index) is not int or index not in waiting:
                if any(plain_row(known, self.version) == row for known in self.rows):
                    return None
                raise InvalidError("there is no event that waits for this row")
            event = self.event(index)
            if event is None:
                raise InvalidError(f"event {index} is not whole")
            self._check_row(row)
            return self._commit(event, row, announce)

    def flush(self, older_than: float, but: int | None = None) -> None:
        """Commit events whose files are whole and so many seconds old, and drop half ones that are a minute old. That
        of index ``but`` is left alone, if it is whole or young."""
        for index in sorted(self.indexes()):
            file = self.file(index)
            try:
                age = now(self.path) - (file if file.exists() else file.parent).lstat().st_mtime
            except FileNotFoundError:
                continue
            event = self.event(index)
            if event is None and age > ROW_SECONDS:
                self._remove(index)
            elif event is not None and index != but and (not older_than or age >= older_than):
                self._commit(event, event.row or {"time": time_of(datetime.now(UTC))})

    def expire(self, older_than: float) -> bool:
        """Flush what has waited for so many seconds; whether something goes on waiting."""
        if not older_than and os.path.isdir(self.directory):
            self.wait_for_row()
        with self._locked():
            self.flush(older_than)
            if self.indexes():
                return True
            with contextlib.suppress(OSError):
                self.directory.rmdir()
            plain_files.unmark(self.path, self.kata_id)
            return False

    def indexes(self) -> list[int]:
        """The events that wait for their rows, or are not whole yet."""
        return plain_files.pending_indexes(self.path, self.version)

    def _with_files(self) -> list[int]:
        with contextlib.suppress(NotFoundError):
            return plain_files.event_indexes(self.directory, self.version)
        return []

    def _document(self, index: int) -> dict[str, object] | None:
        """The JSON object in the file of an event; None when it is not whole. Raises `DamagedError`."""
        name = str(self.file(index).relative_to(self.directory)).encode()
        try:
            data = plain_files.read_file(self.directory, name)
        except NotFoundError:
            return None
        with contextlib.suppress(DamagedError):
            return parse_object(data, name.decode())
        return None

    def event(self, index: int) -> PlainEvent | None:
        """The event in a file; None when it is not whole. Raises `DamagedError` when that cannot be told."""
        document = self._document(index)
        if document is None:
            return None
        row = without_contents(document) if self.version else {}
        problems: list[str] = []
        event = parse_event(index, row, document, problems)
        if problems:
            self._remove(index)
            raise InvalidError(problems[0])
        try:
            # its own row must do, if none comes
            plain_act(event, row)
            self._check_row(row)
        except (InvalidError, TooLargeError):
            self._remove(index)
            raise
        return event

    def _check_row(self, row: Row) -> None:
        """Raises `TooLargeError` for a row with which the rows could not be read, `InvalidError` for one that some
        parser does not take."""
        if not is_portable(row):
            raise InvalidError("a row is nested too deeply, or has what not every parser of JSON takes")
        tip = self._kata.tip()
        rows = tip.layout.rows_blob(tip.root)
        size = self._kata.repo.blob_size(rows) if rows is not None else 0
        if size + len(pretty(row, indent="  ")) + _OWN_KEYS > MOST_ROWS:
            raise TooLargeError(f"the rows of all events would be larger than {MOST_ROWS >> 20} MiB")

    def _commit(self, event: PlainEvent, row: Row, announce: Announce | None = None) -> Committed:
        """Where somebody took its index by another way meanwhile the event comes after him."""
        when = moment_of(row["time"]) if time_ns(row) is not None else datetime.now(UTC)
        for _ in range(_TRIES):
            act = plain_act(replace(event, index=max(event.index, len(self.rows))), row)
            with contextlib.suppress(LateError):
                committed = record(self.path, self.kata_id, act, when, announce=announce)
                self._remove(event.index)
                self._read_rows()
                return committed
            self._read_rows()
        raise StorageError(f"kata {self.kata_id}: others are always first", errno.EBUSY)

    def _read_rows(self) -> None:
        self._kata = Kata(self.kata_id, self.path)
        self.rows = self._kata.tip().rows.stored

    def _remove_recorded(self) -> None:
        """Remove what somebody recorded who died before he could remove it."""
        for index in self._with_files():
            last = len(self.rows) - 1
            document = self._document(index) if index <= last else None
            if document is not None and any(
                has_event(self._kata, known, document, self.version) for known in range(index, last + 1)
            ):
                self._remove(index)

    def _remove(self, index: int) -> None:
        file = self.file(index)
        file.unlink(missing_ok=True)
        if not self.version:
            remove_quietly(file.parent)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """By a lock of its own: `record` takes that of the repository."""
        with (
            storage_errors(f"kata {self.kata_id} cannot be written"),
            acting_as_owner(self.path),
            repository_lock(self.path),
        ):
            self._read_rows()
            self._remove_recorded()
            yield


def flush_pending(path: Path, kata_id: str, older_than: float = 0) -> bool:
    """Commit what has waited for its row for so many seconds; whether anything goes on waiting. Raises `KataError`."""
    if os.path.isdir(path / plain_files.PENDING):
        return Pending(path, kata_id).expire(older_than)
    with storage_errors(f"kata {kata_id} cannot be written"):
        if not path.is_dir():
            plain_files.unmark(path, kata_id)
        elif older_than:
            with repository_lock(path):
                if not os.path.isdir(path / plain_files.PENDING):
                    plain_files.unmark(path, kata_id)
    return False
