"""Control messages: what is accepted and what it means, what is refused; strict JSON, and JSON as it is written."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katafs.errors import InvalidError
from katafs.kata.model.kinds import Act, Kind, Text
from katafs.kata.model.trees import MAX_DEPTH, MAX_PATHS, is_git_name
from katafs.kata.record.message import check_path, parse_act, parse_files
from katafs.text import decode, parse_strict, pretty, pretty_bytes
from tests.katas import git

LAPTOP = "0123456789abcdef" * 4
SMALLEST: dict[str, Any] = {"summary": {"colour": "red"}}


def parse(**fields: Any) -> Act:
    """The smallest message, with these fields put in."""
    return parse_act(Kind.RAN_TESTS, json.dumps({**SMALLEST, **fields}).encode())


def test_the_smallest_message() -> None:
    event = parse()
    assert (event.colour, event.files, event.index, event.laptop_id, event.tab_seq) == ("red", None, None, None, {})
    assert (event.stdout, event.stderr, event.status) == (Text(b""), Text(b""), "0")
    assert event.subject(7) == "7 ran tests, no prediction, got red"


def test_a_full_message() -> None:
    event = parse(
        index=7,
        files={"hiker.py": {"content": "é\n", "truncated": True}, "a/b.txt": {"content": ""}},
        stdout={"content": "out", "truncated": True},
        stderr={"content": "\0"},
        status=-1,
        laptop_id=LAPTOP,
        tab_seq="3",
    )
    assert event.files == {b"hiker.py": Text("é\n".encode(), truncated=True), b"a/b.txt": Text(b"")}
    assert (event.stdout, event.stderr) == (Text(b"out", truncated=True), Text(b"\0"))
    assert (event.status, event.index, event.laptop_id, event.tab_seq) == ("-1", 7, LAPTOP, {"tab_seq": "3"})


def test_summary_keys_keep_their_order() -> None:
    summary = {"zeta": 1, "colour": "green_special", "alpha": {"b": [1, 2], "a": None}, "predicted": "none"}
    assert list(parse(summary=summary).summary.items()) == list(summary.items())


@pytest.mark.parametrize("tab_seq", [None, 0, -3, "", "3"])
def test_tab_seq_is_kept_as_it_came(tab_seq: int | str | None) -> None:
    assert parse(tab_seq=tab_seq).tab_seq == {"tab_seq": tab_seq}


@pytest.mark.parametrize(
    "colour", ["red", "amber", "green", "timed_out", "faulty", "pulling", "red_special", "timed_out_special"]
)
def test_colours_of_a_test_run(colour: str) -> None:
    assert parse(summary={"colour": colour}).colour == colour


DEEPEST: Any = None
for _ in range(62):
    DEEPEST = [DEEPEST]

WRONG: dict[str, dict[str, Any]] = {
    "summary": {
        "not an object": [],
        "null": None,
        "no colour": {},
        "colour null": {"colour": None},
        "colour empty": {"colour": ""},
        "colour capital": {"colour": "Red"},
        "colour with a newline": {"colour": "red\n"},
        "colour long": {"colour": "r" * 41},
        **{f"colour {name}": {"colour": name} for name in ("create", "created", "outage", "file_edit", "file_rename")},
        **{
            f"reserved {name}": {"colour": "red", name: None}
            for name in ("index", "event", "type", "laptop_id", "tab_seq", "diff_added_count", "diff_deleted_count")
        },
        "deep": {"colour": "red", "x": [DEEPEST]},
    },
    "index": {"negative": -1, "bool": True, "float": 1.0, "text": "1", "null": None, "long": 10**40},
    "files": {
        "array": [],
        "null": None,
        "text": {"a": "content"},
        "no content": {"a": {}},
        "content null": {"a": {"content": None}},
        "content array": {"a": {"content": ["line\n"]}},
        "truncated number": {"a": {"content": "", "truncated": 0}},
        "truncated null": {"a": {"content": "", "truncated": None}},
        "unknown key": {"a": {"content": "", "mode": 1}},
        "file and directory": {"a": {"content": ""}, "a/b": {"content": ""}},
        "directory and file": {"a/b/c": {"content": ""}, "a/b": {"content": ""}},
    },
    "stdout": {"text": "text", "null": None, "no content": {"truncated": True}, "unknown key": {"content": "", "x": 1}},
    "stderr": {"number": 1, "content number": {"content": 1}},
    "status": {"text": "red", "empty": "", "float": 1.5, "bool": False, "null": None, "plus": "+1", "blank": "1 "},
    "laptop_id": {"short": "ab", "capital": "A" * 64, "long": "a" * 65, "number": 1, "newline": "a" * 64 + "\n"},
    "tab_seq": {"float": 1.5, "bool": True, "array": []},
    "unknown": {"key": 1},
    "filename": {"of another control file": "a"},
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}, {name}")
        for field, cases in WRONG.items()
        for name, value in cases.items()
    ],
)
def test_wrong_values(field: str, value: Any) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(**{field: value})
    assert caught.value.errno_name == "EINVAL"


def test_the_deepest_message() -> None:
    assert parse(summary={"colour": "red", "x": DEEPEST}).summary["x"] == DEEPEST


@pytest.mark.parametrize("data", [b"{}", b'{"files": {}}', b"[]", b"1", b'"text"', b"null"])
def test_a_message_is_an_object_with_a_summary(data: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_act(Kind.RAN_TESTS, data)


# -- names of files

GOOD_NAMES = [
    *("a", ".hidden", "...", "-dash", "with space", "quote\"'", "tab\t", "new\nline", "back\\slash", "grüße/日本.txt"),
    *(
        "a:b",
        "*?",
        "~",
        "git",
        ".github/x",
        ".gitignore",
        ".gitkeep",
        "git~",
        "gi7",
        ".gitx",
        "x.git",
        "\x7f",
        "a\u0301",
    ),
    *("n" * 255, "/".join("d" * MAX_DEPTH), "é" * 127, "e\u200dx"),
]
NO_NAMES = [
    *("", "/", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "a/.", "./a", "a/..", "nul\0", "a/\0"),
    *("n" * 256, "é" * 128, "/".join("d" * (MAX_DEPTH + 1)), "/".join(["d" * 200] * 6)),
]
# what git itself objects to, on one system or another
GIT_NAMES = [
    *(".git", ".GIT", ".Git", "git~1", "GIT~1", ".git.", ".git ", ".git...", ".git . ", ".git:stream", ".git::$INDEX"),
    *("a\\.git", "a\\git~1", "a\\b\\.git ", ".git\\x", ".g\u200cit", "\u200e.git", ".gi\ufefft"),
]
CAUTION = [".gitmodules", ".GITMODULES", "gitmod~1", "GI7EBA~1", ".gitmodules ", "a\\.gitmodules", "git~2"]


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_good_names(name: str) -> None:
    assert check_path(name) == name.encode()


@pytest.mark.parametrize("name", [*NO_NAMES, *GIT_NAMES, *CAUTION])
def test_no_names(name: str) -> None:
    with pytest.raises(InvalidError):
        check_path(name)


@pytest.mark.parametrize("name", [*GIT_NAMES, *CAUTION])
@pytest.mark.parametrize("path", ["{}/config", "a/{}", "a/{}/b"])
def test_names_of_git_anywhere_in_a_path(name: str, path: str) -> None:
    with pytest.raises(InvalidError):
        parse(files={path.format(name): {"content": ""}})


def objections(path: Path, name: str) -> bool:
    """Whether git's fsck objects to a tree with a file of that name."""
    git(path, "init", "-q")
    blob = git(path, "hash-object", "-w", "--stdin").strip()
    git(path, "mktree", "-z", stdin=b"100644 blob %s\t%s\0" % (blob, name.encode()))
    said = subprocess.run(["git", "fsck", "--strict"], cwd=path, capture_output=True, check=False).stderr
    return b"in tree" in said


