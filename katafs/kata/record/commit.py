"""Recording: the one place where a kata is written to.

The order of durability: the objects, as one pack, then ``main`` by compare-and-swap, then the tags in ascending order,
each synced before the next; the caller hears of success after all three. The files that become ``main`` and the tags
are made, and synced, with the pack, all at once, which costs what one of them costs. A crash between any two leaves a
repository that reads right at once, and is mended by the next write: objects that nothing refers to, or newest rows
without their tags (`GitRepo.commit_of_event` finds their commits), or locks that nobody holds.

Writers are told apart by the compare-and-swap, whoever they are: he who loses looks at the new tip and asks the three
questions of `katafs.kata.record.placing` again. Katafs' own writers also wait for one another (`repository_lock`), lest
they work in vain.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from katafs.errors import DamagedError, InvalidError, KataError, RaceLostError, StorageError, storage_errors
from katafs.git import GitWriter, Oid, read_config, repository_lock
from katafs.git.odb.objects import Made
from katafs.git.refs.locks import STALE_MAIN
from katafs.kata.model.kinds import Act, Kind
from katafs.kata.model.options import OPTION_VALUES, set_by
from katafs.kata.model.trees import Listing
from katafs.kata.read.state import State, read_state
from katafs.kata.record.kata_writer import KataWriter, check_writable
from katafs.kata.record.placing import check_files, check_index, edited_file, file_edit, repetition
from katafs.kata.record.repositories import repository
from katafs.owner import acting_as_owner

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
#: called with the new tip right before ``main`` is moved to it
Announce = Callable[[Oid], None]

# how long others may hold, or again and again move, the branch before a writer hears of it
PATIENCE_SECONDS = 15.0
# How long somebody who has moved the branch has to make the tag. Saver fails when katafs is faster, though its event is
# recorded; and looks for a tag in just this way (FORMAT §2.0).
_TAG_SECONDS, _TAG_PAUSE = 0.1, 0.005
_STALE_PAUSE = 0.01
# what another host has replaced, or removed
_REPLACED = (errno.ESTALE, errno.ENOENT)

_NO_EDIT = "no file was edited: files that are added or removed have control files of their own"


@dataclass(frozen=True)
class Committed:
    """What was recorded: an event's index (of an option: that of the last event), and the commit."""

    index: int
    commit: Oid
    #: False when it was recorded before, or there was nothing to be recorded: then nothing was written
    is_new: bool = field(default=True, compare=False)
    #: what is to be said of that, if anything
    message: str = field(default="", compare=False)


#: called when ``main`` was moved for good, with what was stored, if that is at hand and not much; what is left are the
#: tags, which nobody needs to read the event
Landed = Callable[[Committed, Made], None]


@dataclass(frozen=True)
class Job:
    """Something that is to be recorded: ``call(path, kata_id, *arguments)``."""

    path: Path
    kata_id: str
    call: Callable[..., Committed | None]
    arguments: tuple[object, ...]
    #: under what its commits are counted
    counted_as: str = "control"
    #: whether it is done after those before it in the kata, by whatever process; else at once, in a thread
    in_turn: bool = True

    def __call__(self, announce: Announce, landed: Landed) -> Committed | None:
        """Record it; durable when this returns. None when there was nothing to be recorded."""
        told: dict[str, Any] = {"landed": landed} if self.in_turn else {}
        end = time.monotonic() + (0 if self.in_turn else PATIENCE_SECONDS)
        while True:
            try:
                return self.call(self.path, self.kata_id, *self.arguments, announce=announce, **told)
            except (StorageError, OSError) as error:
                # Another host has replaced what was just looked for. What has no turn can be done again: O_EXCL, mkdir
                # and the row say whether it was done.
                if error.errno != errno.ESTALE or time.monotonic() > end:
                    raise
            time.sleep(_STALE_PAUSE)


def plain_job(path: Path, kata_id: str, call: Callable[..., Committed | None], *arguments: object) -> Job:
    """What a plain-path service does, which may have to wait for what it does next."""
    return Job(path, kata_id, call, arguments, "plain", in_turn=False)


