"""Events that a plain-path service is writing (FORMAT §3.1): an event file first, its row afterwards.

Until its row comes an event is a real file in ``.katafs-pending`` in the kata's directory, named as in a plain kata:
there O_EXCL and mkdir decide who is first, whatever daemons there are, and what was written outlives them. The row
makes it a commit. An event whose row does not come is committed from its file when the next one begins, or after a
minute.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from katafs.errors import DamagedError, InvalidError, LateError, NotFoundError, StorageError, TooLargeError
from katafs.git import GitRepo, GitWriter, repository_lock
from katafs.git.storing import sync_directory
from katafs.kata.commit import Committed, record, set_option
from katafs.kata.converting import ABSENT
from katafs.kata.events import Row, event_type, moment_of, time_ns, time_of
from katafs.kata.kata import Kata, ReadCaches
from katafs.kata.kinds import Kind
from katafs.kata.message import Act, Text
from katafs.kata.placing import MOST_SKIPPED
from katafs.kata.plain_files import LARGEST, event_indexes, read_file
from katafs.kata.plain_kata import OUTPUT_NAMES, PlainEvent, PlainText, parse_event
from katafs.kata.plain_paths import plain_row, plain_version, set_options
from katafs.kata.plain_rows import parse_object, parse_plain_rows
from katafs.owner import acting_as_owner

PENDING = ".katafs-pending"
ROW_SECONDS = 60.0
_PATIENCE_SECONDS = 15.0
_TRIES = 20
_ROW_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class _PlainAct(Act):
    """An act that a plain event file tells of; ``absent`` is what that file does not have."""

    absent: tuple[str, ...] = field(default=())

    def subject(self, index: int) -> str:
        subject = super().subject(index) if "colour" in self.summary else f"{index} ran tests"
        return f"{subject}\n\n{ABSENT} {' '.join(self.absent)}" if self.absent else subject


class Pending:
    """The events that are being written to the kata in ``path``, which is stored as git. For worker threads."""

    def __init__(self, path: Path, kata_id: str) -> None:
        self.path, self.kata_id = path, kata_id
        self.directory = path / PENDING
        kata = Kata(kata_id, path, (0, 0), ReadCaches())
        version = plain_version(kata.manifest())
        if version is None:
            raise NotFoundError(f"kata {kata_id} has no plain paths")
        self.version = version
        self.rows = kata.tip().rows.stored

    def file(self, index: int) -> Path:
        """Where the file of an event is."""
        return self.directory / (f"{index}.event.json" if self.version else f"{index}/event.json")

    def begin(self, index: int) -> None:
        """Take the index of a new event: the event's file in version 1, its directory in version 0.

        Raises `LateError` when somebody has it, `InvalidError` when it skips too many.
        """
        self.wait_for_row()
        with self._locked():
            self.flush(older_than=0, but=index)
            last = len(self.rows) - 1
            if index <= last:
                raise LateError(f"event {index} is there already; the last is {last}")
            if index - last - 1 > MOST_SKIPPED:
                raise InvalidError(f"index {index} skips more than {MOST_SKIPPED} events after the last, {last}")
            with contextlib.suppress(FileExistsError):
                self.directory.mkdir()
            try:
                if self.version:
                    _make(self.file(index))
                else:
                    self.file(index).parent.mkdir()
            except FileExistsError as error:
                raise LateError(f"event {index} is being written already") from error

    def wait_for_row(self) -> None:
        """A row of version 0 does not say whose it is, and is nowhere else: one event at a time."""
        end = time.monotonic() + _ROW_PATIENCE_SECONDS
        while not self.version and self.indexes() and time.monotonic() < end:
            time.sleep(0.01)

    def begin_file(self, index: int) -> None:
        """Make the file of an event of version 0, whose directory is there."""
        with self._locked():
            try:
                _make(self.file(index))
            except FileExistsError as error:
                raise LateError(f"event {index} is being written already") from error

    def write(self, index: int, offset: int, data: bytes) -> None:
        """Write to the file of an event; durable once it is whole. Raises `InvalidError` for what is no event."""
        if offset + len(data) > LARGEST:
            raise TooLargeError(f"an event has {LARGEST >> 20} MiB at most")
        with self._locked(lock=False):
            fd = os.open(self.file(index), os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.pwrite(fd, data, offset)
                if self.event(index) is not None:
                    os.fsync(fd)
                    for directory in (self.file(index).parent, self.directory, self.path):
                        sync_directory(directory)
            finally:
                os.close(fd)

    def append(self, data: bytes) -> Committed | None:
        """Take what was appended to ``events.json``: the row of an event. None when it is there already."""
        rows, wrong = parse_plain_rows(data)
        if wrong or len(rows) != 1:
            raise InvalidError(wrong or f"{len(rows)} rows were appended, not one")
        row = rows[0]
        with self._locked():
            waiting = self.indexes()
            index = row.get("index") if self.version else min(waiting, default=None)
            if type(index) is not int or index not in waiting:
                if any(list(plain_row(known, self.version).items()) == list(row.items()) for known in self.rows):
                    return None
                raise InvalidError("there is no event that this is the row of")
            event = self.event(index)
            if event is None:
                raise InvalidError(f"event {index} is not whole")
            return self._commit(event, row)

    def flush(self, older_than: float, but: int | None = None) -> None:
        """Commit events whose files are whole and so many seconds old; half ones that are a minute old are dropped.

        An event of index ``but`` is left alone, if it is whole or young.
        """
        for index in sorted(self.indexes()):
            age = time.time() - self.file(index).lstat().st_mtime if self.file(index).exists() else 0.0
            event = self.event(index)
            if event is None and age > ROW_SECONDS:
                self._remove(index)
            elif event is not None and index != but and age >= older_than:
                self._commit(event, event.row or {"time": time_of(datetime.now(UTC))})

    def indexes(self) -> list[int]:
        """The events that wait for their rows, or are not whole yet."""
        with contextlib.suppress(NotFoundError):
            return event_indexes(self.directory, self.version)
        return []

    def event(self, index: int) -> PlainEvent | None:
        """The event in a file; None when it is not whole. Raises `DamagedError` when that cannot be told."""
        name = str(self.file(index).relative_to(self.directory)).encode()
        try:
            data = read_file(self.directory, name)
        except NotFoundError:
            return None
        try:
            document = parse_object(data, name.decode())
        except DamagedError:
            return None
        own = ("files", *OUTPUT_NAMES, "status")
        row = {key: value for key, value in document.items() if key not in own} if self.version else {}
        problems: list[str] = []
        event = parse_event(index, row, document, problems)
        try:
            # its own row must do, if none comes
            _act(event, row)
        except InvalidError as error:
            problems.append(str(error))
        if problems:
            self._remove(index)
            raise InvalidError(problems[0])
        return event

    def _commit(self, event: PlainEvent, row: Row) -> Committed:
        committed = self._record(event, row)
        self._remove(event.index)
        self._read_rows()
        return committed

    def _record(self, event: PlainEvent, row: Row) -> Committed:
        """Where somebody took its index by another way meanwhile the event comes after him."""
        when = moment_of(row["time"]) if time_ns(row) is not None else datetime.now(UTC)
        for _ in range(_TRIES):
            act = _act(replace(event, index=max(event.index, len(self.rows))), row)
            try:
                return record(self.path, self.kata_id, act, when)
            except LateError:
                self._read_rows()
        raise StorageError(f"kata {self.kata_id}: others are always first", errno.EBUSY)

    def _read_rows(self) -> None:
        self.rows = Kata(self.kata_id, self.path, (0, 0), ReadCaches()).tip().rows.stored

    def _remove(self, index: int) -> None:
        file = self.file(index)
        file.unlink(missing_ok=True)
        if not self.version:
            shutil.rmtree(file.parent, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, *, lock: bool = True) -> Iterator[None]:
        try:
            with acting_as_owner(self.path), contextlib.ExitStack() as stack:
                if lock:
                    # not the repository's lock, which `record` takes
                    stack.enter_context(repository_lock(self.path, _PATIENCE_SECONDS))
                    self._read_rows()
                yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(f"kata {self.kata_id} cannot be written: {reason}", error.errno or errno.EIO) from error


def flush_pending(path: Path, kata_id: str, older_than: float = 0) -> None:
    """Commit what waits for its row in the kata in ``path``, if anything does."""
    if os.path.isdir(path / PENDING):
        pending = Pending(path, kata_id)
        if not older_than:
            pending.wait_for_row()
        with pending._locked():
            pending.flush(older_than)


def pending_names(path: Path, version: int) -> list[bytes]:
    """The names of events that wait in the kata in ``path``, as a plain kata has them."""
    with contextlib.suppress(NotFoundError):
        return [
            b"%d.event.json" % index if version else b"%d" % index for index in event_indexes(path / PENDING, version)
        ]
    return []


def pending_file(path: Path, version: int, index: int) -> Path:
    """Where the file of an event is as long as it waits."""
    return path / PENDING / (f"{index}.event.json" if version else f"{index}/event.json")


def _act(event: PlainEvent, row: Row) -> Act:
    """The act that an event and its row tell of. Raises `InvalidError`."""
    if "colour" in row and not isinstance(row["colour"], str):
        raise InvalidError(f"the row of event {event.index} has no colour that is text")
    kinds = {"reverted": Kind.REVERTED, "checked_out": Kind.CHECKED_OUT}
    kind = kinds.get(event_type(row, event.index), Kind.RAN_TESTS)
    if kind is Kind.RAN_TESTS and row.get("predicted") not in (None, "none"):
        kind = Kind.PREDICTED_RIGHT
    absent = ["status"] if event.status is None else []
    for name in OUTPUT_NAMES:
        if name not in event.outputs:
            absent.append(name)
        elif event.outputs[name].truncated is None:
            absent.append(f"{name}.truncated")
    texts = {name: event.outputs.get(name, PlainText(b"")) for name in OUTPUT_NAMES}
    outputs = {name: Text(text.content, text.truncated is True) for name, text in texts.items()}
    # a file of which nothing was said gets no flag
    files = {path: Text(text.content, cast(bool, text.truncated)) for path, text in event.files.items()}
    act = _PlainAct(
        kind, row, files, outputs["stdout"], outputs["stderr"], event.status or "0", event.index, absent=tuple(absent)
    )
    try:
        act.subject(event.index)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"the row of event {event.index} does not say what was reverted to") from error
    return act


def set_plain_option(path: Path, kata_id: str, name: str, data: bytes) -> Committed | None:
    """Set an option as its file says: what follows the last newline. The first time there is a commit in any case, so
    that its file is there."""
    value = data.decode("utf-8", "replace").rpartition("\n")[2]
    committed = set_option(path, kata_id, name, value)
    if committed is not None:
        return committed
    with acting_as_owner(path):
        repo = GitRepo(path)
        with repository_lock(repo.git_dir, _PATIENCE_SECONDS), GitWriter(repo) as writer:
            tip = repo.main()
            if tip is None or name in set_options(commit.subject for commit in repo.history(tip)):
                return None
            seconds = int(time.time())
            message = f"set option {name} to {value}"
            new = writer.commit(repo.commit(tip).tree, [tip], message, kata_id, f"{kata_id}@cyber-dojo.org", seconds)
            writer.store()
            writer.refs.move_main(new, tip)
            return None


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
