"""Histories of katas as objects of git, with all that git allows in them."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.katas import git, git_files, pretty_json, row_time

#: a file (mode and bytes), a submodule (mode and id), or a directory
Entry = tuple[str, bytes | str]
Tree = dict[bytes, "Entry | Tree"]

_NAMES = (
    *(b"plain.txt", b"with space.txt", b"-dash", b"caf\xe9.txt", b"\xff\xfe\x80", b"new\nline", b"tab\there", b"*"),
    *(b"n" * 255, "grüße.txt".encode(), "e\u0301.txt".encode(), b"trailing ", b".hidden", b"back\\slash", b'"quote'),
    *(b"deep/" * 40 + b"end", b"a/b", b"a.b", b"a0b", b"a-b/c", b"HEAD", b"objects/info/x", b"refs/heads/main"),
)
_MODES = ("100644", "100755", "120000", "100664", "100644")
_WHO = ("k <k@cyber-dojo.org>", "K\u00f6nig <k@x>", "a, b. c <>", 'q"uote <k@x y>', "very " * 60 + "long <l@x>")
_ZONES = ("+0000", "-0930", "+1400", "-0000", "+0545")
_SIGNATURE = "-----BEGIN PGP SIGNATURE-----\n \n iQEzBAABCAAdFiEE\n tree 0000\n parent 1\n -----END PGP SIGNATURE-----"
_NO_COMMIT = "12" * 20
_KINDS = ("blob", "tree", "commit", "tag")


@dataclass
class History:
    """Objects that git is to store, and references. Ids are hex."""

    kinds: dict[str, dict[str, bytes]] = field(default_factory=lambda: {kind: {} for kind in _KINDS})
    references: dict[str, str] = field(default_factory=dict)

    def put(self, kind: str, data: bytes) -> str:
        """Note an object: its id."""
        oid = hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()
        self.kinds[kind][oid] = data
        return oid

    def tree(self, tree: Tree) -> str:
        """A tree with all that is below it, sorted as git does."""
        entries = []
        for name, value in tree.items():
            if isinstance(value, dict):
                mode, oid = "40000", self.tree(value)
            else:
                mode, content = value
                oid = content if isinstance(content, str) else self.put("blob", content)
            data = b"%b %b\0%b" % (mode.encode(), name, bytes.fromhex(oid))
            entries.append((name + b"/" * (mode == "40000"), data))
        return self.put("tree", b"".join(data for _, data in sorted(entries)))

    def commit(self, dice: random.Random, tree: str, parents: Sequence[str], message: str, at: int) -> str:
        """A commit with whatever headers git knows."""
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"{role} {dice.choice(_WHO)} {at} {dice.choice(_ZONES)}" for role in ("author", "committer")]
        encoding = "utf-8"
        if dice.random() < 0.2:
            encoding = "latin-1"
            lines.append("encoding ISO-8859-1")
        if dice.random() < 0.2:
            lines.append("gpgsig " + _SIGNATURE)
        if dice.random() < 0.1:
            lines.append(f"mergetag object {_NO_COMMIT}\n type commit\n tag x\n tagger k <k@x> 1 +0000\n \n a\n  b")
        if dice.random() < 0.1:
            lines.append("HG:extra source:1234")
        text = "\n".join([*lines, "", message + dice.choice(("", "\n", "\r\n\r\nbody\r\n", "\n\n\ntree 12\n"))])
        return self.put("commit", text.encode(encoding, "replace"))

    def annotate(self, kind: str, oid: str, name: str) -> str:
        """An annotated tag of an object."""
        return self.put("tag", f"object {oid}\ntype {kind}\ntag {name}\ntagger k <k@x> 1 +0000\n\nwhy {name}".encode())

    def store(self, path: Path, level: int) -> None:
        """Have git store all objects as loose ones, deflated at a level (-1 to 9)."""
        with tempfile.TemporaryDirectory() as directory:
            for kind, objects in self.kinds.items():
                files = []
                for oid, data in objects.items():
                    files.append(Path(directory, oid))
                    files[-1].write_bytes(data)
                if files:
                    command = ("-c", f"core.looseCompression={level}", "hash-object", "--literally", "-w", "-t", kind)
                    names = "".join(f"{file}\n" for file in files).encode()
                    assert git(path, *command, "--stdin-paths", stdin=names).decode().split() == list(objects)
        updates = "".join(f"update {name} {oid}\n" for name, oid in self.references.items())
        git(path, "update-ref", "--stdin", stdin=updates.encode())


def make_history(dice: random.Random, base: Path | None) -> History:
    """A history of a kata: native upon the one event of ``base``, or in saver's layout without one."""
    made = History()
    kept: Tree = {}
    if base is not None:
        for name, oid in git_files(base, "main").items():
            _place(kept, name, ("100644", oid))
    else:
        kept = {b"manifest.json": ("100644", pretty_json(MANIFEST)), b"README.md": ("100644", b"README")}
        options = dict.fromkeys(("predict", "revert_red", "revert_amber", "revert_green"), "off")
        kept[b"options.json"] = ("100644", pretty_json({"theme": "light", "colour": "on", **options}).rstrip())
    rows: list[dict[str, Any]] = []
    parents: list[str] = []
    files: Tree = {}
    tree = ""
    for index in range(dice.choice((1, 2, 4, 8, 20))):
        rows.append({"index": index, "event": "created", "time": row_time(0), "type": "created"})
        if index:
            rows[-1] = {"colour": dice.choice(("red", "amber", "green")), "index": index, "time": row_time(60 * index)}
            rows[-1]["type"] = "test"
        if base is None:
            rows[-1].pop("type")
        _change(dice, files, index)
        tree = made.tree(kept | _event(dice, rows, files, is_native=base is not None))
        parents = [made.commit(dice, tree, parents, f"{index} ran tests, größe", 1_770_000_000 + 60 * index)]
        _tag(dice, made, str(index), parents[0])
        if dice.random() < 0.15:
            side = made.commit(dice, tree, parents, "side", dice.choice((0, 1, 1 << 31, 4_102_444_800)))
            made.references[f"refs/heads/side{index}"] = side
            if dice.random() < 0.5:
                parents += [side]
    if len(parents) > 1 or dice.random() < 0.1:
        # as an option commit is: no event of its own
        parents = [made.commit(dice, tree, parents, "set option", 1_770_009_999)]
    made.references["refs/heads/main"] = parents[0]
    _others(dice, made, parents[0], tree)
    return made


