"""What the tests of diffs compare: FORMAT's vectors, files with something odd about them, random trees, builders."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from katafs.git import GitRepo, Oid
from tests.katas import git

# A content, or a mode and a content; the content of a submodule is an object id
File = bytes | tuple[int, bytes]
Files = Mapping[bytes, File]

LINES = b"one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\n"
EDITED = LINES.replace(b"four", b"vier")
LONG = b"".join(b"line %d of text\n" % (number * 7919 % 10007) for number in range(5000))
LONG_EDITED = re.sub(rb"line (\d*[014]) of", rb"\1. line, not", LONG)

# FORMAT §2.3: was → now | type | added deleted same | lines: = same, § section, each with its number
VECTORS: dict[str, tuple[Files, Files, str, tuple[int, int, int], str]] = {
    "create empty": ({}, {b"f": b""}, "created", (0, 0, 0), ""),
    "delete empty": ({b"f": b""}, {}, "deleted", (0, 0, 0), ""),
    "fill": ({b"f": b""}, {b"f": b"three\nlines\nadded"}, "changed", (3, 0, 0), "§0 +1 +2 +3"),
    "create": ({}, {b"f": b"something"}, "created", (1, 0, 0), "§0 +1"),
    "delete": ({b"f": b"two\nlines"}, {}, "deleted", (0, 2, 0), "§0 -1 -2"),
    "rename": ({b"plain": b"xxx"}, {b"copy": b"xxx"}, "renamed", (0, 0, 1), "=1"),
    "move up": ({b"a/b/plain": b"1\n2\n3\n4\n"}, {b"copy": b"1\n2\n3\n4\n"}, "renamed", (0, 0, 4), "=1 =2 =3 =4"),
    "rename empty": ({b"p": b""}, {b"a/b/q": b""}, "renamed", (0, 0, 0), ""),
    "rename, edit": ({b"h": b"a\nb\nc\nd"}, {b"k": b"a\nb\nX\nd"}, "renamed", (1, 1, 3), "=1 =2 §0 -3 +3 =4"),
    "put before": ({b"f": b"something"}, {b"f": b"more\nsomething"}, "changed", (1, 0, 1), "§0 +1 =2"),
    "append": ({b"f": b"something"}, {b"f": b"something\nmore"}, "changed", (1, 0, 1), "=1 §0 +2"),
    "insert": ({b"f": b"a\nc"}, {b"f": b"a\nB\nc"}, "changed", (1, 0, 2), "=1 §0 +2 =3"),
    "two places": (
        {b"f": b"k1\nk2\nk3\nk4"},
        {b"f": b"k1\nK2\nk3\nk4\nk5"},
        "changed",
        (2, 1, 3),
        "=1 §0 -2 +2 =3 =4 §1 +5",
    ),
    "newline added": ({b"f": b"a\nb"}, {b"f": b"a\nb\n"}, "changed", (0, 0, 0), ""),
    "blanks added": ({b"f": b"one\n"}, {b"f": b"one  \n"}, "changed", (0, 0, 0), ""),
    "CRLF to LF": ({b"f": b"a\r\nb\r\n"}, {b"f": b"a\nb\n"}, "changed", (0, 0, 0), ""),
    "blank in name": ({b"sp ace.txt": b"x"}, {b"sp ace.txt": b"y"}, "changed", (1, 1, 0), "§0 -1 +1"),
    "same": ({b"f": b"a\n", b"g": b""}, {b"f": b"a\n", b"g": b""}, "unchanged", (0, 0, 1), "=1"),
}

# FORMAT, "Row diff counts vectors": was → now | added deleted
COUNTS: dict[str, tuple[Files, Files, tuple[int, int]]] = {
    "append to unfinished line": ({b"f": b"a\nb"}, {b"f": b"a\nb\nc\nd"}, (2, 0)),
    "empty": ({b"f": LINES}, {b"f": b""}, (0, 10)),
    "delete": ({b"f": LINES}, {}, (0, 10)),
    "rename": ({b"f": LINES}, {b"g": LINES}, (0, 0)),
    "create empty": ({}, {b"f": b""}, (0, 0)),
    "change a line": ({b"f": LINES}, {b"f": EDITED}, (1, 1)),
    "revert": ({b"f": b"A\nB\nC\nd\n"}, {b"f": b"a\nb\nc\nd\n"}, (3, 3)),
    "several files": ({b"f": LINES, b"g": b"a\n"}, {b"f": EDITED, b"h/i": b"b\nc\n"}, (3, 2)),
    "nothing": ({b"f": LINES}, {b"f": LINES}, (0, 0)),
    "end of line, binary": ({b"f": b"a\n", b"g": b"a\0"}, {b"f": b"a \r\n", b"g": b"b\0"}, (0, 0)),
}

# Cases whose raw diff is git's to the byte
ODD: dict[str, tuple[Files, Files]] = {
    "nothing": ({b"f": LINES}, {b"f": LINES}),
    "no trees": ({}, {}),
    "renamed": ({b"f": LINES}, {b"g/f": LINES}),
    "renamed, edited": ({b"old name.txt": LINES}, {b"b": EDITED}),
    "renamed, edited, new mode": ({b"f": LINES}, {b"g": (0o100755, EDITED)}),
    "renamed, binary": ({b"f": b"\0" + LINES}, {b"g": b"\0" + EDITED}),
    "renamed, CRLF": ({b"f": LINES.replace(b"\n", b"\r\n")}, {b"g": EDITED}),
    "renamed over another": ({b"f": LINES, b"g": b"other\n"}, {b"g": LINES}),
    "deleted": ({b"f": LINES, b"g": b"a\n"}, {b"g": b"a\n"}),
    "files to nothing": ({b"f": LINES}, {}),
    "nothing to files": ({}, {b"f": LINES, b"g": b""}),
    "emptied": ({b"f": LINES, b"g": b""}, {b"f": b"", b"g": b"a\n"}),
    "empty ones": ({b"f": b""}, {b"g": b"", b"h": b""}),
    "CRLF": ({b"f": b"a\r\nb\r\nc\r\n"}, {b"f": b"a\r\nB\r\nc\n"}),
    "no final newline": (
        {b"f": b"a\nb", b"g": b"a\nb\n", b"h": b"a\nb"},
        {b"f": b"a\nb\n", b"g": b"a\nc", b"h": b"c\nb"},
    ),
    "trailing blanks": ({b"f": b"a\nb\n"}, {b"f": b"a  \nb\t\n"}),
    "one line": ({b"f": b"a"}, {b"f": b"b\n"}),
    "blank lines": ({b"f": b"\n\n\n"}, {b"f": b"\n\n\n\n"}),
    "nested": ({b"a/b/c": LINES, b"a/d": b"x\n"}, {b"a/b/c": EDITED, b"a/e/f": b"y\n", b"a/d": b"x\n"}),
    "file to directory": ({b"a": b"x\n", b"a.b": b"y\n"}, {b"a/b": b"z\n", b"a-b": b"w\n"}),
    "blank in name": ({b"sp ace.txt": b"a\n", b"d e/f": b"a\n"}, {b"sp ace.txt": b"b\n", b"d e/g": b"\n"}),
    "blank in name, empty": ({b"sp ace.txt": b""}, {b"sp ace.txt": b"", b"ano ther": b""}),
    "not ASCII": ({"grüße.txt".encode(): b"a\n", b"\xff\xfe": b"b\n"}, {"日本 x".encode(): LINES, b"\xff\xfe": b"\n"}),
    "renamed, not ASCII": ({"é".encode(): LINES}, {"日本".encode(): EDITED}),
    "C names": (
        {b'"q"': b"a\n", b"back\\slash": b"a\n", b"new\nline": b"", b"tab\t x": b"a\n"},
        {b'"q"': b"b\n", b"back\\slash": b"b\n", b"new\nline": b"\a", b"tab\t x": b"b\n"},
    ),
    "control names": ({}, {bytes([byte]): b"%d\n" % byte for byte in range(1, 256) if byte not in b"./"}),
    "executable": ({b"f": b"a\n", b"g": b"a\n"}, {b"f": (0o100755, b"a\n"), b"g": (0o100755, b"b\n")}),
    "odd modes": ({b"f": (0o100664, b"a\n"), b"g": (0o100600, b"a\n")}, {b"f": b"a\n", b"g": (0o100711, b"a\n")}),
    "symbolic link": ({b"f": (0o120000, b"a")}, {b"f": (0o120000, b"b"), b"g": (0o120000, b"x/y")}),
    "file to symbolic link": ({b"f": b"a\n", b"g": (0o120000, b"b")}, {b"f": (0o120000, b"a"), b"g": b"c\n"}),
    "file to symbolic link, and a copy": ({b"f": LINES}, {b"f": (0o120000, b"to"), b"g": EDITED}),
    "symbolic link to file, from another": ({b"f": (0o120000, b"to"), b"g": LINES}, {b"f": EDITED}),
    "short, half edited": ({b"f": b"one\ntwo\n"}, {b"g": b"one\nzwei, but longer\n"}),
    "two alike": ({b"a/x": LINES, b"b/y": LINES}, {b"c/y": LINES}),
    "long, renamed": ({b"f": LONG}, {b"g": LONG_EDITED}),
    "symbolic link, renamed": ({b"f": (0o120000, b"to")}, {b"g": (0o120000, b"to")}),
    "submodule": (
        {b"f": (0o160000, b"1" * 20), b"g": (0o160000, b"2" * 20)},
        {b"f": (0o160000, b"3" * 20), b"h": b"a\n"},
    ),
    "binary": ({b"f": b"a\0b", b"h": b"a\0"}, {b"f": b"a\0c" * 99, b"g": bytes(range(256)), b"i": b""}),
    "text to binary": ({b"f": LINES}, {b"f": LINES + b"\0"}),
    "NUL far from the start": ({b"f": b"a\n" * 4000 + b"\0\n"}, {b"f": b"b\n" + b"a\n" * 4000 + b"\0\n"}),
    "markers in text": ({b"f": b"--- a\n+++ b\n@@ -1 +1 @@\n"}, {b"f": b"--- a\n\\ No newline at end of file\n"}),
    "not UTF-8": ({b"f": b"\xff\n\xe2\x82\n"}, {b"f": b"\xfe\n\xe2\x82\n"}),
    "other line ends": ({b"f": "a\rb\x0bc\u2028d\x85\n".encode()}, {b"f": "a\rb\x0bc\u2028e\x85\n".encode()}),
    "attributes": (
        {b".gitattributes": b"* -diff\n", b"f": b"a\n", b"sub/.gitattributes": b"* binary\n", b"sub/f": b"a\n"},
        {b".gitattributes": b"* binary\n", b"f": b"b\n", b"sub/.gitattributes": b"* binary\n", b"sub/f": b"b\n"},
    ),
}


def new_repository(path: Path) -> GitRepo:
    """An empty repository."""
    pygit2.init_repository(path)
    return GitRepo(path)


def raw(repo: GitRepo) -> pygit2.Repository:
    """The repository as pygit2 opens it: katafs itself has no use for all that."""
    return pygit2.Repository(str(repo.git_dir))


def put(repo: GitRepo, files: Files) -> Oid | None:
    """Store a ``files`` tree, with any names and modes; None for no files."""
    return _put_tree(repo, files) if files else None


def put_root(repo: GitRepo, files: Oid | None) -> str:
    """Store the tree above, for the git command: its id in hexadecimal."""
    return str(raw(repo).odb.write(ObjectType.TREE, b"40000 files\0" + files if files else b""))


def _put_tree(repo: GitRepo, files: Files) -> Oid:
    below: dict[bytes, dict[bytes, File]] = {}
    rows: list[tuple[bytes, bytes]] = []
    for path, file in files.items():
        name, slash, rest = path.partition(b"/")
        if slash:
            below.setdefault(name, {})[rest] = file
        else:
            mode, content = (0o100644, file) if isinstance(file, bytes) else file
            oid = content if mode == 0o160000 else bytes(raw(repo).create_blob(content).raw)
            rows.append((name, b"%o %s\0%s" % (mode, name, oid)))
    rows += [(name + b"/", b"40000 %s\0%s" % (name, _put_tree(repo, inside))) for name, inside in below.items()]
    return bytes(raw(repo).odb.write(ObjectType.TREE, b"".join(row for _, row in sorted(rows))).raw)


def git_diff(repo: GitRepo, was: str, now: str) -> bytes:
    """What git prints for two trees with ``files/`` in them, or for two tags."""
    options = "-U1000000", "--find-renames", "--binary", "--no-color", "--no-ext-diff"
    return git(repo.git_dir, "diff", *options, was, now, "--", "files/")


_NAMES = (b"a", b"b.txt", b"c d.txt", b"e/f", b"e/g h", b"e/i/j", "é".encode(), b"k\xff", b'l"', b"m\\", b"n\to")
_WORDS = (
    b"def answer():",
    b"    return 6 * 9",
    b"",
    b"{",
    b"}",
    b"    x += 1;",
    b"a\r",
    b"b  ",
    "日本".encode(),
    b"\xff",
)


def random_trees(rnd: random.Random) -> tuple[dict[bytes, File], dict[bytes, File]]:
    """Two trees, the second made from the first: files deleted, moved, edited (a little, so that git and libgit2 agree
    on what was renamed) and added."""
    was: dict[bytes, File] = {name: _content(rnd) for name in rnd.sample(_NAMES, rnd.randrange(7))}
    now: dict[bytes, File] = {}
    for name, content in was.items():
        assert isinstance(content, bytes)
        changed = _edited(rnd, content) if rnd.random() < 0.6 else content
        match rnd.randrange(5):
            case 0:
                pass
            case 1:
                now.setdefault(rnd.choice(_NAMES), changed)
            case 2:
                now[name] = rnd.choice((0o100644, 0o100755)), changed
            case _:
                now[name] = changed
    if rnd.random() < 0.4:
        now.setdefault(rnd.choice(_NAMES), b"" if rnd.random() < 0.2 else _content(rnd))
    return was, now


def _content(rnd: random.Random) -> bytes:
    tag = b"%d" % rnd.randrange(10**9)
    lines = [rnd.choice(_WORDS) + rnd.choice((b"", tag)) for _ in range(rnd.choice((12, 20, 60)))]
    start = b"\0" if rnd.random() < 0.1 else b""
    return start + tag + b"\n" + b"\n".join(lines) + rnd.choice((b"", b"\n"))


def _edited(rnd: random.Random, content: bytes) -> bytes:
    lines = content.split(b"\n")
    for _ in range(rnd.randrange(1, 2 + len(lines) // 12)):
        at = rnd.randrange(1, len(lines))
        lines[at : at + rnd.randrange(2)] = [rnd.choice(_WORDS)] * rnd.randrange(3)
    return b"\n".join(lines)
