"""A kata as lively as real ones, to look at: all lights, predictions, renames, outages, reverts, outputs cut short."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import record
from katafs.kata.record.message import parse_act
from tests.katas import START, make_kata

_CASES = "".join(f"    def test_{n}(self):\n        self.assertEqual({n * n}, square({n}))\n\n" for n in range(12))
_FILES = {
    "square.py": "".join(f"def step_{n}(value):\n    return value * {n}  # the step\n\n" for n in range(14)),
    "test_square.py": f"import unittest\n\nfrom square import *\n\n\nclass TestSquare(unittest.TestCase):\n{_CASES}",
    "cyber-dojo.sh": "python -m unittest *test*.py\n",
    "readme.md": "Write a function that squares.\n",
}
_OUTPUT = "F.F\n======\nFAIL: test_7 (test_square.TestSquare)\n------\nAssertionError: 49 != 7\n\nRan 12 tests\n"


def make_lively_kata(store: Path, kata_id: str, events: int) -> Path:
    """A native kata of so many events, over some hours on two days. The same each time."""
    dice = random.Random(events)
    path = make_kata(store, kata_id, _FILES, "Lively Squares")
    files, now, index = dict(_FILES), START, 0
    while index < events:
        index += 1 + 2 * (index % 50 == 40 and index + 2 < events)
        now += timedelta(seconds=dice.uniform(9, 150) if index % 37 else 4_000 + 70_000 * (index % 74 == 0))
        before = dict(files)
        kind, more = _next(dice, kata_id, index, files)
        # what is created or renamed is told with the files as they were
        sent = before if kind in (Kind.FILE_CREATE, Kind.FILE_RENAME) else files
        shown = {name: {"content": content} for name, content in sent.items()}
        if index % 23 == 0:
            shown["square.py"]["truncated"] = True  # type: ignore[assignment]
        laptop = f"{int(index % 29 == 0):064x}"
        text = json.dumps({"index": index, "files": shown, "laptop_id": laptop, "tab_seq": index, **more})
        record(path, kata_id, parse_act(kind, text.encode()), now)
    return path


def _edit(dice: random.Random, files: dict[str, str], name: str) -> None:
    lines = files[name].splitlines(keepends=True)
    at = dice.randrange(len(lines))
    changed = [line.replace("value", f"value_{at}").replace("(self", "(this") for line in lines[at : at + 3]]
    lines[at : at + 3] = [*changed, f"    # case {dice.randrange(100)}\n"] if dice.random() < 0.5 else changed[1:]
    files[name] = "".join(lines) or "\n"


def _next(dice: random.Random, kata_id: str, index: int, files: dict[str, str]) -> tuple[Kind, Mapping[str, Any]]:
    if index % 9 == 5:
        _edit(dice, files, "square.py")
        if index % 2:
            for name in [name for name in files if name != "square.py"]:
                files[name] += f"# {index}\n"
        return Kind.FILE_EDIT, {}
    if index % 31 == 7:
        old = next(name for name in files if name.startswith(("readme", "docs/")))
        new = f"docs/notes-{index}.md"
        files[new] = files.pop(old)
        return Kind.FILE_RENAME, {"old_filename": old, "new_filename": new}
    if index % 41 == 11:
        files[f"extra_{index}.py"] = ""
        return Kind.FILE_CREATE, {"filename": f"extra_{index}.py"}
    colour = dice.choices(("red", "amber", "green", "timed_out", "faulty"), (40, 18, 36, 3, 1))[0]
    summary: dict[str, Any] = {"colour": colour, "duration": round(dice.uniform(0.4, 3), 3)}
    output = _OUTPUT * dice.randint(1, 12)
    more = {"summary": summary, "stdout": {"content": output, "truncated": index % 17 == 3}, "status": "1"}
    if index % 43 == 20:
        files.update(_FILES)
        return Kind.REVERTED, {**more, "summary": {"colour": colour, "revert": [kata_id, index // 2]}}
    for name in dice.sample(["square.py", "test_square.py"], dice.choice((0, 1, 1, 2))):
        _edit(dice, files, name)
    if index % 4 == 0 and colour in ("red", "amber", "green"):
        guess = colour if dice.random() < 0.6 else dice.choice(("red", "amber", "green"))
        kind = Kind.PREDICTED_RIGHT if guess == colour else Kind.PREDICTED_WRONG
        return kind, {**more, "summary": {**summary, "predicted": guess}}
    return Kind.RAN_TESTS, more
