"""Every kind of event, without a mount: subjects, rows, files, and the three questions of where an event goes."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from katafs.errors import InvalidError, LateError
from katafs.git import GitRepo
from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import Committed, record
from katafs.kata.record.message import parse_act
from katafs.kata.record.placing import MOST_SKIPPED
from tests.katas import assert_sound, git, git_blobs, git_files, make_kata, repository_state, stored_rows, unpack

LAPTOP = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
FILES = {"hiker.py": "one\ntwo\n", "cyber-dojo.sh": "pytest\n"}


@pytest.fixture(params=["native", "saver"])
def kata(request: pytest.FixtureRequest, store: Path) -> Path:
    """A kata of each layout that is written, with the files `FILES` and one event after the first."""
    if request.param == "native":
        path = make_kata(store, "AbCdEf", FILES)
    else:
        shared: Path = request.getfixturevalue("shared_katas")
        unpack(shared / "saver-v2-rG63fy.tgz", store)
        path = store / "rG/63/fy"
        # whoever writes with git is its owner
        subprocess.run(["chown", "-R", f"{os.getuid()}:{os.getgid()}", path], check=True)
    act(path, "ran_tests", files=FILES, summary={"colour": "red"}, index=len(stored_rows(path)))
    return path


def act(path: Path, kind: str, files: Mapping[str, str] | None = None, **fields: Any) -> Committed:
    """Record something, by its control message."""
    if files is not None:
        fields["files"] = {name: {"content": content} for name, content in files.items()}
    return record(path, "".join(path.parts[-3:]), parse_act(Kind(kind), json.dumps(fields).encode()))


def files_at(path: Path, at: str) -> dict[str, str]:
    """The files of a commit."""
    found = {name[6:].decode(): oid for name, oid in git_files(path, at).items() if name.startswith(b"files/")}
    blobs = git_blobs(path, found.values())
    return {name: blobs[oid].decode() for name, oid in found.items()}


def subjects(path: Path, count: int) -> list[str]:
    """The newest subjects, the newest first, without their indexes."""
    lines = git(path, "log", f"-{count}", "--format=%s", "main").decode().splitlines()
    return [line.partition(" ")[2] for line in lines]


def is_native(path: Path) -> bool:
    return b"events_summary.json" in git_files(path, "main")


# kind, fields, subject, the row's own keys, its type
KINDS = [
    ("ran_tests", {"summary": {"colour": "amber"}}, "ran tests, no prediction, got amber", ["colour"], "test"),
    (
        "predicted_right",
        {"summary": {"duration": 1.5, "colour": "green", "predicted": "green"}},
        "ran tests, predicted green, got green",
        ["duration", "colour", "predicted"],
        "test",
    ),
    (
        "predicted_wrong",
        {"summary": {"colour": "red", "predicted": "green", "revert_if_wrong": "on"}},
        "ran tests, predicted green, got red",
        ["colour", "predicted", "revert_if_wrong"],
        "test",
    ),
    (
        "reverted",
        {"files": {"hiker.py": "1\n"}, "summary": {"colour": "red", "revert": ["AbCdEf", 1]}},
        'reverted to {"id":"AbCdEf","index":1}',
        ["colour", "revert"],
        "reverted",
    ),
    (
        "checked_out",
        {
            "files": {"hiker.py": "1\n"},
            "summary": {"colour": "red", "checkout": {"id": "AbCdEf", "index": 3, "avatarIndex": ""}},
        },
        'checked out {"id":"AbCdEf","index":3,"avatarIndex":""}',
        ["colour", "checkout"],
        "checked_out",
    ),
    ("file_create", {"filename": "a/é.txt"}, "created file a/é.txt", ["colour", "filename"], "file_create"),
    ("file_delete", {"filename": "hiker.py"}, "deleted file hiker.py", ["colour", "filename"], "file_delete"),
    (
        "file_rename",
        {"old_filename": "hiker.py", "new_filename": "b/c.py"},
        "renamed file hiker.py to b/c.py",
        ["colour", "old_filename", "new_filename"],
        "file_rename",
    ),
    (
        "file_edit",
        {"files": {"hiker.py": "1\n", "cyber-dojo.sh": "2\n"}},
        "edited file cyber-dojo.sh",
        ["colour", "filename"],
        "file_edit",
    ),
]


@pytest.mark.parametrize(("kind", "fields", "subject", "keys", "type_"), KINDS, ids=[kind[0] for kind in KINDS])
def test_subject_and_row(kata: Path, kind: str, fields: Any, subject: str, keys: list[str], type_: str) -> None:
    last = len(stored_rows(kata)) - 1
    committed = act(kata, kind, **fields, laptop_id=LAPTOP, tab_seq=4)
    assert assert_sound(kata) == committed.index == last + 1
    assert subjects(kata, 1) == [subject]
    row = stored_rows(kata)[-1]
    order = [*keys, "index", "time", "diff_added_count", "diff_deleted_count", "laptop_id", "tab_seq"]
    assert list(row) == ([*order, "type"] if is_native(kata) else order)
    assert row["colour"] == (kind if kind.startswith("file_") else fields["summary"]["colour"])
    assert row.get("type", type_) == type_
    assert {key: row[key] for key in fields.get("summary", {})} == fields.get("summary", {})


def test_files_of_file_events(kata: Path) -> None:
    """Each names what is done to the files that it comes with; the counts are those of the whole event."""
    act(kata, "file_create", FILES, filename="new/one.txt")
    assert files_at(kata, "main") == {**FILES, "new/one.txt": ""}
    act(kata, "file_rename", {**FILES, "new/one.txt": ""}, old_filename="new/one.txt", new_filename="two.txt")
    assert files_at(kata, "main") == {**FILES, "two.txt": ""}
    act(kata, "file_rename", None, old_filename="hiker.py", new_filename="deep/er/hiker.py")
    assert sorted(files_at(kata, "main")) == ["cyber-dojo.sh", "deep/er/hiker.py", "two.txt"]
    act(kata, "file_delete", None, filename="deep/er/hiker.py")
    assert files_at(kata, "main") == {"cyber-dojo.sh": "pytest\n", "two.txt": ""}
    counts = [(row["diff_added_count"], row["diff_deleted_count"]) for row in stored_rows(kata)[-4:]]
    assert counts == [(0, 0), (0, 0), (0, 0), (0, 2)]
    assert [git(kata, "show", f"main:{name}") for name in ("stdout", "stderr", "status")] == [b"", b"", b"0"]
    act(kata, "file_delete", None, filename="cyber-dojo.sh")
    act(kata, "file_delete", None, filename="two.txt")
    assert files_at(kata, "main") == {}
    act(kata, "file_create", None, filename="two.txt")
    assert files_at(kata, "main") == {"two.txt": ""}
    assert_sound(kata)


WRONG = [
    ("file_create", {"filename": "hiker.py"}),
    ("file_create", {"filename": "hiker.py", "files": None}),
    ("file_create", {"filename": "dir", "files": {"dir/below.txt": ""}}),
    ("file_create", {"filename": "hiker.py/below"}),
    ("file_delete", {"filename": "no.txt"}),
    ("file_delete", {"filename": "no/such.txt"}),
    ("file_delete", {"filename": "hiker.py", "files": {"other.txt": ""}}),
    ("file_rename", {"old_filename": "no.txt", "new_filename": "new.txt"}),
    ("file_rename", {"old_filename": "hiker.py", "new_filename": "cyber-dojo.sh"}),
    ("file_rename", {"old_filename": "hiker.py", "new_filename": "cyber-dojo.sh/hiker.py"}),
    ("file_edit", {"filename": "no.txt", "files": {"hiker.py": "edited"}}),
]


@pytest.mark.parametrize(("kind", "fields"), WRONG)
def test_file_events_that_do_not_go_with_the_files(kata: Path, kind: str, fields: Any) -> None:
    before = repository_state(kata)
    with pytest.raises(InvalidError, match=r"there |is a file"):
        act(kata, kind, **{"files": {**FILES, "large.txt": "not stored\n"}, **fields})
    assert repository_state(kata) == before, "not even objects are left of what was refused"


def test_a_file_that_becomes_a_directory(kata: Path) -> None:
    act(kata, "file_rename", None, old_filename="hiker.py", new_filename="hiker.py/inside")
    assert sorted(files_at(kata, "main")) == ["cyber-dojo.sh", "hiker.py/inside"]
    act(kata, "file_rename", None, old_filename="hiker.py/inside", new_filename="hiker.py")
    assert files_at(kata, "main") == FILES


# -- edits that nobody has recorded


EDITED = {"hiker.py": "one\n2\nthree\n", "cyber-dojo.sh": "pytest\n", "added.txt": "added\n"}


@pytest.mark.parametrize("kind", ["ran_tests", "predicted_right", "predicted_wrong"])
def test_edits_are_recorded_before_a_test_run(kata: Path, kind: str) -> None:
    summary = {"colour": "green", "predicted": "green"}
    output = {"content": "run", "truncated": True}
    before = git(kata, "rev-parse", "main").decode().strip()
    committed = act(kata, kind, EDITED, summary=summary, stdout=output, status="3", laptop_id=LAPTOP, tab_seq="9")
    edit, run = stored_rows(kata)[-2:]
    assert assert_sound(kata) == committed.index == run["index"]
    assert git(kata, "rev-parse", "main~2").decode().strip() == before
    assert subjects(kata, 2)[1] == "edited file hiker.py"
    assert (edit["colour"], edit["filename"]) == ("file_edit", "hiker.py")
    assert (edit["laptop_id"], edit["tab_seq"]) == (LAPTOP, "9")
    assert (edit["diff_added_count"], edit["diff_deleted_count"]) == (3, 1)
    assert (run["diff_added_count"], run["diff_deleted_count"]) == (0, 0)
    assert files_at(kata, "main~1") == files_at(kata, "main") == EDITED
    shown = [git(kata, "show", f"main~1:{name}") for name in ("stdout", "stderr", "status")]
    assert shown == [b"", b"", b"0"]
    assert json.loads(git(kata, "show", "main~1:truncations.json"))["stdout"] is False
    assert git(kata, "show", "main:stdout") == b"run"


def test_edits_are_recorded_before_file_events(kata: Path) -> None:
    last = len(stored_rows(kata)) - 1
    committed = act(kata, "file_create", EDITED, filename="new.txt")
    assert assert_sound(kata) == committed.index == last + 2
    assert files_at(kata, "main~1") == EDITED
    assert files_at(kata, "main") == {**EDITED, "new.txt": ""}


NO_EDITS = [
    ("ran_tests", {**FILES, "added.txt": "added\n"}, {}),
    ("ran_tests", {"hiker.py": FILES["hiker.py"]}, {}),
    ("ran_tests", FILES, {}),
    ("ran_tests", {"hiker.py/now/a/directory": "x"}, {}),
    ("reverted", EDITED, {"revert": ["AbCdEf", 0]}),
    ("checked_out", EDITED, {"checkout": {"id": "AbCdEf", "index": 0}}),
]


@pytest.mark.parametrize(("kind", "files", "more"), NO_EDITS)
def test_no_edits(kata: Path, kind: str, files: dict[str, str], more: dict[str, Any]) -> None:
    last = len(stored_rows(kata)) - 1
    assert act(kata, kind, files, summary={"colour": "red", **more}).index == last + 1
    assert files_at(kata, "main") == files


def test_with_an_index_nothing_is_recorded_before(kata: Path) -> None:
    last = len(stored_rows(kata)) - 1
    assert act(kata, "ran_tests", EDITED, summary={"colour": "red"}, index=last + 1).index == last + 1
    assert assert_sound(kata) == last + 1


def test_both_or_neither(kata: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second event cannot be made the first is not recorded, either."""
    refs = git(kata, "for-each-ref")
    with pytest.raises(InvalidError):
        act(kata, "file_delete", EDITED, filename="no.txt")
    assert git(kata, "for-each-ref") == refs
    with pytest.raises(InvalidError):
        act(kata, "file_create", {**EDITED, "there.txt": ""}, filename="there.txt")
    assert git(kata, "for-each-ref") == refs