MANIFEST = {"display_name": "C", "exercise": "Fizz", "version": 2, "created": row_time(0), "id": "AbCdEf"}


def _place(tree: Tree, path: bytes, entry: Entry) -> None:
    """Put a file into a tree; what is in its way goes."""
    *parents, name = path.split(b"/")
    for parent in parents:
        below = tree.get(parent)
        if not isinstance(below, dict):
            below = tree[parent] = {}
        tree = below
    tree[name] = entry


def _event(dice: random.Random, rows: list[dict[str, Any]], files: Tree, *, is_native: bool) -> Tree:
    """What an event has of its own."""
    # of the creation saver has none, and katafs has empty ones
    outputs = {b"stdout": b"", b"stderr": b"", b"status": b"0"} if len(rows) > 1 or is_native else {}
    if len(rows) > 1:
        outputs[b"stdout"] = dice.choice((b"", b"run %d\n" % len(rows), b"\xff\r\n"))
    truncations: dict[str, Any] = {"stdout": False, "stderr": False}
    if is_native:
        truncations = {"files": {}, **truncations, "status": False}
        outputs |= {b"events_summary.json": pretty_json(rows), b"event.json": pretty_json(rows[-1])}
    else:
        outputs[b"events.json"] = pretty_json(rows).rstrip()
    if b"stdout" in outputs:
        outputs[b"truncations.json"] = pretty_json(truncations)
    return {**{name: ("100644", data) for name, data in outputs.items()}, b"files": dict(files)}


def _change(dice: random.Random, files: Tree, index: int) -> None:
    """Change some files of an event, so that there is much for deltas, and many of them."""
    _place(files, b"hiker.py", ("100644", b"".join(b"line %d of %d\n" % (n, n // 9 * index) for n in range(300))))
    for name in dice.sample(_NAMES, dice.randrange(5)):
        _place(files, name, (dice.choice(_MODES), _content(dice, index)))
    if dice.random() < 0.1:
        files[b"submodule"] = ("160000", _NO_COMMIT)
    if dice.random() < 0.03:
        files[b"many"] = {b"%04d" % number: ("100644", b"%d" % (number % 9)) for number in range(600)}
    if len(files) > 3 and dice.random() < 0.3:
        del files[dice.choice(sorted(files))]


def _content(dice: random.Random, index: int) -> bytes:
    return dice.choice(
        (
            b"",
            b"no newline at the end",
            b"one\r\ntwo %d\r\n" % index,
            b"\0binary\xff" * 10,
            b"same\n" * 1000,
            dice.randbytes(dice.choice((1, 100, 5000, 70_000))),
            b"0123456789abcdef\n" * dice.choice((4096, 20_000)) + b"%d" % index,
        )
    )


def _tag(dice: random.Random, made: History, name: str, commit: str) -> None:
    """The tag of an event: the commit, an annotated tag of it, or one of such a tag."""
    kind, oid = "commit", commit
    for _ in range(dice.choice((0, 0, 0, 0, 1, 1, 2))):
        kind, oid = "tag", made.annotate(kind, oid, name)
    made.references[f"refs/tags/{name}"] = oid


def _others(dice: random.Random, made: History, tip: str, tree: str) -> None:
    """References beside those of a kata, and objects that none of them leads to."""
    others = [("refs/tags/v1.0", tip), ("refs/tags/007", tip), ("refs/notes/commits", tip), ("refs/stash", tip)]
    others += [("refs/tags/tree", tree), ("refs/remotes/origin/main", tip), ("refs/heads/12/34", tip)]
    made.references |= dict(dice.sample(others, dice.randrange(4)))
    for number in range(dice.choice((0, 0, 3, 30))):
        made.put("blob", b"nobody needs this %d\n" % number * 20)
    if dice.random() < 0.2:
        made.commit(dice, tree, [tip], "nobody's", 1_770_000_000)
