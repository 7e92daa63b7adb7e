"""Writing references: ``main`` by compare-and-swap, and the tags of events.

As git does it, not by libgit2, which syncs logs as well: six syncs for ``main`` where two are enough. Every call
returns after what it wrote has been synced, but for logs, which tell nothing that the history does not.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from katafs.errors import DamagedError, KataError, RaceLostError
from katafs.git.objects import COMMIT, Oid
from katafs.git.ref_locks import STALE_TAG, RefLocks
from katafs.git.references import read_reference
from katafs.git.repo import MAIN, open_plain
from katafs.git.storing import storing, sync_path

log = logging.getLogger(__name__)

# a file, and two syncs, for each tag: more of them are written into ``packed-refs`` at once
_MOST_LOOSE = 8

_PACKED_REFS = "packed-refs"
_MOST_PACKED = 64 << 20  # bytes
_PACKED_LINE = re.compile(rb"^([0-9a-f]{40}) (\S+)(\n\^[0-9a-f]{40})?$", re.MULTILINE)
_PACKED_HEADER = b"# pack-refs with:"


_COMMITTER = re.compile(rb"^committer (.*)$", re.MULTILINE)
_HEAD_TEXT = f"ref: {MAIN}\n".encode()
_NOTHING = "0" * 40


class RefWriter(RefLocks):
    """Writes the references of one repository."""

    def move_main(self, new: Oid, old: Oid | None) -> None:
        """Move ``main`` from ``old`` to ``new`` by compare-and-swap; None: there was no branch.

        Raises `RaceLostError` when the branch is somewhere else by now, or locked by somebody; then it makes sense to
        try again. `StorageError`, `DamagedError`.
        """
        path = self._git_dir / MAIN
        with storing(MAIN, self._git_dir):
            made = make_parents(path.parent, self._git_dir)
            try:
                lock = self._take(MAIN, new.hex().encode() + b"\n")
            except FileExistsError as error:
                raise RaceLostError(f"{self._git_dir}: {MAIN} is locked by another writer") from error
            try:
                if self._repo.main() != old:
                    raise RaceLostError(f"{self._git_dir}: {MAIN} was moved by another writer")
                lock.become(path)
            finally:
                lock.release()
        try:
            for directory in (path.parent, *made):
                sync_path(directory)
        except OSError as error:
            # the event is recorded, and must not be recorded again
            log.warning("%s: moving %s: %s", self._git_dir, MAIN, error)
        self._log(new, old)

    def _log(self, new: Oid, old: Oid | None) -> None:
        """Add a line to the logs of ``main`` and ``HEAD`` (git's gitrepository-layout). No reader needs it."""
        with suppress(OSError, KataError):
            who = _COMMITTER.search(self._repo.objects.read(new, COMMIT))
            line = b"%s %s %s\t\n" % (
                (old.hex() if old is not None else _NOTHING).encode(),
                new.hex().encode(),
                who[1] if who is not None else b"",
            )
            with open(self._git_dir / "HEAD", "rb", opener=open_plain) as head:
                is_head = head.read(len(_HEAD_TEXT) + 1) == _HEAD_TEXT
            for name in (MAIN, "HEAD") if is_head else (MAIN,):
                path = self._git_dir / "logs" / name
                make_parents(path.parent, self._git_dir)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                fd = os.open(path, flags, 0o644)
                try:
                    if stat.S_ISREG(os.fstat(fd).st_mode):
                        os.write(fd, line)
                finally:
                    os.close(fd)

    def sync_main(self) -> None:
        """Sync ``main`` as it is: somebody else moved it, who may have died before he did."""
        with storing(MAIN, self._git_dir):
            for name in (_PACKED_REFS, MAIN, os.path.dirname(MAIN), ""):
                with suppress(FileNotFoundError):
                    sync_path(os.path.join(self._git_dir, name))

    def set_tags(self, tags: Mapping[int, Oid]) -> None:
        """Make the lightweight tags of events, by index; those that exist are left as they are.

        In ascending order, so that a crash in between leaves out the newest ones.
        """
        missing = {index: tags[index] for index in sorted(tags) if self._repo.tag(index) is None}
        if len(missing) > _MOST_LOOSE:
            self._pack_tags(missing)
        else:
            for index, commit in missing.items():
                self._set_tag(index, commit)

    def _set_tag(self, index: int, commit: Oid) -> None:
        name = f"refs/tags/{index}"
        path = self._git_dir / name
        with storing(f"tag {index}", self._git_dir):
            made = make_parents(path.parent, self._git_dir)
            with self._locked(name, STALE_TAG, commit.hex().encode() + b"\n") as lock:
                # Whoever records the next event makes the tag of this one, if he sees none: the same tag.
                if self._repo.tag(index) is not None:
                    return
                found = read_reference(self._git_dir, name)
                if os.path.lexists(path) and (found is None or found.text):
                    raise DamagedError(f"{self._git_dir}: {name} is no id")
                lock.become(path)
            for directory in (path.parent, *made):
                sync_path(directory)

    def _pack_tags(self, tags: Mapping[int, Oid]) -> None:
        """Add tags to ``packed-refs``; those that are there stay as they are."""
        self._pack({b"refs/tags/%d" % index: commit for index, commit in tags.items()}, replacing=False)

    def _pack(self, commits: Mapping[bytes, Oid], *, replacing: bool) -> None:
        """Put references to commits into ``packed-refs``: a line ``<id> SP <name>`` each, sorted by name (git's
        gitrepository-layout)."""
        path = self._git_dir / _PACKED_REFS
        with storing("tags", self._git_dir):
            with self._locked(_PACKED_REFS, STALE_TAG) as lock:
                lock.write(_with_lines(_read(path), commits, replacing=replacing))
                lock.become(path)
            sync_path(self._git_dir)


def _with_lines(text: bytes, commits: Mapping[bytes, Oid], *, replacing: bool) -> bytes:
    """The text of ``packed-refs`` with these references in it."""
    # what the first line says of those that are there must stay true: that their tagged objects stand there too
    first = text.partition(b"\n")[0]
    header = first if first.startswith(_PACKED_HEADER) else _PACKED_HEADER + b" "
    if not text:
        header += b"peeled fully-peeled sorted "
    elif b" sorted " not in header:
        header += b"sorted "
    lines = {found[2]: found[0] for found in _PACKED_LINE.finditer(text)}
    for name, commit in commits.items():
        line = b"%s %s" % (commit.hex().encode(), name)
        if replacing:
            lines[name] = line
        else:
            lines.setdefault(name, line)
    return b"\n".join([header, *(lines[name] for name in sorted(lines)), b""])


def make_parents(directory: Path, top: Path) -> list[Path]:
    """Make a directory, and those above it but ``top``: where that has gone, nothing is built up in its place. Returns
    the directories in which something was made. Raises OSError."""
    made = []
    while directory != top and not directory.is_dir():
        made.append(directory)
        directory = directory.parent
    for missing in reversed(made):
        missing.mkdir(exist_ok=True)
    return [missing.parent for missing in made]


def _read(path: Path) -> bytes:
    """``packed-refs``; empty when there is none. Raises OSError (EFBIG) when it is larger than any that is read."""
    try:
        with open(path, "rb", opener=open_plain) as file:
            text = file.read(_MOST_PACKED + 1)
        if len(text) > _MOST_PACKED:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), os.fspath(path))
        return text
    except FileNotFoundError:
        return b""