def test_an_edit_that_edits_nothing(kata: Path) -> None:
    """Nothing is recorded, and the answer is the last event."""
    state = repository_state(kata)
    last = len(stored_rows(kata)) - 1
    committed = act(kata, "file_edit", FILES)
    assert (committed.index, committed.commit.hex()) == (last, git(kata, "rev-parse", "main").decode().strip())
    assert repository_state(kata) == state


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({**FILES, "added.txt": ""}, id="added"),
        pytest.param({"hiker.py": FILES["hiker.py"]}, id="removed"),
        pytest.param({"new.py": FILES["hiker.py"], "cyber-dojo.sh": FILES["cyber-dojo.sh"]}, id="renamed"),
    ],
)
def test_what_is_no_edit(kata: Path, files: dict[str, str]) -> None:
    """As in saver: nothing is recorded, and the answer says so; with a name, too."""
    state = repository_state(kata)
    last = len(stored_rows(kata)) - 1
    for name in ({}, {"filename": "hiker.py"}):
        committed = act(kata, "file_edit", files, **name)
        assert (committed.index, committed.is_new) == (last, False)
        assert "no file was edited" in committed.message
        assert repository_state(kata) == state


def test_an_edit_beside_files_that_are_added_and_removed(kata: Path) -> None:
    last = len(stored_rows(kata)) - 1
    assert act(kata, "file_edit", {"0.txt": "", "hiker.py": "edited\n"}).index == last + 1
    assert subjects(kata, 1) == ["edited file hiker.py"]


