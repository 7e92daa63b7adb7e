"""``katafs fsck``: damaged objects, what only a person can mend, and what is told without being wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from katafs.kata.fsck import Finding, State
from tests.fsck.cases import (
    KATA_ID,
    LAST,
    assert_git_is_content,
    assert_mended,
    check,
    codes,
    copy_kata,
    make_old,
    references,
    saver_commits,
)
from tests.katas import GitCommit, GitFile, git, git_commit, import_commits, stored_rows


def loose(path: Path, name: str) -> Path:
    """The file of a loose object."""
    oid = git(path, "rev-parse", name).decode().strip()
    return path / ".git" / "objects" / oid[:2] / oid[2:]


def cut(file: Path) -> None:
    """Cut a file to half its length, as a disk that was full does."""
    file.chmod(0o644)
    os.truncate(file, file.stat().st_size // 2)


def fill(file: Path, data: bytes) -> None:
    """Write other bytes into a file that nobody may write to."""
    file.chmod(0o644)
    file.write_bytes(data)


def left(path: Path, code: str) -> Finding:
    """The one finding of a kind, which a repair leaves as it is."""
    before = references(path)
    (found,) = [finding for finding in check(path) if finding.code == code]
    (again,) = [finding for finding in check(path, repair=True) if finding.code == code]
    assert found == again
    assert found.state is State.LEFT
    assert found.advice
    assert references(path) == before
    return found


# -- objects

HARM: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("object-missing", lambda file: file.unlink()),
    "empty": ("object-damaged", lambda file: fill(file, b"")),
    "cut": ("object-damaged", cut),
    "rubbish": ("object-damaged", lambda file: fill(file, b"rubbish")),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_object_is_told_with_what_it_touches(kata: Path, harm: str) -> None:
    code, damage = HARM[harm]
    listed = git(kata, "ls-tree", "-r", "--name-only", "main").decode().split()
    (name,) = (name for name in listed if name.startswith("files/hiker."))
    file = loose(kata, f"refs/tags/4:{name}")
    damage(file)
    make_old(kata)
    finding = left(kata, code)
    skipped = name.endswith(".sh")
    assert f": {name} of {'events 2-4' if skipped else 'event 4'} cannot be read" in finding.message
    assert file.parent.name + file.name in finding.message
    assert len(check(kata)) == 1
    assert check(kata, is_quick=True) == []


def test_a_damaged_tree(kata: Path) -> None:
    cut(loose(kata, f"refs/tags/{LAST}:files"))
    make_old(kata)
    assert f": files/ of event {LAST} cannot be read" in left(kata, "object-damaged").message


def test_a_damaged_root_tree(kata: Path) -> None:
    cut(loose(kata, "refs/tags/1^{tree}"))
    make_old(kata)
    assert ": everything of event 1 cannot be read" in left(kata, "object-damaged").message


def test_a_damaged_commit_breaks_the_history(kata: Path) -> None:
    """The events before it have their tags: they can be read, and nothing is taken away from them."""
    loose(kata, "refs/tags/4").unlink()
    make_old(kata)
    gone = "events 2-4" if "outage" in json.dumps(stored_rows(kata)) else "event 4"
    assert "events 0-4 cannot be found by it" in left(kata, "history-broken").message
    assert f": everything of {gone} cannot be read" in left(kata, "object-missing").message
    assert {code for code, _ in codes(check(kata))} == {"history-broken", "object-missing"}


def test_the_rows_of_the_tip(kata: Path) -> None:
    rows = "events_summary.json" if "events_summary" in git(kata, "ls-tree", "main").decode() else "events.json"
    cut(loose(kata, f"main:{rows}"))
    make_old(kata)
    assert "its events cannot be read" in left(kata, "events-unreadable").message
    assert f"{rows} of event" in left(kata, "object-damaged").message


def test_an_object_that_a_pack_has(kata: Path) -> None:
    before = references(kata)
    git(kata, "repack", "-a", "-q")
    file = loose(kata, "refs/tags/1^{tree}")
    cut(file)
    make_old(kata)
    assert_mended(kata, before, "object-damaged")
    assert not file.exists()
    assert len(os.listdir(kata / ".git" / "katafs-lost-found")) == 1


@pytest.mark.parametrize("harm", HARM)
def test_an_object_that_the_work_tree_has(kata: Path, harm: str) -> None:
    before = references(kata)
    code, damage = HARM[harm]
    file = loose(kata, "main:manifest.json")
    damage(file)
    make_old(kata)
    assert_mended(kata, before, code)
    assert file.stat().st_mode & 0o777 == 0o444


def test_a_damaged_pack(kata: Path) -> None:
    git(kata, "gc", "-q")
    (pack,) = (kata / ".git" / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = b"\xff" * 40
    pack.write_bytes(data)
    make_old(kata)
    found = check(kata, repair=True)
    assert {finding.code for finding in found} <= {"object-damaged", "object-missing", "history-broken"}
    assert {finding.state for finding in found} == {State.LEFT}
    assert "object-damaged" in {finding.code for finding in found}


def test_a_pack_without_an_index(kata: Path) -> None:
    git(kata, "gc", "-q")
    (index,) = (kata / ".git" / "objects" / "pack").glob("*.idx")
    index.unlink()
    make_old(kata)
    assert "git index-pack" in left(kata, "pack-without-index").advice


# -- rows and commits


def set_rows(path: Path, change: Callable[[list[dict[str, Any]]], object], subject: str = "by hand") -> None:
    """Commit other rows, as somebody might do by hand."""
    rows = stored_rows(path)
    change(rows)
    native = "events_summary.json" in git(path, "ls-tree", "main").decode()
    changes = {"events_summary.json" if native else "events.json": json.dumps(rows).encode()}
    if native:
        changes["event.json"] = json.dumps(rows[-1]).encode()
    assert git_commit(path, subject, changes)
    make_old(path)


def test_a_tip_that_a_pack_has(kata: Path) -> None:
    """Nothing of the events can be told before it is mended; all is well afterwards."""
    git(kata, "repack", "-a", "-q")
    for name in ("main", "main^{tree}"):
        cut(loose(kata, name))
    make_old(kata)
    assert {finding.state for finding in check(kata, repair=True)} == {State.MENDED}
    assert check(kata) == []


def test_rows_that_leave_a_gap(kata: Path) -> None:
    set_rows(kata, lambda rows: rows[-1].update(index=LAST + 2))
    finding = left(kata, "row-misplaced")
    assert f"row {LAST} of its events says index {LAST + 2}" in finding.message
    assert [finding.code for finding in check(kata)] == ["row-misplaced", "rows-differ"]


def test_a_row_twice(kata: Path) -> None:
    set_rows(kata, lambda rows: rows.insert(2, rows[1]))
    assert "row 2 of its events says index 1" in left(kata, "row-misplaced").message


def test_a_row_that_is_lost(kata: Path) -> None:
    set_rows(kata, lambda rows: rows.pop())
    assert f"commits of event {LAST}, the last row is {LAST - 1}" in left(kata, "commit-without-row").message


def test_a_row_without_a_commit(kata: Path) -> None:
    set_rows(kata, lambda rows: rows.append({"index": LAST + 1, "colour": "red", "type": "test"}))
    assert f"event {LAST + 1} has no commit of that number" in left(kata, "row-without-commit").message


def test_a_subject_of_another_event(kata: Path) -> None:
    set_rows(kata, lambda rows: rows.append({"index": LAST + 1, "colour": "red", "type": "test"}), "3 ran tests")
    assert "of event 3 follows" in left(kata, "commit-misplaced").message
    assert f"event {LAST + 1} has no commit" in left(kata, "row-without-commit").message


def test_rows_of_the_past_that_were_changed(kata: Path) -> None:
    set_rows(kata, lambda rows: rows[1].update(colour="green"))
    own = "1, 4-5" if "outage" in json.dumps(stored_rows(kata)) else "1-5"
    assert f"at the commits of events {own} the rows" in left(kata, "rows-differ").message


def test_event_json_of_another_event(store: Path) -> None:
    path = copy_kata("native", store)
    assert git_commit(path, "by hand", {"event.json": b"{}"})
    make_old(path)
    assert f"the last event, {LAST}" in left(path, "event-json-wrong").message


# -- the rest


def test_a_configuration_that_is_refused(kata: Path) -> None:
    (kata / ".git" / "config").write_text("[include]\npath = /nowhere\n")
    make_old(kata)
    before = references(kata)
    assert "move .git/config away" in left(kata, "config-refused").advice
    (kata / ".git" / "config").unlink()
    assert_mended(kata, before, "config-missing")


def test_a_copy_of_another_kata(kata: Path) -> None:
    other = kata.parent / "Xy"
    shutil.copytree(kata, other)
    make_old(other)
    assert KATA_ID in left(other, "manifest-id").message


def test_no_repository(kata: Path) -> None:
    shutil.rmtree(kata / ".git" / "objects")
    ((code, state),) = codes(check(kata, repair=True))
    assert (code, state) == ("not-a-repository", State.LEFT)


def test_a_repository_without_any_commit(store: Path) -> None:
    path = store / "Em" / "pt" / "Yy"
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    assert check(path) == []  # somebody may be making it
    make_old(path)
    assert "no commit with events is left" in left_empty(path).advice


def left_empty(path: Path) -> Finding:
    """The finding about a repository in which git has no references to compare."""
    (finding,) = check(path, repair=True)
    assert (finding.code, finding.state) == ("main-lost", State.LEFT)
    return finding


def test_what_is_no_plain_file(kata: Path) -> None:
    (kata / ".git" / "objects" / "zz").symlink_to("/etc")
    os.mkfifo(kata / ".git" / "pipe")
    make_old(kata)
    assert ".git/objects/zz and 1 more are no plain file" in left(kata, "odd-file").message


# -- told, and not wrong


def notes(path: Path) -> list[tuple[str, str]]:
    """Code and sentence of what is told of a kata in which nothing is wrong."""
    found = check(path, repair=True, notes=True)
    assert {finding.state for finding in found} <= {State.NOTE}
    return [(finding.code, finding.message) for finding in found]


def test_what_somebody_made(kata: Path, tmp_path: Path) -> None:
    git(kata, "branch", "feature-x")
    git(kata, "tag", "v1")
    git(kata, "tag", "-a", "-m", "annotated", "5.1")
    git(kata, "config", "core.fsmonitor", f"touch {tmp_path}/ran; true")
    git(kata, "config", "filter.x.clean", f"touch {tmp_path}/ran")
    git(kata, "config", "core.hooksPath", str(tmp_path))
    hook = kata / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    (kata / ".git/objects/info").mkdir(exist_ok=True)
    (kata / ".git/objects/info/alternates").write_text(f"{tmp_path}\n")
    (kata / ".git" / "refs" / "tags" / str(LAST)).unlink()
    make_old(kata)
    found = check(kata, repair=True, notes=True)
    assert [finding.code for finding in found if finding.state is State.MENDED] == ["tag-missing"]
    told = {code for code, _ in notes(kata)}
    assert told == {"hook", "config-unusual", "other-reference", "tag-other", "not-obeyed"}
    assert not (tmp_path / "ran").exists()


def test_an_annotated_tag_of_an_event(kata: Path) -> None:
    git(kata, "tag", "-f", "-a", "-m", "annotated", "4", "refs/tags/4^{commit}")
    make_old(kata)
    assert check(kata) == []


def test_the_hazards_of_old_versions(store: Path) -> None:
    """FORMAT hazards 1, 8 and 9: lost files, no files, bytes that are no text."""
    commits = saver_commits(LAST + 1)
    ignoring, empty, last = commits[-3:]
    commits[-3] = GitCommit(ignoring.message, [*ignoring.files, GitFile("files/.gitignore", b"*.o\n")], ignoring.tags)
    without = [file for file in empty.files if not file.path.startswith("files/")]
    commits[-2] = GitCommit(empty.message, without, empty.tags)
    commits[-1] = GitCommit(last.message, [*last.files, GitFile("files/latin.txt", b"\xe4\n")], last.tags)
    path = import_commits(store / "Fs" / "ck" / "Me", commits)
    (path / "manifest.json").write_bytes(git(path, "show", "main:manifest.json"))
    make_old(path)
    told = dict(notes(path))
    assert told.pop("gitignore").startswith("event 4 may lack the files")
    assert told.pop("no-files").startswith("event 5 has no files")
    assert told.pop("not-utf8").startswith("latin.txt is not UTF-8")
    assert told == {}
    assert_git_is_content(path)


def test_names_of_a_kata_do_not_reach_the_terminal(kata: Path) -> None:
    (kata / ".git" / "refs" / "heads" / "\x1b[31mred\n").write_text("rubbish\x1b[31m")
    make_old(kata)
    (finding,) = check(kata)
    assert finding.message.isprintable()
    assert "\\x1b[31mred\\n" in finding.message
