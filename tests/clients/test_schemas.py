"""The JSON schemas in the docs say what katafs takes and shows: held against the parser of messages, and a mount."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest

from katafs.errors import KataError
from katafs.kata.model.kinds import Kind
from katafs.kata.record.message import parse_act
from tests.katas import serve_kata
from tests.model.hostile import messages
from tests.mounts import Mount, katafs

SCHEMAS = Path(__file__).resolve().parents[2] / "katafs/docs/schemas"
#: why a message that the schema takes is refused: what a schema does not know of JSON, and of paths
BEYOND = re.compile(
    "nested too deeply|lone surrogate|duplicate key|is not UTF-8|out of range|not a file name"
    "|both a file and a directory"
    # 1.0, which schemas take for an integer
    "|not a decimal number|not a whole number|tab_seq is not|which event of which kata"
)


def checker(file: str, name: str) -> Callable[[Any], bool]:
    """Whether something is as a definition of a schema says."""
    definitions = json.loads((SCHEMAS / file).read_text())["definitions"]
    validate = fastjsonschema.compile({"$ref": f"#/definitions/{name}", "definitions": definitions})

    def is_valid(document: Any) -> bool:
        try:
            validate(document)
        except fastjsonschema.JsonSchemaValueException:
            return False
        return True

    return is_valid


MESSAGE = {kind: checker("message.json", kind.value) for kind in Kind}


@pytest.fixture(scope="module")
def shown(fuse: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    top = tmp_path_factory.mktemp("schemas")
    katafs("demo", top / "store")
    with Mount(top / "store", top / "mnt", "fast", ()) as mount:
        yield mount


def test_messages() -> None:
    """Whatever is accepted is valid; what is valid and refused is so for what no schema says."""
    accepted = refused = 0
    for name, data in messages(1, 6_000):
        kind = Kind(name)
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            continue
        try:
            parse_act(kind, data)
            why = ""
        except KataError as error:
            why = str(error)
        if MESSAGE[kind](document):
            accepted += not why
            assert not why or BEYOND.search(why), (why, data)
        else:
            refused += 1
            assert why, data
    assert accepted > 1_000
    assert refused > 500


def test_the_examples_are_valid(shown: Mount) -> None:
    """What each control file says of itself before anything was written to it."""
    kata = serve_kata(shown)
    for kind in Kind:
        text = (kata.shown / "control" / kind.value).read_text()
        example = re.search(r"^(\{.*?\})\n\n", text, re.DOTALL | re.MULTILINE)
        assert example is not None, text
        assert MESSAGE[kind](json.loads(example.group(1))), text


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("row", "events/*/event.json"),
        ("rows", "events/*/events_summary.json"),
        ("truncations", "events/*/truncations.json"),
        ("event", "events/{}.json"),
        ("diff", "diff/0..{}.json"),
        ("diff_summary", "diff/0..{}.summary.json"),
    ],
)
def test_documents(shown: Mount, name: str, pattern: str) -> None:
    """Of every event of the demo: plain and native katas, outages, all kinds."""
    is_valid = checker("documents.json", name)
    paths: list[Path] = []
    for kata in shown.path.glob("??/??/??"):
        last = int((kata / "events/latest").readlink().name)
        paths += [kata / pattern.format(n) for n in range(last + 1)] if "{}" in pattern else kata.glob(pattern)
    assert len(paths) > 60
    for path in paths:
        document = json.loads(path.read_bytes())
        assert is_valid(document), path
        # without any one of the keys that it must have it is not
        one = document[0] if isinstance(document, list) else document
        del one["type" if "type" in one else "files"]
        assert not is_valid(document), path


def test_outcomes(shown: Mount) -> None:
    is_valid = checker("documents.json", "outcome")
    kata = serve_kata(shown)
    light = '"summary": {"colour": "red"}'
    for text in (f'{{{light}, "tab_seq": "7"}}', f'{{"index": 1, {light}}}', "[]", "{"):
        with contextlib.suppress(OSError):
            kata.ran_tests.write_text(text)
        outcome = kata.outcome()
        assert is_valid(outcome), outcome
        outcome.pop("index" if outcome["ok"] else "message")
        assert not is_valid(outcome)