# -- reverts


def kata_id_of(kata: Path) -> str:
    return "".join(kata.parts[-3:])


@pytest.mark.parametrize("as_text", [False, True])
def test_a_revert_takes_the_files_of_the_event_that_it_names(kata: Path, as_text: bool) -> None:
    """With what is known of their being cut short; outputs and status are those of the message."""
    index = len(stored_rows(kata))
    cut = {"cut.txt": {"content": "cut", "truncated": True}}
    fields = {"files": cut, "summary": {"colour": "red"}, "stdout": {"content": "earlier"}, "index": index + 2}
    record(kata, kata_id_of(kata), parse_act(Kind.RAN_TESTS, json.dumps(fields).encode()))
    act(kata, "ran_tests", FILES, summary={"colour": "green"}, index=index + 3)
    for named, is_cut in ((index + 2, True), (index, False)):
        revert = [kata_id_of(kata), str(named) if as_text else named]
        committed = act(kata, "reverted", summary={"colour": "red", "revert": revert}, stdout={"content": "now"})
        assert len(stored_rows(kata)) == committed.index + 1
        assert files_at(kata, "main") == {"cut.txt": "cut"}
        assert git(kata, "show", "main:stdout") == b"now"
        if is_native(kata):
            known = json.loads(git(kata, "show", "main:truncations.json"))
            assert known["files"] == {"cut.txt": is_cut}, "of an outage nothing was cut short"


