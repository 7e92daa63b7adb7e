"""The daemon dies before each system call by which it changes something, while a service writes a kata by plain paths
(FORMAT §3.1): the service hears what it would have heard, and the store is what it believes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from katafs.mount.keeper import GIVE_UP_DEATHS, GIVE_UP_SECONDS
from tests.benchmarks.restarts import say
from tests.deaths.tracing import Killer
from tests.katas import git, git_files, serving, stored_rows
from tests.legacy.test_mount_services import (
    assert_sound_with_outages,
    create_kata,
    event_of,
    file_append,
    file_create,
    file_read,
    ran_tests,
)
from tests.mounts import Mount, wait_until
from tests.plain_katas import make_plain_kata
from tests.restarts import EXPECTED

IDS = itertools.count(1)
#: in a run of all tests only one of so many calls is died at
SAMPLE = 439


class Service:
    """Writes one kata, and remembers all that it hears."""

    def __init__(self, mount: Mount, kind: str, version: int) -> None:
        self._version, self._kind = version, kind
        self.kata_id = f"{next(IDS):06}"
        self.stored = mount.store.joinpath(self.kata_id[:2], self.kata_id[2:4], self.kata_id[4:])
        self.shown = mount.kata(self.kata_id)
        #: what was asked, and the answer
        self.heard: list[tuple[str, object]] = []
        if kind != "new":
            make_plain_kata(mount.store, self.kata_id, version, 3, events=3)

    def work(self) -> None:
        """All that services do to one kata."""
        index = 3
        if self._kind == "new":
            index = 1
            self._hear("make the kata", create_kata)
            self._hear("make it again", create_kata)
            self._read("manifest.json", self._event(0), "events.json")
        if self._kind == "option":
            self._set_option("on")
        self._hear("an event", ran_tests, index)
        self._read("events.json", self._event(index))
        self._hear("the same event", ran_tests, index)
        self._set_option("off")
        if self._version:
            # in version 0 the row that is written in its place has the time of that
            self._hear("no row", self._begin, index + 1)
        # others are left out
        self._hear("the next event", ran_tests, index + 4)
        self._hear("an outage's event", ran_tests, index + 3)
        self._read("events.json", self._event(index + 4))

    def _hear(self, what: str, call: Callable[..., object], *index: int) -> None:
        try:
            answer: object = call(self.shown, *index, self._version)
        except (OSError, AssertionError) as error:
            answer = repr(error)
        self.heard.append((what, answer))

    def _read(self, *names: str) -> None:
        for name in names:
            self._hear(f"read {name}", lambda shown, _, name=name: self._unnamed(file_read(shown / name)))

    def _set_option(self, value: str) -> None:
        self._hear("make an option", lambda shown, _: file_create(shown / "predict", f"\n{value}"))
        self._hear("set an option", lambda shown, _: file_append(shown / "predict", f"\n{value}"))
        self._read("predict")

    def _begin(self, shown: Path, index: int, version: int) -> bool:
        return file_create(shown / self._event(index), json.dumps(event_of(index, version)[0]))

    def _event(self, index: int) -> str:
        return f"{index}.event.json" if self._version else f"{index}/event.json"

    def _unnamed(self, text: str) -> str:
        return text.replace(self.kata_id, "AbCdEf")

    def _files(self) -> Iterator[Path]:
        """What there is beside the repository."""
        for directory, names, files in os.walk(self.stored):
            names[:] = [name for name in names if name != ".git"]
            yield from (Path(directory, name) for name in files)

    def found(self) -> dict[str, Any]:
        """What is in the store, and what the mount shows of it."""
        last = assert_sound_with_outages(self.stored)
        files = {index: git_files(self.stored, f"refs/tags/{index}") for index in range(last + 1)}
        manifests = {listed.pop(b"manifest.json") for listed in files.values()}
        read = {
            str(path.relative_to(self.shown)): self._unnamed(path.read_text())
            for path in sorted(self.shown.iterdir())
            if path.is_file() and not path.is_symlink() and path.name not in ("history", "ran_tests")
        }
        return {
            "one manifest": len(manifests),
            "rows": stored_rows(self.stored),
            "events": files,
            "commits": git(self.stored, "log", "--format=%s", "main").decode(),
            "files": sorted(str(path.relative_to(self.stored)) for path in self._files()),
            "shown": read,
            "options": {path.name: path.read_text() for path in (self.shown / "config").iterdir()},
        }


def ask(mount: Mount) -> None:
    """Make the daemon answer: the kernel keeps nothing of this."""
    os.statvfs(mount.path)


@pytest.fixture(scope="module")
def kept(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    with serving(tmp_path_factory.mktemp("kept"), "fast") as mount:
        if mount.daemon == mount.pid:
            pytest.skip("mounts are not kept alive here")
        mount.expected_log = f"{EXPECTED}|the daemon died while"
        yield mount


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("kind", ["new", "plain", "option"])
@pytest.mark.parametrize("stride", [SAMPLE, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_death_at_each_call(kept: Mount, kind: str, version: int, stride: int) -> None:
    wrong: list[str] = []
    deaths: deque[float] = deque([0.0], GIVE_UP_DEATHS - 1)
    undisturbed = Service(kept, kind, version)
    undisturbed.work()
    expected = undisturbed.found()
    # in a sample each kind dies at calls of its own
    at, over = min(stride, 100 + 7 * len(kind) + 11 * version), 0
    # now and then it takes fewer calls
    while over < 3:
        # more deaths would be taken for a daemon that cannot live
        wait_until(lambda: time.monotonic() - deaths[0] > GIVE_UP_SECONDS, "a pause")
        service = Service(kept, kind, version)
        ask(kept)
        with Killer(kept.daemon, at, lambda: ask(kept)) as killer:
            service.work()
        if killer.has_killed:
            deaths.append(time.monotonic())
        over = 0 if killer.has_killed else over + 1
        wrong += [f"call {at}, {killer.seen[-1]}: {text}" for text in differences(service, undisturbed, expected)]
        shutil.rmtree(service.stored)
        at += stride
    say(f"{at} calls, {len(wrong)} differences")
    assert not wrong, "\n".join(wrong)
    assert at > 200


def differences(service: Service, undisturbed: Service, expected: dict[str, Any]) -> list[str]:
    """In what a service heard, and in what there is, from what it would be had nobody died."""
    wrong = [
        f"{what}: {answer!r}, not {right!r}"
        for (what, answer), (_, right) in zip(service.heard, undisturbed.heard, strict=True)
        if answer != right
    ]
    found: dict[str, Any] = {}

    def is_right() -> bool:
        found.update(service.found())
        return found == expected

    # what is not needed any more is removed a little later
    with contextlib.suppress(AssertionError):
        wait_until(is_right, "the right state", 7)
    return wrong + [f"{key}: {found[key]!r}, not {right!r}" for key, right in expected.items() if found[key] != right]
