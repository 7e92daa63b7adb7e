"""Plain katas for tests, with every quirk of FORMAT §1.1 and §1.2: the same ones for the same seed.

What was written is remembered in a model that knows nothing of katafs.
"""

from __future__ import annotations

import json
import os
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.katas import time_ns

NAMES = (
    "hiker.py",
    "test_hiker.py",
    "cyber-dojo.sh",
    "report/coverage.txt",
    "a/b/c/deep.txt",
    "grüße/日本.txt",
    "with space.txt",
    "empty.txt",
    ".hidden",
    "CMakeLists.txt",
)
COLOURS = ("red", "amber", "green", "timed_out", "faulty", "pulling", "red_special", "green_special")
TEXTS = (
    "",
    "\n",
    "one line",
    "one\ntwo\n",
    "x\n\n\n",
    'tab\tand \\ and "quotes"\n',
    "Zeile ä\r\nnoch eine\r\n",
    "\u2028\x0b\x0c\n",
)


@dataclass
class Written:
    """A kata as it was written: its events by index, and the options that were set."""

    kata_id: str
    path: Path
    version: int
    events: dict[int, dict[str, Any]] = field(default_factory=dict)
    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def last(self) -> int:
        return max(self.events)

    def name(self, index: int) -> str:
        """The path of an event's file."""
        return f"{index}.event.json" if self.version else f"{index}/event.json"

    def document(self, index: int) -> dict[str, Any]:
        """What the file of an event holds, as JSON; ``content`` as text, the status as a string."""
        return comparable({**self.events[index], **(self.rows[index] if self.version else {})})

    def texts(self, index: int) -> dict[str, str]:
        """The files of an event."""
        return {name: "".join(value["content"]) for name, value in self.events[index]["files"].items()}


def comparable(document: dict[str, Any]) -> dict[str, Any]:
    """An event file without the differences that INTERFACE §3 allows."""
    texts = {
        name: {key: "".join(item) if key == "content" else item for key, item in value.items()}
        for name, value in document["files"].items()
    }
    rest: dict[str, Any] = {key: value for key, value in document.items() if key not in ("files", "status")}
    for name in ("stdout", "stderr"):
        if name in rest:
            rest[name] = {**rest[name], "content": "".join(rest[name]["content"])}
    return {"files": texts, **rest} | ({"status": str(document["status"])} if "status" in document else {})


def parse_rows(text: str) -> list[dict[str, Any]]:
    """The rows of an ``events.json`` of either version, each with its keys in order."""
    decoder, rows, at = json.JSONDecoder(), [], 0
    while at < len(text):
        if text[at] in " ,\n":
            at += 1
            continue
        row, at = decoder.raw_decode(text, at)
        rows.append(row)
    return rows