def test_a_revert_whose_event_is_not_there(kata: Path) -> None:
    state = repository_state(kata)
    for revert in (["000000", 0], [kata_id_of(kata), 99], [kata_id_of(kata), "99"]):
        with pytest.raises(InvalidError, match="no event"):
            act(kata, "reverted", summary={"colour": "red", "revert": revert})
    with pytest.raises(InvalidError, match="no files"):
        act(kata, "checked_out", summary={"colour": "red", "checkout": {"id": kata_id_of(kata), "index": 0}})
    assert repository_state(kata) == state
    # with files it is not looked up
    act(kata, "reverted", FILES, summary={"colour": "red", "revert": ["000000", 0]})


def test_the_first_of_two_events_is_repeated(kata: Path) -> None:
    """An edit that was recorded by itself, and one before a test run, may have one identity."""
    first = act(kata, "file_edit", EDITED, laptop_id=LAPTOP, tab_seq=1)
    again = {**EDITED, "hiker.py": "again\n"}
    act(kata, "ran_tests", again, summary={"colour": "red"}, laptop_id=LAPTOP, tab_seq=1)
    assert act(kata, "file_edit", EDITED, laptop_id=LAPTOP, tab_seq=1) == first


# -- repetitions


def test_a_repetition(kata: Path) -> None:
    """Answered with the event that there is, however it is sent again, and nothing is written."""
    message = {"summary": {"colour": "red"}, "laptop_id": LAPTOP, "tab_seq": 7}
    first = act(kata, "ran_tests", EDITED, **message)
    act(kata, "ran_tests", {"hiker.py": "later\n"}, summary={"colour": "green"}, laptop_id=LAPTOP, tab_seq=8)
    state = repository_state(kata)
    assert act(kata, "ran_tests", EDITED, **message) == first
    assert act(kata, "ran_tests", None, **message, index=1) == first, "before the index is looked at"
    assert act(kata, "ran_tests", {"other.txt": ""}, **message, index=99_999) == first
    assert repository_state(kata) == state


NEW = [
    {"laptop_id": OTHER, "tab_seq": 7},
    {"laptop_id": LAPTOP, "tab_seq": "7"},
    {"laptop_id": LAPTOP, "tab_seq": 8},
    {"laptop_id": LAPTOP, "tab_seq": None},
    {"laptop_id": None, "tab_seq": 7},
    {"laptop_id": LAPTOP},
    {"tab_seq": 7},
    {"laptop_id": LAPTOP, "tab_seq": 7, "summary": {"colour": "green"}},
]


