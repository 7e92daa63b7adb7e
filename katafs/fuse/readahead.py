"""Reading ahead: what was listed is sent to the kernel before it asks.

A cold READ costs some 100 microseconds, most of it for waking the daemon and the reader in turn. Who reads two files of
an event that was listed reads the rest of it, and then the next event (``grep -r``, ``tar``, ``cp -r``): their bytes
are put into the kernel's pages (FUSE_NOTIFY_STORE). A thread does that, since it waits for pages that the kernel holds
while it asks for them; and the event loop must be free to answer.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from queue import SimpleQueue
from typing import NamedTuple

import cachetools
import pyfuse3

from katafs.errors import KataError
from katafs.git.budget import Budget
from katafs.tree.counters import Counters
from katafs.tree.nodes import Node, PlusEntry

log = logging.getLogger(__name__)

_LARGEST = 64 << 10  # bytes of a file
_MOST_BYTES = 256 << 10  # of the files of a directory
_MOST_FILES = 64  # of a directory
_LISTED = 16  # directories whose files nobody has read yet
_NEXT = 8  # directories that are sent as soon as they are listed, when others of the kata were read
_KATAS = 64  # that are being read
_LONGEST = 0.003  # seconds in which nobody else is answered; a directory of an ordinary kata takes a tenth
_WAITING = 8  # directories whose bytes the thread has yet to send

_Contents = list[tuple[int, bytes]]


class _Directory(NamedTuple):
    node: Node
    #: the numbers of the files that are to be sent
    files: frozenset[int]


class ReadAhead:
    """Sees what is listed and read, and sends the rest. Belongs to the event loop."""

    def __init__(self, counters: Counters, budget: Budget) -> None:
        self._counters, self._budget = counters, budget
        #: by number, and by those of their files
        self._listed: OrderedDict[int, _Directory] = OrderedDict()
        self._above: dict[int, int] = {}
        # of which one file was read
        self._begun: set[int] = set()
        # of katas that are being read: how many more directories are sent when they are listed
        self._next: cachetools.LRUCache[str, int] = cachetools.LRUCache(_KATAS)
        self._queue: SimpleQueue[_Contents | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    def note_listing(self, node: Node, entries: list[PlusEntry]) -> None:
        """The kernel begins to list a directory."""
        files: list[int] = []
        room = _MOST_BYTES
        for entry in entries:
            if 0 < entry.size <= min(_LARGEST, room) and len(files) < _MOST_FILES:
                files.append(entry.number)
                room -= entry.size
        if len(files) < 2:
            return
        self._forget(node.number)
        if len(self._listed) >= _LISTED:
            self._forget(next(iter(self._listed)))
        self._listed[node.number] = _Directory(node, frozenset(files))
        self._above.update(dict.fromkeys(files, node.number))

    def was_listed(self, number: int) -> None:
        """The kernel asks for what comes after the end of a directory: it knows all entries by now."""
        directory = self._listed.get(number)
        if directory is None:
            return
        left = self._next.get(directory.node.key.kata, 0)
        if left:
            self._next[directory.node.key.kata] = left - 1
            self._send(number)

    def read(self, number: int) -> None:
        """The kernel asks for bytes of a file."""
        above = self._above.get(number)
        if above is None:
            return
        if above not in self._begun:
            # one file alone says nothing of what comes
            self._begun.add(above)
            return
        self._next[self._listed[above].node.key.kata] = _NEXT
        self._send(above, but=number)

    def stop(self, seconds: float | None = None) -> None:
        """Send nothing more, and wait for what is being sent, for so many seconds at most. May be called again.

        While requests are answered, in a worker thread: it may wait for the answer to one.
        """
        self._is_stopping = True
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join(seconds)

    def _forget(self, number: int) -> _Directory | None:
        directory = self._listed.pop(number, None)
        if directory is not None:
            self._begun.discard(number)
            for file in directory.files:
                self._above.pop(file, None)
        return directory

    def _send(self, number: int, but: int = 0) -> None:
        directory = self._forget(number)
        is_busy = self._is_stopping or self._queue.qsize() >= _WAITING
        if directory is None or is_busy or not directory.node.is_reusable():
            return
        contents: _Contents = []
        end = time.monotonic() + _LONGEST
        # whoever reads the file itself will be told
        with contextlib.suppress(KataError), self._budget.within(_LONGEST * 1e6):
            for each in directory.node.contents(directory.files - {but}):
                contents.append(each)
                if time.monotonic() > end:
                    break
        if self._thread is None and not self._is_stopping:
            self._thread = threading.Thread(target=_store, args=(self._queue,), name="read ahead", daemon=True)
            self._thread.start()
        self._counters.read_ahead += len(contents)
        self._queue.put(contents)


def _store(queue: SimpleQueue[_Contents | None]) -> None:
    """Put bytes into the pages of files, whose sizes the kernel knows, until there is a None."""
    while (contents := queue.get()) is not None:
        for number, data in contents:
            try:
                pyfuse3.notify_store(number, 0, data)
            except FileNotFoundError:
                pass  # it was forgotten
            except OSError as error:
                log.debug("inode %d: %s", number, error)