class _Maker:
    """Makes one kata from one seed."""

    def __init__(self, store: Path, kata_id: str, version: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.written = Written(kata_id, store / kata_id[:2] / kata_id[2:4] / kata_id[4:], version)
        self.now = datetime(2019, 1, 16, 12, 44, 55, tzinfo=UTC) + timedelta(days=seed % 700, microseconds=seed * 7919)
        self.files = dict.fromkeys(NAMES[:3], "start\n")
        # some writers pretty-print, and leave a newline (FORMAT §1.2)
        self.style: dict[str, Any] = {"indent": 2} if self.random.random() < 0.25 else {"separators": (",", ":")}
        self.newline = "\n" if self.random.random() < 0.25 else ""

    def moment(self) -> list[int]:
        self.now += timedelta(seconds=self.random.randrange(3, 3000), microseconds=self.random.randrange(1_000_000))
        return [*self.now.timetuple()[:6], self.now.microsecond]

    def text(self, content: str, *, truncated: bool | None = None) -> dict[str, Any]:
        lines = re.findall("[^\n]*\n|[^\n]+", content) or [""]
        text: dict[str, Any] = {"content": content if self.written.version else lines}
        return text if truncated is None else {**text, "truncated": truncated}

    def some_files(self, *, first: bool) -> dict[str, Any]:
        if not first:
            for name in self.random.sample(NAMES, 3):
                if name in self.files and self.random.random() < 0.3:
                    del self.files[name]
                else:
                    self.files[name] = self.random.choice(TEXTS) * self.random.randrange(1, 4)
        flags = [None] * 6 + [False, True]
        return {
            name: self.text(content, truncated=None if first else self.random.choice(flags))
            for name, content in self.random.sample(sorted(self.files.items()), len(self.files))
        }

    def row(self, index: int, time: list[int]) -> dict[str, Any]:
        choose = self.random.random
        row: dict[str, Any] = {"duration": self.random.choice((0.491393, 1.5, 1e-05, 12.0))} if choose() < 0.9 else {}
        row["colour"] = self.random.choice(COLOURS)
        if choose() < 0.7:
            row["predicted"] = self.random.choice(("none", "red", "amber", "green"))
        if choose() < 0.4:
            row["revert_if_wrong"] = self.random.choice(("on", "off"))
        if choose() < 0.1:
            row = {"colour": "green", "revert": [self.written.kata_id, 0]}
        elif choose() < 0.1:
            row["checkout"] = {"id": self.written.kata_id, "index": 0, "avatarIndex": self.random.choice((3, ""))}
        if not self.written.version:
            return self.shuffled({**row, "time": time})
        row = {**row, "index": index, "time": time}
        return self.shuffled(row) if choose() < 0.3 else row

    def shuffled(self, row: dict[str, Any]) -> dict[str, Any]:
        return dict(self.random.sample(list(row.items()), len(row)))

    def add_event(self, index: int) -> None:
        kata, time = self.written, self.moment()
        event: dict[str, Any] = {"files": self.some_files(first=index == 0)}
        if index == 0:
            kata.rows[0] = (
                {"index": 0, "time": time, "event": "created"} if kata.version else {"event": "created", "time": time}
            )
        else:
            kata.rows[index] = self.row(index, time)
            for name in ("stdout", "stderr"):
                if self.random.random() < 0.95:
                    flag = self.random.choice((False, False, False, True, None))
                    event[name] = self.text(self.random.choice(TEXTS), truncated=flag)
            if self.random.random() < 0.95:
                event["status"] = self.random.choice((0, 1, 137, "0", "2"))
        kata.events[index] = event
        whole = {**event, **(kata.rows[index] if kata.version else {})}
        path = kata.path / kata.name(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(whole, ensure_ascii=self.random.random() < 0.3, **self.style) + self.newline)
        os.utime(path, ns=(0, time_ns(time)))
        self.append(kata.rows[index])

    def append(self, row: dict[str, Any]) -> None:
        path = self.written.path / "events.json"
        text = json.dumps(row, separators=(",", ":"))
        before = path.read_text() if path.exists() else ""
        path.write_text(f"{before}{text}\n" if not self.written.version else f"{before},\n{text}" if before else text)

    def add_option(self) -> None:
        name = self.random.choice(("theme", "colour", "predict", "revert_red", "revert_amber", "revert_green"))
        values = ("dark", "light") if name == "theme" else ("on", "off")
        known = self.written.options.setdefault(name, [])
        value = self.random.choice([one for one in values if one != (known or [""])[-1]])
        path = self.written.path / name
        with open(path, "a") as file:
            file.write(f"\n{value}" * (1 if known else 2))
        known.append(value)
        os.utime(path, ns=(0, int(self.now.timestamp()) * 1_000_000_000 + 5))

    def add_manifest(self) -> None:
        kata = self.written
        manifest: dict[str, Any] = {"display_name": "Ruby, MiniTest", "filename_extension": [".rb"], "tab_size": 2}
        manifest |= {"exercise": self.random.choice(("ISBN", "Zahlen – größer", "", None)), "id": kata.kata_id}
        if kata.version:
            manifest |= {"version": 1, "visible_files": kata.events[0]["files"], "group_index": 27}
        elif self.random.random() < 0.5:
            manifest["version"] = 0
        kata.manifest = {**manifest, "created": kata.rows[0]["time"]}
        (kata.path / "manifest.json").write_text(json.dumps(kata.manifest))


def make_plain_kata(store: Path, kata_id: str, version: int, seed: int, events: int | None = None) -> Written:
    """A kata with all the quirks, or with ``events`` events in a row."""
    maker = _Maker(store, kata_id, version, seed)
    indexes = [0]
    for _ in range(maker.random.randrange(9) if events is None else events - 1):
        skipped = maker.random.choice((1, 1, 1, 1, 2, 5)) if events is None else 1
        indexes.append(indexes[-1] + skipped)
    if len(indexes) > 3 and events is None and maker.random.random() < 0.3:
        # written out of order (FORMAT §1.2)
        indexes[-1], indexes[-2] = indexes[-2], indexes[-1]
    for index in indexes:
        maker.add_event(index)
        if maker.random.random() < 0.3:
            maker.add_option()
    maker.add_manifest()
    if maker.random.random() < 0.25:
        with open(maker.written.path / "events.json", "a") as file:
            file.write("\n")
    return maker.written