@pytest.mark.parametrize("fields", NEW)
def test_no_repetition(kata: Path, fields: dict[str, Any]) -> None:
    first = act(kata, "ran_tests", None, summary={"colour": "red"}, laptop_id=LAPTOP, tab_seq=7)
    twice = [act(kata, "ran_tests", None, **{"summary": {"colour": "red"}, **fields}).index for _ in range(2)]
    is_known = fields.get("laptop_id") is not None and fields.get("tab_seq") is not None
    assert twice == [first.index + 1, first.index + (1 if is_known else 2)]


def test_no_repetition_of_nothing(kata: Path) -> None:
    """Two writers without a laptop_id, or without a tab_seq, are two writers."""
    for fields in ({"laptop_id": None, "tab_seq": 1}, {"laptop_id": LAPTOP, "tab_seq": None}, {}):
        indexes = [act(kata, "ran_tests", None, summary={"colour": "red"}, **fields).index for _ in range(2)]
        assert indexes[1] == indexes[0] + 1


# -- outages


def test_outages(kata: Path) -> None:
    """What was skipped has a row, and a tag, in the commit of the event after it."""
    last = len(stored_rows(kata)) - 1
    committed = act(kata, "ran_tests", EDITED, summary={"colour": "red"}, index=last + 4)
    assert committed.index == last + 4
    rows = stored_rows(kata)
    for index in range(last + 1, last + 4):
        outage = {"index": index, "event": "outage"}
        assert rows[index] == ({**outage, "type": "outage"} if is_native(kata) else outage)
    tip = git(kata, "rev-parse", "main").decode().strip()
    assert {git(kata, "rev-parse", f"refs/tags/{last + skipped}").decode().strip() for skipped in range(1, 5)} == {tip}
    assert subjects(kata, 1) == ["ran tests, no prediction, got red"]
    with pytest.raises(LateError):
        act(kata, "ran_tests", None, summary={"colour": "red"}, index=last + 2)
    assert act(kata, "ran_tests", None, summary={"colour": "red"}).index == last + 5


def test_the_most_that_is_skipped(kata: Path) -> None:
    """So many tags are written at once, into packed-refs, beside those that are there."""
    last = len(stored_rows(kata)) - 1
    state = repository_state(kata)
    with pytest.raises(InvalidError):
        act(kata, "ran_tests", None, summary={"colour": "red"}, index=last + 2 + MOST_SKIPPED)
    assert repository_state(kata) == state
    git(kata, "pack-refs", "--all")
    git(kata, "tag", "-a", "-m", "of somebody", "somebody", "main")
    git(kata, "pack-refs", "--all")
    before = git(kata, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/tags").decode()
    newest = last + 1 + MOST_SKIPPED
    assert act(kata, "ran_tests", None, summary={"colour": "red"}, index=newest).index == newest
    after = git(kata, "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)", "refs/tags").decode()
    assert set(before.splitlines()) <= set(after.splitlines())
    tip = git(kata, "rev-parse", "main").decode().strip()
    added = set(after.splitlines()) - set(before.splitlines())
    assert added == {f"refs/tags/{index} {tip} " for index in range(last + 1, newest + 1)}
    assert git(kata, "fsck", "--strict", "--no-dangling") == b""
    repo = GitRepo(kata)
    assert all(repo.tag(index) is not None for index in range(newest + 1))
    assert act(kata, "ran_tests", None, summary={"colour": "red"}).index == newest + 1


def test_missing_tags_of_outages_are_made(kata: Path) -> None:
    """A crash came before the tags."""
    last = len(stored_rows(kata)) - 1
    tips = [git(kata, "rev-parse", "main").decode().strip()]
    for step in (3, 20):
        act(kata, "ran_tests", None, summary={"colour": "red"}, index=last + step)
        tips.append(git(kata, "rev-parse", "main").decode().strip())
    git(kata, "pack-refs", "--all", "--no-prune")
    for index in range(last, last + 21):
        git(kata, "update-ref", "-d", f"refs/tags/{index}")
    act(kata, "ran_tests", None, summary={"colour": "red"})
    named = [git(kata, "rev-parse", f"refs/tags/{last + step}").decode().strip() for step in range(21)]
    assert named == [tips[0]] + [tips[1]] * 3 + [tips[2]] * 17