def test_git_agrees(tmp_path: Path) -> None:
    """fsck objects to each of these names and to none of the good ones: our list is git's."""
    for number, name in enumerate(GIT_NAMES):
        (tmp_path / str(number)).mkdir()
        assert objections(tmp_path / str(number), name), name
    (tmp_path / "good").mkdir()
    for name in (name for name in GOOD_NAMES if "/" not in name):
        assert not objections(tmp_path / "good", name), name


@given(st.text(alphabet=".giIt~12:\\ \u200c\u0130a", max_size=8))
def test_names_without_git_are_let_through(name: str) -> None:
    """The short way for most names says what the long way says."""
    assert is_git_name(name) == is_git_name("\u200c" + name)


def test_too_many_files() -> None:
    names = [str(number) for number in range(MAX_PATHS - 1)]
    text = {"content": ""}
    assert len(parse_files(dict.fromkeys([*names, "one"], text))) == MAX_PATHS
    with pytest.raises(InvalidError, match="more than"):
        parse_files(dict.fromkeys([*names, "directory/one"], text))


# -- JSON


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b'{"a":}', b'{"a" 1}', b"{'a':1}", b"{}x", b'{"a":1,}', b'{"a":01}', b'{"a":.5}', b'{"a":"\n"}'),
        *(b'{"a":1,"a":1}', b'{"b":{"a":1,"\\u0061":2}}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}'),
        *(b'{"a":1e999}', b'{"a":-1e400}', b"\xef\xbb\xbf{}", b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"\xc3":1}'),
        *(
            b'{"a":"\\ud800"}',
            b'{"\\udfff":1}',
            b'{"a":["\\ude00\\ud83d"]}',
            b'{"a":"\\x"}',
            b"1" * 41,
            b"-" + b"1" * 41,
        ),
        *(b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 10**5 + b"]" * 10**5, b"[" * 10**6),
    ],
    ids=lambda data: f"{data[:24]!r} {len(data)}",
)
def test_what_is_no_strict_json(data: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_strict(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b' {"a": [1, -2.5, 1e3, true, null, {}]}\r\n', {"a": [1, -2.5, 1000.0, True, None, {}]}),
        (b'{"a":"\\ud83d\\ude00\\u0000"}', {"a": "\U0001f600\0"}),
        (b"9" * 40, 10**40 - 1),
        (b"[" * 64 + b"]" * 64, None),
    ],
    ids=["all types", "escapes", "a long number", "deep"],
)
def test_strict_json(data: bytes, value: Any) -> None:
    assert parse_strict(data) == value or value is None


