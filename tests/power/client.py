"""What is recorded: a client of a store, which starts the daemon, writes, and says what it heard of success.

Run as a program under strace: ``python -m tests.power.client SCENARIO STORE``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from katafs.kata.compact import compact_kata
from katafs.kata.legacy.migrate import migrate_kata
from katafs.kata.model.ids import kata_path
from katafs.kata.record.create import create_kata
from tests.fsck.cases import copy_kata
from tests.katas import add_event, make_kata, message, pretty_json, row_time, stored_rows
from tests.mounts import Mount
from tests.plain_katas import make_plain_kata
from tests.power.judging import digest
from tests.power.trace import acknowledge

NATIVE, SAVER, MADE = "AbCdEf", "FsckMe", "NewNew"
BY_GIT = {NATIVE: 2, SAVER: 6}
PLAIN = {version: f"PxaYn{version}" for version in (0, 1)}
NEW_PLAIN = {version: f"PNew0{version}" for version in (0, 1)}
LAPTOP = "0123456789abcdef" * 4


class Client:
    """A service that writes to the mount of a store, if there is one, or past it."""

    def __init__(self, store: Path, mount: Path) -> None:
        self.store, self.mount = store, mount  # another each time

    def heard(self, kata_id: str, *keys: str, how: str = "mount") -> None:
        """Success of what these facts say (`tests.power.judging.Facts`): from a mount, or by itself."""
        for key in keys:
            acknowledge(f"{how}:{kata_id} {key}")

    def write(self, kata_id: str, name: str, data: str, *keys: str, flags: int = os.O_TRUNC) -> None:
        """Write to a file of the mount, at once."""
        fd = os.open(kata_path(self.mount, kata_id) / name, os.O_WRONLY | flags, 0o644)
        assert os.write(fd, data.encode()) == len(data.encode())
        self.heard(kata_id, *keys)
        os.close(fd)

    def event(self, kata_id: str, *indexes: int, name: str = "ran_tests", **more: Any) -> None:
        """Send a message, of which these are the events."""
        files = {"hiker.sh": f"echo {kata_id} {indexes}\n", "more/text.txt": f"line of {indexes}\n" * 400}
        keys = [f"{kind} {index}" for index in indexes for kind in ("row", "files", "commit")]
        self.write(kata_id, name, json.dumps(message(files, **more)), *keys)

    def option(self, kata_id: str, name: str, value: str) -> None:
        """Set an option that is not set again."""
        self.write(kata_id, f"config/{name}", value, f"option {name}")

    def plain_event(self, kata_id: str, version: int, index: int, *, with_row: bool = True) -> None:
        """Write an event, and its row, as a service for plain files does (FORMAT §3.1)."""
        content: Any = f"x = {index}\n" * 700
        event: dict[str, Any] = {"files": {"a.py": {"content": content if version else [content]}}, "status": "0"}
        event |= {key: {"content": "" if version else [""], "truncated": False} for key in ("stdout", "stderr")}
        row: dict[str, Any] = {"colour": "red", **({"index": index} if version else {}), "time": row_time(60 * index)}
        if not version:
            os.mkdir(kata_path(self.mount, kata_id) / str(index))
        name = f"{index}.event.json" if version else f"{index}/event.json"
        text = json.dumps(event | (row if version else {}))
        self.write(kata_id, name, text, f"files {index}", flags=os.O_CREAT | os.O_EXCL)
        if with_row:
            line = json.dumps(row)
            line = ",\n" + line if version else line + "\n"
            self.write(kata_id, "events.json", line, f"files {index}", f"row {index}", flags=os.O_APPEND)

    def plain_kata(self, kata_id: str, version: int) -> None:
        """Make a kata as a service for plain files does."""
        directory = kata_path(self.mount, kata_id)
        for path in (directory.parent.parent, directory.parent, directory):
            with contextlib.suppress(FileExistsError):
                path.mkdir()
        lines: Any = "text\n" if version else ["text\n"]
        files = {"a.txt": {"content": lines}}
        row = {"index": 0, "event": "created", "time": row_time(0)}
        row = row if version else {key: value for key, value in row.items() if key != "index"}
        manifest = {"display_name": "Bash", "version": version, "created": row_time(0), "id": kata_id}
        manifest |= {"visible_files": files} if version else {}
        texts = {"manifest.json": json.dumps(manifest), "events.json": json.dumps(row) + ("" if version else "\n")}
        if not version:
            os.mkdir(directory / "0")
        texts["0.event.json" if version else "0/event.json"] = json.dumps({"files": files, **(row if version else {})})
        for name, text in texts.items():
            keys = [f"file {name} {digest(text.encode())}"] * ("/" not in name)
            self.write(kata_id, name, text, *keys, flags=os.O_CREAT | os.O_EXCL)
        self.heard(kata_id, "row 0", "files 0")

    @contextlib.contextmanager
    def mounted(self, *options: str) -> Iterator[None]:
        """Serve the store meanwhile."""
        self.mount = self.mount.with_name(f"{self.mount.name}+")
        mount = Mount(self.store, self.mount, "fast", ("--no-compact", *options))
        mount.expected_log = "."
        with mount:
            yield


# -- what was there before, and what is done; of each kata of the store something is expected


def two_layouts(store: Path) -> None:
    """A kata in each layout."""
    add_event(make_kata(store, NATIVE), 1)
    copy_kata("saver", store)


def plain_katas(store: Path) -> None:
    """A kata in each version."""
    for version, kata_id in PLAIN.items():
        make_plain_kata(store, kata_id, version, 3, events=3)


def many_packs(store: Path) -> None:
    """A kata that has nearly as many packs as are merged."""
    path = make_kata(store, NATIVE)
    for index in range(1, 14):
        add_event(path, index)


def quick(client: Client) -> None:
    """One event in each layout, an option, a creation."""
    with client.mounted():
        client.event(NATIVE, 2, index=2)
        client.event(SAVER, 6, index=6)
        client.option(NATIVE, "theme", "dark")
        create_kata(client.store, {"visible_files": {"a.txt": {"content": "text\n"}}}, MADE)
        client.heard(MADE, "row 0", "files 0", "commit 0", how="itself")


def events(client: Client) -> None:
    """An event with an edit before it, one that is sent again, one that goes back."""
    with client.mounted():
        for kata_id, last in ((NATIVE, 1), (SAVER, 5)):
            sent: dict[str, Any] = {"laptop_id": LAPTOP, "tab_seq": 1}
            client.event(kata_id, last + 1, index=last + 1)
            client.write(kata_id, "ran_tests", json.dumps(message({"hiker.sh": "edited\n"}, **sent)), f"row {last + 3}")
            client.write(kata_id, "ran_tests", json.dumps(message({"hiker.sh": "edited\n"}, **sent)), f"row {last + 2}")
            revert: dict[str, Any] = {"summary": {"colour": "red", "revert": [kata_id, 1]}}
            client.write(kata_id, "control/reverted", json.dumps(message({"a": "b"}, **revert)), f"files {last + 4}")


def outages(client: Client) -> None:
    """Few that were skipped, and so many that their tags are packed."""
    with client.mounted():
        for kata_id, last in ((NATIVE, 1), (SAVER, 5)):
            client.event(kata_id, *range(last + 1, last + 4), index=last + 3)
            client.event(kata_id, *range(last + 4, last + 15), index=last + 14)
            client.event(kata_id, last + 15, index=last + 15)


def options(client: Client) -> None:
    """Each option but those that are set already, and one that has the value already."""
    with client.mounted():
        for kata_id in (NATIVE, SAVER):
            client.option(kata_id, "colour", "off")
            client.option(kata_id, "predict", "on")
            client.option(kata_id, "colour", "off")


def creation(client: Client) -> None:
    """By the command, which is not told an id, and where the directories above are there."""
    for kata_id in (MADE, "NewNe2", "NewNe3"):
        create_kata(client.store, {"visible_files": {"a.txt": {"content": "text\n"}}}, kata_id)
        client.heard(kata_id, "row 0", "files 0", "commit 0", how="itself")


def plain_events(client: Client) -> None:
    """An event of services for plain files on a kata that is stored plain, and one that waits for its row."""
    with client.mounted():
        for version, kata_id in PLAIN.items():
            client.plain_event(kata_id, version, 3)
            client.plain_event(kata_id, version, 4, with_row=False)


def plain_creation(client: Client) -> None:
    """New katas of services for plain files, and an option."""
    with client.mounted():
        for version, kata_id in NEW_PLAIN.items():
            client.plain_kata(kata_id, version)
            client.write(kata_id, "theme", "\ndark", "option theme", flags=os.O_CREAT | os.O_APPEND)


def migration(client: Client) -> None:
    """The originals are removed in version 0, kept in version 1."""
    for version, kata_id in PLAIN.items():
        path = kata_path(client.store, kata_id)
        originals = {name.name: digest(name.read_bytes()) for name in path.iterdir() if name.is_file()}
        migrate_kata(path, kata_id, keep_originals=bool(version))
        client.heard(
            kata_id, f"{path.name} manifest.json {digest((path / 'manifest.json').read_bytes())}", how="itself"
        )
        if version:
            kept = (f".katafs-original {name} {digested}" for name, digested in originals.items())
            client.heard(kata_id, *kept, how="itself")


def merging(client: Client) -> None:
    """The packs of single events become one."""
    with client.mounted():
        for index in range(14, 18):
            client.event(NATIVE, index, index=index)


def compaction(client: Client) -> None:
    """Packs, loose objects and tags become a pack and ``packed-refs``, and events go on."""
    for kata_id in (NATIVE, SAVER):
        compact_kata(kata_path(client.store, kata_id), kata_id)
        with client.mounted():
            last = len(stored_rows(kata_path(client.store, kata_id)))
            client.event(kata_id, last, index=last)


def beside_git(client: Client) -> None:
    """git makes objects that it does not sync, and moves the branch; then katafs' event is acknowledged."""
    with client.mounted():
        for kata_id, index in BY_GIT.items():
            git_event(kata_path(client.store, kata_id), index, client.mount.with_name(f"index of {kata_id}"))
        for kata_id, index in BY_GIT.items():
            keys = [f"{kind} {index}" for kind in ("row", "files", "commit")]
            client.event(kata_id, index + 1, index=index + 1)
            # what the event was put on is in its history
            client.heard(kata_id, *keys)
            client.event(kata_id, index + 2, index=index + 2)


