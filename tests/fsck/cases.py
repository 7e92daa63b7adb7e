"""Katas of both layouts to be damaged, and what ``katafs fsck`` and git say of them."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from katafs.kata.fsck import Finding, Outcome, check_ids, check_store
from katafs.kata.record.commit import set_option
from tests.katas import GitCommit, GitFile, add_event, git, import_commits, loosen, make_kata, row_time, stored_rows
from tests.scratch import fast_directory

KATA_ID = "FsckMe"
LAYOUTS = ("native", "saver")
LAST = 5  # the newest event of both
LONG_AGO = time.time() - 86_400


def saver_commits(last: int = LAST) -> list[GitCommit]:
    """A history as saver wrote it in 2021: indexes 2 and 3 are outages, an option is set after event 1."""
    rows: list[dict[str, object]] = [{"index": 0, "event": "created", "time": row_time(0)}]
    options = {"theme": "light", "colour": "on", "predict": "off"}
    options |= dict.fromkeys(("revert_red", "revert_amber", "revert_green"), "off")
    manifest = {"display_name": "Bash", "version": 2, "created": row_time(0), "id": KATA_ID}
    stored = {"manifest.json": manifest, "options.json": options, "README.md": None, "events.json": rows}
    commits: list[GitCommit] = []

    def commit(message: str, tags: Iterable[int], **more: bytes) -> None:
        data = {name: json.dumps(value, indent=2).encode() if value else b"README" for name, value in stored.items()}
        data |= more
        files = [GitFile("files/hiker.sh", b"echo %d\n" % len(commits)), *(GitFile(*item) for item in data.items())]
        commits.append(GitCommit(f"{message}\n", files, tuple(tags), len(commits)))

    commit("0 kata creation", [0])
    for index in (index for index in range(1, last + 1) if index not in (2, 3)):
        skipped = [2, 3] if index == 4 else []
        rows += [{"index": number, "event": "outage"} for number in skipped]
        rows.append({"colour": "red", "index": index, "time": row_time(60 * index)})
        output = {"stdout": b"out", "stderr": b"", "status": b"1"}
        commit(f"{index} ran tests, no prediction, got red", [*skipped, index], **output)
        if index == 1:
            options["theme"] = "dark"
            commit("set option theme to dark", [], **output)
    return commits


@functools.cache
def _made(layout: str) -> Path:
    """A kata that is made once for all tests."""
    store = Path(tempfile.mkdtemp(prefix="katafs-fsck-", dir=fast_directory()))
    if layout == "native":
        path = make_kata(store, KATA_ID)
        for index in range(1, LAST + 1):
            add_event(
                path, index, files={"hiker.py": f"{index}\n", "a/b.txt": "same\n"}, stdout={"content": f"{index}"}
            )
            if index == 1:
                set_option(path, KATA_ID, "theme", "dark")
        loosen(path)
        return path
    path = import_commits(store / "Fs" / "ck" / "Me", saver_commits())
    shutil.rmtree(path / ".git" / "hooks")
    (path / "manifest.json").write_bytes(git(path, "show", "main:manifest.json"))
    return path


def copy_kata(layout: str, store: Path) -> Path:
    """A kata of six events in ``store``, last written to a day ago."""
    path = store / "Fs" / "ck" / "Me"
    shutil.copytree(_made(layout), path)
    make_old(path)
    return path


def left(path: Path, code: str) -> Finding:
    """The one finding of a kind, which a repair leaves as it is."""
    before = references(path)
    (found,) = [finding for finding in check(path) if finding.code == code]
    (again,) = [finding for finding in check(path, repair=True) if finding.code == code]
    assert found == again
    assert found.state is Outcome.LEFT
    assert found.advice
    assert references(path) == before
    return found


def kept(path: Path) -> list[str]:
    """The commits that were kept when a repair took away what held them."""
    return git(path, "for-each-ref", "--format=%(objectname)", "refs/katafs/lost").decode().split()


def make_old(path: Path) -> None:
    """Nobody has written to what is in a directory for a day."""
    for parent, _, names in os.walk(path, topdown=False):
        for name in names:
            os.utime(Path(parent, name), (LONG_AGO, LONG_AGO), follow_symlinks=False)
        os.utime(parent, (LONG_AGO, LONG_AGO))


def check(path: Path, *, repair: bool = False, is_quick: bool = False, notes: bool = False) -> list[Finding]:
    """What fsck finds in the kata ``path``."""
    kata_id = "".join(path.parts[-3:])
    ((_, result),) = check_ids(path.parents[2], [kata_id], repair=repair, is_quick=is_quick)
    assert result.failure == ""
    return [finding for finding in result.findings if notes or finding.state is not Outcome.NOTE]


def check_all(store: Path, *, repair: bool = False, is_quick: bool = False) -> list[Finding]:
    """What fsck finds in a store."""
    results = [result for _, result in check_store(store, repair=repair, is_quick=is_quick)]
    assert [result.failure for result in results] == [""] * len(results)
    return [finding for result in results for finding in result.findings]


def codes(findings: Iterable[Finding]) -> list[tuple[str, Outcome]]:
    """Code and state of each finding, sorted."""
    return sorted(((finding.code, finding.state) for finding in findings), key=lambda pair: (pair[0], pair[1].value))


def references(path: Path) -> bytes:
    """``main``, ``HEAD`` and the tags of events, as git reads them."""
    shown = git(path, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads/main", "refs/tags")
    return shown + git(path, "symbolic-ref", "HEAD")


def take_advice(path: Path, found: Iterable[Finding]) -> bool:
    """Give up the newest events by the commands that fsck says; whether it says any."""
    commands = {
        line for finding in found for line in re.findall(r"; or, as the owner, give up .*?: (.*)$", finding.advice)
    }
    for command in (each for line in commands for each in line.split("; ")):
        assert command.startswith(("git ", "rm .git/"))
        subprocess.run(command.split(), cwd=path, capture_output=True, check=True)
    return bool(commands)


def assert_git_is_content(path: Path) -> None:
    """git finds nothing wrong in the kata."""
    command = ["git", "fsck", "--strict", "--full", "--no-dangling"]
    result = subprocess.run(command, cwd=path, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def assert_mended(path: Path, before: bytes, *expected: str, is_quick: bool = False) -> list[Finding]:
    """fsck finds just these, mends them, and all is as it was: the findings of the repair."""
    found = check(path, is_quick=is_quick)
    assert [code for code, _ in codes(found)] == sorted(expected), found
    assert any(finding.state is Outcome.FOUND for finding in found)
    mended = check(path, repair=True, is_quick=is_quick)
    assert {finding.state for finding in mended} == {Outcome.MENDED}, mended
    assert {finding.code for finding in mended} >= set(expected)
    assert check(path) == []
    assert references(path) == before
    assert_git_is_content(path)
    return mended


def git_event_on(path: Path, tip: str) -> bool:
    """Record an event of a native kata on a commit with the git command, as saver would; whether nobody was faster."""
    rows = stored_rows(path, tip)
    rows.append({"colour": "amber", "index": len(rows), "time": row_time(60 * len(rows)), "type": "test"})
    subject = f"{len(rows) - 1} ran tests, no prediction, got amber"
    stream = f"commit refs/heads/main\ncommitter o <o@example.com> now\ndata {len(subject)}\n{subject}\nfrom {tip}\n"
    for name, value in {"event.json": rows[-1], "events_summary.json": rows}.items():
        data = json.dumps(value)
        stream += f"M 100644 inline {name}\ndata {len(data)}\n{data}\n"
    command = ["git", "fast-import", "--quiet", "--date-format=now"]
    result = subprocess.run(command, cwd=path, input=stream.encode(), capture_output=True, check=False)
    if result.returncode:
        return False
    lines = git(path, "rev-list", "--first-parent", "--parents", "main").decode().splitlines()
    (commit,) = (line.split()[0] for line in lines if line.endswith(f" {tip}"))
    # katafs' next writer makes the tag too, when he sees none
    subprocess.run(["git", "tag", str(len(rows) - 1), commit], cwd=path, capture_output=True, check=False)
    return True