def test_pretty() -> None:
    value: dict[str, Any] = {"a": [1, {"b": "é\u2028/\x01\x7f\t"}, []], "c": {}, "d": None, "e": -0.5, "f": 1e-05}
    expected = (
        '{\n  "a": [\n    1,\n    {\n      "b": "é\u2028/\\u0001\x7f\\t"\n    },\n    []\n  ],\n'
        '  "c": {},\n  "d": null,\n  "e": -0.5,\n  "f": 1e-05\n}'
    )
    assert pretty(value) == expected
    assert pretty_bytes(value) == expected.encode() + b"\n"
    assert pretty({"a": [1]}, indent="    ") == '{\n      "a": [\n        1\n      ]\n    }'
    assert pretty("\ud800") == '"\ufffd"'


@pytest.mark.parametrize(
    ("value", "text"), [(1e-05, "1.0e-05"), (1e20, "1.0e+20"), (1.5e-07, "1.5e-07"), (-2e30, "-2.0e+30"), (0.1, "0.1")]
)
def test_floats_as_ruby_prints_them(value: float, text: str) -> None:
    assert pretty([value], ruby=True) == f"[\n  {text}\n]"
    assert parse_strict(text.encode()) == value


@given(st.recursive(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9), st.lists, max_leaves=5))
def test_what_is_pretty_reads_back(value: Any) -> None:
    assert parse_strict(pretty(value, ruby=True).encode()) == value
    assert parse_strict(pretty_bytes(value)) == value


def test_decode() -> None:
    assert decode(b"\xc3\xa9\xff") == "é\ufffd"
