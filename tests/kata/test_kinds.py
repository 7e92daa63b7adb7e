"""Each kind of event is read back as what it was, whatever the layout stores of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from katafs.html.pages import sign
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.model.layouts import LAYOUTS, Layout
from katafs.kata.reader import Past
from katafs.kata.record.commit import record
from katafs.kata.record.create import create_kata
from katafs.kata.record.message import parse_act
from katafs.tree.dirs.control import explanation
from tests.katas import START

WRITTEN = [layout for layout in LAYOUTS.values() if layout.is_writable]


@pytest.mark.parametrize("layout", WRITTEN, ids=lambda layout: layout.name)
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_what_was_recorded_is_told(store: Path, kind: Kind, layout: Layout) -> None:
    manifest = {"display_name": "a", "exercise": "b", "visible_files": {"a.txt": {"content": "1\n"}}}
    create_kata(store, manifest, "AbCdEf", START, layout=layout)
    path = kata_path(store, "AbCdEf")
    example = explanation(kind, "AbCdEf", b"a.txt").split("\n\n")[1]
    committed = record(path, "AbCdEf", parse_act(kind, example.encode()))
    step = Past(path, "AbCdEf", committed.commit).steps[committed.index]
    assert step.type == kind.type, "nothing in its row says which kind it is"
    assert step.headline.startswith(kind.facts.from_where or kind.facts.headline)
    if kind.type != "test":
        assert sign(step) in {kind.facts.sign, "✗"}, "a light's sign goes before that of the kind"