@dataclass(frozen=True)
class _Try(KataWriter):
    """One try to put something on the tip."""

    announce: Announce | None
    landed: Landed | None

    def move(self, new: State, old: State, tags: Mapping[int, Oid]) -> None:
        """Store the objects, and move ``main``. Raises `RaceLostError` when it is elsewhere by now."""
        self.git.store(new.commit.oid, tags)
        if self.announce is not None:
            self.announce(new.commit.oid)
        try:
            self.git.refs.move_main(new.commit.oid, old.commit.oid)
        except StorageError as error:
            # after a failed sync nobody knows what is on the disk
            if self.repo.main() != new.commit.oid:
                raise
            message = f"event {new.last} may be there, and may be lost by a power cut: {error}"
            raise StorageError(message, errno.EIO if error.errno in _REPLACED else error.errno) from error
        made = self.git.remember()
        if self.landed is not None:
            self.landed(Committed(new.last, new.commit.oid), made)


def read_head(git: GitWriter) -> State:
    """The tip, read once; the tags that a crash left out are made."""
    repo = git.repo
    tip = repo.main()
    if tip is None:
        raise DamagedError(f"{repo.path} has no branch main")
    head = read_state(repo, tip, with_text=True)
    check_writable(repo, head)
    git.build_on(tip)
    end = time.monotonic() + _TAG_SECONDS
    while (tag := repo.tag(head.last)) is None and time.monotonic() < end:
        time.sleep(_TAG_PAUSE)
    if tag is None:
        first = head.last
        while first > 0 and repo.tag(first - 1) is None:
            first -= 1
        _set_tags(git, repo.commits_of_events(tip, first, head.last))
    return head


def record(
    path: Path,
    kata_id: str,
    act: Act,
    now: datetime | None = None,
    *,
    announce: Announce | None = None,
    landed: Landed | None = None,
) -> Committed:
    """Record an act in the kata at ``path`` as an event; durable when this returns. Called in a worker thread.

    The answer to a repetition is the event that there is, and nothing is written; so is the answer to a ``file_edit``
    in whose files none of those that there are is another, with the last event.

    Raises `LateError` (EEXIST) when ``act.index`` is taken, `InvalidError`, `ReadOnlyError` for a layout that is not
    written, `StorageError` (EBUSY when ``main`` stays locked), `DamagedError`. After an error nothing has changed.
    """

    def attempt(git: GitWriter) -> Committed:
        return _record(_Try(git, kata_id, now or datetime.now(UTC), announce, landed), act)

    return _until_won(path, kata_id, attempt)


def set_option(
    path: Path,
    kata_id: str,
    name: str,
    value: str,
    now: datetime | None = None,
    *,
    announce: Announce | None = None,
    landed: Landed | None = None,
    is_shown: bool = False,
) -> Committed | None:
    """Set an option of the kata at ``path``: the last event and the new commit, or None when it had that value already.

    With ``is_shown`` there is a commit also where it had the value without ever having been set: the plain path of an
    option is there once it was set (FORMAT §1.2).

    Raises as `record` does: `InvalidError` for an option or a value that there is not.
    """
    if value not in OPTION_VALUES.get(name, ()):
        raise InvalidError(f"cannot set {name} to {value[:40]!r}, only to {' or '.join(OPTION_VALUES.get(name, ()))}")

    def attempt(git: GitWriter) -> Committed | None:
        return _set_option(_Try(git, kata_id, now or datetime.now(UTC), announce, landed), name, value, is_shown)

    return _until_won(path, kata_id, attempt)


def _until_won(path: Path, kata_id: str, attempt: Callable[[GitWriter], _Result]) -> _Result:
    """Try as the owner of the kata, until nobody is faster."""
    end = time.monotonic() + PATIENCE_SECONDS
    with (
        storage_errors(f"kata {kata_id} cannot be written"),
        acting_as_owner(path),
        repository(path) as repo,
        repository_lock(repo.git_dir, PATIENCE_SECONDS) as is_alone,
        GitWriter(repo, is_alone=is_alone) as git,
    ):
        result = _again_and_again(git, kata_id, attempt, end)
        git.tidy(may_merge=read_config(repo.git_dir).may_be_packed)
        return result