def git_event(path: Path, index: int, index_file: Path) -> None:
    """Record an event as saver does: object by object, with an index that is not in the store."""
    directory = f"--git-dir={path / '.git'}"

    def git(*arguments: object, text: str = "") -> str:
        command = ["git", directory, *map(str, arguments)]
        environment = {**os.environ, "GIT_INDEX_FILE": str(index_file)}
        run = subprocess.run(command, input=text, text=True, capture_output=True, check=True, env=environment)
        return run.stdout.strip()

    name = "events_summary.json" if "event.json" in git("ls-tree", "--name-only", "main").split() else "events.json"
    row = {"colour": "amber", "index": index, "time": row_time(60 * index)}
    rows = [*json.loads(git("show", f"main:{name}")), row]
    changes = {name: rows, "event.json": row} if name == "events_summary.json" else {name: rows}
    git("read-tree", "main")
    for changed, value in changes.items():
        blob = git("hash-object", "-w", "--stdin", text=pretty_json(value).decode())
        git("update-index", "--add", "--cacheinfo", f"100644,{blob},{changed}")
    blob = git("hash-object", "-w", "--stdin", text=f"by git {index}\n")
    git("update-index", "--add", "--cacheinfo", f"100644,{blob},files/by-git.txt")
    subject = f"{index} ran tests, no prediction, got amber"
    commit = git("commit-tree", "-p", "main", "-m", subject, git("write-tree"))
    git("update-ref", "refs/heads/main", commit)
    git("update-ref", f"refs/tags/{index}", commit)


@dataclass(frozen=True)
class Scenario:
    """What is there before, and what is then done and recorded."""

    make: Callable[[Path], None]
    act: Callable[[Client], None]
    #: the event of each kata that git records
    by_git: Mapping[str, int] = field(default_factory=dict)


SCENARIOS = {
    "quick": Scenario(two_layouts, quick),
    "events": Scenario(two_layouts, events),
    "outages": Scenario(two_layouts, outages),
    "options": Scenario(two_layouts, options),
    "creation": Scenario(two_layouts, creation),
    "plain events": Scenario(plain_katas, plain_events),
    "plain creation": Scenario(lambda store: None, plain_creation),
    "migration": Scenario(plain_katas, migration),
    "merging": Scenario(many_packs, merging),
    "compaction": Scenario(two_layouts, compaction),
    "beside git": Scenario(two_layouts, beside_git, BY_GIT),
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="katafs-power-mount-") as name:
        SCENARIOS[sys.argv[1]].act(Client(Path(sys.argv[2]), Path(name) / "mnt"))
