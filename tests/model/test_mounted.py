"""The same over a real mount: messages are written to control files, events are read back as files."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.katas import serving, time_ns
from tests.model.machine import KataMachine, git_tag, settings_of
from tests.model.pretty import native_json
from tests.model.shown import has_no_run, read_tree, shown_document, shown_event, shown_row, shown_tree
from tests.mounts import Mount, wait_until

_NUMBERS = itertools.count(1)


class MountedMachine(KataMachine):
    """The time of an event is the daemon's own, and is read from the repository."""

    mount: ClassVar[Mount]

    def place(self) -> tuple[Path, str]:
        self.compared = 0
        return self.mount.store, f"M{next(_NUMBERS):05}"

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    @property
    def shown(self) -> Path:
        return self.mount.kata(self.kata_id)

    def send(self, kind: str, data: bytes, now: datetime) -> int:
        at_root = kind == "ran_tests" and len(data) % 2
        control = self.shown / kind if at_root else self.shown / "control" / kind
        begun = datetime.now(UTC)
        error = write(control, data)
        outcome = json.loads(control.read_bytes())
        if error is not None:
            assert (outcome["ok"], outcome["errno"]) == (False, errno.errorcode[error.errno or 0])
            raise error
        assert outcome["ok"] is True
        assert outcome["commit"] == git_tag(self.path, outcome["index"])
        self._read_time(begun)
        return int(outcome["index"])

    def send_option(self, name: str, value: str, now: datetime) -> bool:
        option, begun = self.shown / "config" / name, datetime.now(UTC)
        if not option.exists():
            raise OSError(errno.EINVAL, "no such option")
        before = option.read_bytes()
        error = write(option, value.encode() + b"\n")
        assert option.read_bytes() == (before if error else f"{value}\n".encode())
        if error is not None:
            raise error
        self._read_time(begun)
        return before != f"{value}\n".encode()

    def _read_time(self, begun: datetime) -> None:
        """The model is told when the newest commit was made; a repetition has made none."""
        rows = self.stored.newest_rows()
        commit = self.stored.newest_commit()
        if commit.id == self.stored.commits[-1]:
            return
        self.now = datetime.fromtimestamp(commit.commit_time, UTC)
        if len(rows) > len(self.model.rows):
            self.now = datetime.fromtimestamp(time_ns(rows[-1]["time"]) // 1000 / 1e6, UTC)
        assert begun.replace(microsecond=0) <= self.now <= datetime.now(UTC)

    def _compare(self) -> None:
        super()._compare()
        last = len(self.model.rows) - 1
        # What this mount commits is there at once; what others do takes a moment, for each file its own.
        if not self.model.commits[-1].ours:
            wait_until(lambda: self._tip() == self._expected_tip() and self._listing() == self._events(), "the tip")
        assert differing(self._tip(), self._expected_tip()) == {}
        assert self._listing() == self._events()
        for index in {*range(self.compared, min(last + 1, self.compared + 4)), last // 2, last}:
            found = read_tree(self.shown / "events" / str(index))
            assert found.pop("manifest.json")
            assert differing(found, shown_event(self.model, index)) == {}
            if index > 0:
                assert (self.shown / "events" / f"{index}.json").read_bytes() == shown_document(self.model, index)
        self.compared = last + 1

    def _listing(self) -> tuple[str, set[str]]:
        return os.readlink(self.shown / "events" / "latest"), set(os.listdir(self.shown / "events"))

    def _events(self) -> tuple[str, set[str]]:
        last = len(self.model.rows) - 1
        return str(last), {"latest", *map(str, range(last + 1))}

    def _expected_tip(self) -> dict[str, bytes]:
        rows = [shown_row(row) for row in self.model.rows]
        tree = self.model.commits[-1].tree
        tip = shown_tree(tree, without_run=has_no_run(tree, rows[-1]))
        return tip | {"event.json": native_json(rows[-1]), "events_summary.json": native_json(rows)}

    def _tip(self) -> dict[str, bytes]:
        files = {f"files/{name}": data for name, data in read_tree(self.shown / "files").items()}
        names = [name for name in self._expected_tip() if not name.startswith("files/")]
        return files | {name: (self.shown / name).read_bytes() for name in names}


def differing(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> dict[str, tuple[bytes | None, ...]]:
    """The files that differ, as found and as expected."""
    names = found.keys() | expected.keys()
    return {name: (found.get(name), expected.get(name)) for name in names if found.get(name) != expected.get(name)}


def write(path: Path, data: bytes) -> OSError | None:
    """Write to a file of the mount in one call: the error, if there is one."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        assert os.write(descriptor, data) == len(data)
    except OSError as error:
        return error
    finally:
        os.close(descriptor)
    return None


@pytest.fixture(scope="module")
def mounted(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with serving(tmp_path_factory.mktemp("model"), "fast") as mount:
        MountedMachine.mount = mount
        yield


def test_some_steps(mounted: None) -> None:
    run_state_machine_as_test(MountedMachine, settings=settings_of(20, 4))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_many_steps(mounted: None, part: int) -> None:
    run_state_machine_as_test(MountedMachine, settings=settings_of(40, 12))