def _again_and_again(git: GitWriter, kata_id: str, attempt: Callable[[GitWriter], _Result], end: float) -> _Result:
    lost: KataError | None = None
    tries = 0
    while True:
        # each attempt stores another commit: not while it is in vain
        if not tries or not git.refs.locks.is_locked(git.refs.main):
            git.discard()
            try:
                return attempt(git)
            except (RaceLostError, StorageError) as error:
                # Somebody was first: their event stands, ours goes after it, or is late. Not all at once again. Or
                # another host has replaced what was just looked at, or removed what we were about to put into place: we
                # were not heard of for so long that it took us for dead.
                is_ours = isinstance(error, StorageError) and error.errno in _REPLACED and git.repo.git_dir.is_dir()
                if not is_ours and not isinstance(error, RaceLostError):
                    raise
                lost = error
        if time.monotonic() > end:
            raise StorageError(f"kata {kata_id}: {lost}", errno.EBUSY) from lost
        git.refs.locks.unlock(git.refs.main, STALE_MAIN)
        time.sleep(0.001 * min(tries, 50))
        tries += 1


def _record(attempt: _Try, act: Act) -> Committed:
    """Put an event on the present tip. Raises `RaceLostError` when the tip moves meanwhile."""
    head = read_head(attempt.git)
    index = repetition(head.rows.stored, act)
    message = ""
    if index is None:
        index = head.last + 1 if act.index is None else check_index(head.last, act.index)
        new, tags = _write(attempt, head, act, index)
        if new is not head:
            attempt.move(new, head, tags)
            # The event is recorded: from here on its writer must hear of success.
            _set_tags(attempt.git, tags)
            return Committed(new.last, new.commit.oid)
        index, message = head.last, _NO_EDIT
    # what is answered for must be durable, whoever recorded it
    attempt.git.sync_of_others()
    attempt.git.refs.sync_main()
    commit = attempt.repo.commit_of_event(head.commit.oid, index).oid
    return Committed(index, commit, is_new=False, message=message)


def _write(writer: KataWriter, head: State, act: Act, index: int) -> tuple[State, dict[int, Oid]]:
    """The new head, and the tags of what was put on the old one: one commit, two where edits are recorded first, none
    for an edit that is none."""
    if act.kind.facts.file_names:
        check_files(act, dict(Listing(writer.repo, head.files_tree).blobs()).keys())
    files = writer.incoming(head, act)
    tags: dict[int, Oid] = {}
    new = head
    if act.kind is Kind.FILE_EDIT or (act.kind.saves_edits and act.index is None):
        is_new = files != head.files_tree
        edited = edited_file(*(Listing(writer.repo, tree) for tree in (head.files_tree, files))) if is_new else None
        if act.kind is Kind.FILE_EDIT:
            if edited is None:
                return head, {}
            act = act if "filename" in act.summary else file_edit(act, edited)
        elif edited is not None:
            new = writer.event(head, file_edit(act, edited), files, index)
            tags[index] = new.commit.oid
            index += 1
    earlier = new.last
    new = writer.event(new, act, files, index)
    return new, tags | dict.fromkeys(range(earlier + 1, index + 1), new.commit.oid)


def _set_option(attempt: _Try, name: str, value: str, is_shown: bool) -> Committed | None:
    head = read_head(attempt.git)
    if head.options(attempt.repo)[name] == value:
        earlier = (set_by(commit) for commit in attempt.repo.history(head.commit.oid))
        if not is_shown or any(known is not None and known[0] == name for known in earlier):
            attempt.git.sync_of_others()
            attempt.git.refs.sync_main()
            return None
    new = attempt.option(head, name, value)
    attempt.move(new, head, {})
    return Committed(new.last, new.commit.oid)


def _set_tags(writer: GitWriter, tags: dict[int, Oid]) -> None:
    """Make the tags of events. Without them the events can be read as well, and the next one must not fail for it."""
    try:
        writer.refs.set_tags(tags)
    except (KataError, OSError) as error:
        log.warning("%s: events %s have no tags: %s", writer.repo.path, sorted(tags), error)
