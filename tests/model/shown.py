"""What the mount shows of the model's events: native shapes, in whichever layout they are stored."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from tests.model.algebra import EDITS, OPTIONS, Json, Model
from tests.model.pretty import native_json


def shown_row(row: Json) -> Json:
    """A row as it is shown: with its type as the last key."""
    if "type" in row:
        return row
    by_key = {"revert": "reverted", "checkout": "checked_out"}
    type_ = next((by_key[key] for key in row if key in by_key), "test")
    type_ = row["colour"] if row.get("colour") in EDITS else row.get("event", type_)
    return {**row, "type": type_}


def shown_event(model: Model, index: int) -> dict[str, bytes]:
    """Every file of ``events/N/`` but the manifest."""
    rows = [shown_row(row) for row in model.rows[: index + 1]]
    tree = model.commits[model.tags[index]].tree
    shown = shown_tree(tree, without_run=has_no_run(tree, rows[-1]))
    return shown | {"event.json": native_json(rows[-1]), "events_summary.json": native_json(rows)}


def has_no_run(tree: Mapping[str, bytes], row: Json) -> bool:
    """Whether an event has no output of its own: an outage, and what saver creates."""
    return row["type"] == "outage" or "stdout" not in tree


def shown_tree(tree: Mapping[str, bytes], *, without_run: bool) -> dict[str, bytes]:
    """The files, outputs and options of a commit."""
    shown = {name: data for name, data in tree.items() if name.startswith(("files/", "config/"))}
    if "options.json" in tree:
        stored = json.loads(tree["options.json"])
        shown |= {f"config/{name}": f"{stored[name]}\n".encode() for name in OPTIONS}
    outputs = {"stdout": b"", "stderr": b"", "status": b"0"}
    shown |= outputs if without_run else {name: tree[name] for name in outputs}
    names = sorted((name[6:] for name in shown if name.startswith("files/")), key=str.encode)
    known = json.loads(tree["truncations.json"]) if "truncations.json" in tree and not without_run else {}
    # a file is listed if its event told of it: saver keeps no flags of files, and nobody has told of an outage's
    files = {name: known["files"][name] for name in names if name in known.get("files", {})}
    flags = {name: known.get(name, False) for name in outputs}
    return shown | {"truncations.json": native_json({"files": files, **flags})}


def shown_document(model: Model, index: int) -> bytes:
    """``events/N.json``, of any event but the first."""
    shown = shown_event(model, index)
    cut = json.loads(shown["truncations.json"])
    names = sorted((name[6:] for name in shown if name.startswith("files/")), key=str.encode)
    files = {name: _text(shown[f"files/{name}"], cut["files"].get(name, False)) for name in names}
    outputs = {name: _text(shown[name], cut[name]) for name in ("stdout", "stderr")}
    row = shown_row(model.rows[index])
    return native_json({"files": files, **row, **outputs, "status": shown["status"].decode()})


def _text(data: bytes, truncated: bool) -> Json:
    return {"content": data.decode(), "truncated": truncated}


def read_tree(directory: Path) -> dict[str, bytes]:
    """Every file below a directory, by its path."""
    paths = [Path(above, name) for above, _, names in os.walk(directory) for name in names]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}
