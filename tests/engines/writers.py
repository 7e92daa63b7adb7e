"""Writers on both hosts, who repeat what was not acknowledged; and what must be true of what they wrote."""

from __future__ import annotations

import contextlib
import errno
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from katafs.kata.model.ids import kata_path
from tests.engines.client import Client, Hosts
from tests.katas import assert_sound, make_kata, message, stored_rows
from tests.mounts import Mount, katafs, wait_until


def send(mount: Mount, kata_id: str, text: dict[str, Any]) -> str:
    """Write a message: the name of the errno, or nothing."""
    try:
        (mount.kata(kata_id) / "control/ran_tests").write_text(json.dumps(text))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


class Writer(threading.Thread):
    """Writes to all katas in turn until it is over, or its host is dead."""

    def __init__(self, host: Client, number: int, ids: Sequence[str], is_over: threading.Event) -> None:
        super().__init__()
        self._host, self._ids, self._is_over = host, ids, is_over
        self.laptop = f"{number:064x}"
        self.acknowledged: list[tuple[str, str, int]] = []
        self.errors: Counter[str] = Counter()
        #: seconds, of what was acknowledged
        self.longest = 0.0

    def run(self) -> None:
        turn = 0
        while not self._is_over.is_set():
            turn += 1
            kata_id = self._ids[turn % len(self._ids)]
            text = message({"a.txt": f"{self.laptop} {turn}\n"}, laptop_id=self.laptop, tab_seq=turn)
            begin = time.monotonic()
            while said := send(self._host.mount, kata_id, text):
                self.errors[said] += 1
                if said in ("ENOTCONN", "ECONNABORTED") or self._is_over.wait(0.05):
                    return
            self.longest = max(self.longest, time.monotonic() - begin)
            self.acknowledged.append((kata_id, self.laptop, turn))

    def wait_for(self, count: int, seconds: float) -> float:
        """Wait until so many more are acknowledged: how long that took."""
        before, begin = len(self.acknowledged), time.monotonic()
        wait_until(lambda: len(self.acknowledged) >= before + count, f"event {before + count}", seconds)
        return time.monotonic() - begin


@contextlib.contextmanager
def writing(hosts: Hosts, ids: Sequence[str]) -> Iterator[list[Writer]]:
    """Two writers on each host, the first and the third on the first one, on new katas; at the end, what was
    acknowledged is there, once each, and nothing is wrong."""
    for kata_id in ids:
        make_kata(hosts[1].store, kata_id, {"a.txt": "0\n"})
    is_over = threading.Event()
    writers = [Writer(hosts[number % 2], number, ids, is_over) for number in range(4)]
    try:
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.wait_for(2, 60)
        yield writers
    finally:
        is_over.set()
        for writer in writers:
            writer.join()
    recorded: Counter[tuple[str, str, int]] = Counter()
    for kata_id in ids:
        rows = [row for row in stored_rows(kata_path(hosts[1].store, kata_id)) if row.get("colour") == "red"]
        recorded.update((kata_id, row["laptop_id"], row["tab_seq"]) for row in rows)
    assert set(recorded.values()) == {1}
    # of each writer the last one may have come to be, though nobody could say so
    unanswered = {key for key in recorded if key[2] == 1 + sum(key[1] == one[1] for one in _all(writers))}
    assert recorded.keys() - unanswered == set(_all(writers)) - unanswered
    assert katafs("fsck", hosts[1].store, *ids).stderr == b""
    for kata_id in ids:
        assert_sound(kata_path(hosts[1].store, kata_id))


def _all(writers: Sequence[Writer]) -> list[tuple[str, str, int]]:
    return [one for writer in writers for one in writer.acknowledged]
