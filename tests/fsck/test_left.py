"""``katafs fsck``: what only a person can mend, and what is told without being wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from katafs.kata.fsck import Finding, Outcome
from tests.fsck.cases import (
    KATA_ID,
    LAST,
    assert_git_is_content,
    assert_mended,
    check,
    codes,
    copy_kata,
    left,
    make_old,
    references,
    saver_commits,
)
from tests.katas import GitCommit, GitFile, git, git_commit, import_commits, stored_rows

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


def test_rows_that_leave_a_gap(kata: Path) -> None:
    set_rows(kata, lambda rows: rows[-1].update(index=LAST + 2))
    finding = left(kata, "row-misplaced")
    assert f"row {LAST} of its events says index {LAST + 2}" in finding.message
    assert [finding.code for finding in check(kata)] == ["row-misplaced"]


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


def test_event_json_of_another_event(store: Path) -> None:
    path = copy_kata("native", store)
    assert git_commit(path, "by hand", {"event.json": b"{}"})
    make_old(path)
    assert f"the last event, {LAST}" in left(path, "event-json-wrong").message


# -- the rest


def test_a_configuration_that_is_refused(kata: Path) -> None:
    before = references(kata)
    (kata / ".git" / "config").write_text("#" * 70_000)
    make_old(kata)
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
    assert (code, state) == ("not-a-repository", Outcome.LEFT)


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
    assert (finding.code, finding.state) == ("main-lost", Outcome.LEFT)
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
    assert {finding.state for finding in found} <= {Outcome.NOTE}
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
    assert [finding.code for finding in found if finding.state is Outcome.MENDED] == ["tag-missing"]
    told = {code for code, _ in notes(kata)}
    assert told == {"other-reference", "tag-other", "not-obeyed"}
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
    assert "␛[31mred␊" in finding.message


# -- what is whole, and more than a mount shows


def test_files_that_are_too_deep_to_be_shown(kata: Path) -> None:
    """git has no such bound, and a mount says EIO."""
    assert git_commit(kata, "by hand", {"files/" + "d/" * 70 + "a.txt": b"a\n"})
    make_old(kata)
    found = left(kata, "files-unreadable")
    assert f"the files of event {LAST} are not shown: " in found.message
    assert "too deep" in found.message


def test_a_tip_that_is_too_large_to_be_read(kata: Path) -> None:
    """A message of 20 MiB: what a mount shows of such a kata is its ``.git`` alone."""
    commit = git(kata, "cat-file", "commit", "main") + b"x" * (20 << 20)
    oid = git(kata, "hash-object", "-t", "commit", "-w", "--stdin", stdin=commit).decode().strip()
    git(kata, "update-ref", "refs/heads/main", oid)
    git(kata, "tag", "-f", str(LAST), oid)
    make_old(kata)
    assert "are too many" in left(kata, "events-unreadable").message


def test_a_tree_that_is_whole_and_malformed(kata: Path) -> None:
    """Its bytes have its id, but a mode in it is none: git stops at it, too."""
    files = git(kata, "rev-parse", "main:files").decode().strip()
    entry = bytes.fromhex(git(kata, "rev-parse", "main:manifest.json").decode())
    data = b"10x644 a.txt\0" + entry
    oid = git(kata, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=data).strip()
    root = git(kata, "cat-file", "tree", "main^{tree}").replace(bytes.fromhex(files), bytes.fromhex(oid.decode()))
    tree = git(kata, "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=root).decode().strip()
    commit = git(kata, "commit-tree", tree, "-p", "main", "-m", "by hand").decode().strip()
    git(kata, "update-ref", "refs/heads/main", commit)
    make_old(kata)
    assert f"object {oid.decode()} " in left(kata, "object-damaged").message
