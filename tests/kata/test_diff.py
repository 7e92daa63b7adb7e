"""Diffs: saver's as FORMAT.md has them, git's to the byte, and ``git apply`` takes them."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pygit2
import pytest
from pygit2.enums import DeltaStatus, DiffOption, ObjectType

from katafs.errors import DamagedError, HeavyError
from katafs.git import Commit, GitRepo, Oid, TreeEntry
from katafs.git.format.stored import MODE_TREE
from katafs.kata.model.layouts import NATIVE
from katafs.kata.model.rows import Rows
from katafs.kata.model.trees import Root
from katafs.kata.read.snapshot import Snapshot, event_document
from katafs.kata.views import diff
from katafs.kata.views.diff import diff_summary, line_counts, raw_diff
from katafs.text import pretty
from tests.diff_cases import (
    COUNTS,
    EDITED,
    LINES,
    ODD,
    VECTORS,
    Files,
    git_diff,
    new_repository,
    put,
    put_root,
    random_trees,
    raw,
)
from tests.katas import git, tags_of

GIT_VERSION = tuple(map(int, re.findall(rb"\d+", git(Path("/"), "version"))[:2]))


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[GitRepo]:
    pygit2.settings.enable_fsync_gitdir(False)  # which would be most of the time these tests take
    yield new_repository(tmp_path / "kata")
    pygit2.settings.enable_fsync_gitdir(True)


def diff_lines(repo: GitRepo, was: Oid | None, now: Oid | None) -> Any:
    """As who reads ``diff/W..N.json`` has it: in the layout of all JSON."""
    printed = pretty(diff.diff_lines(repo, was, now))
    value = json.loads(printed)
    assert pretty(value) == printed
    return value


def both(repo: GitRepo, was: Files, now: Files) -> tuple[bytes, bytes]:
    """What katafs and git say."""
    old, new = put(repo, was), put(repo, now)
    return raw_diff(repo, old, new), git_diff(repo, put_root(repo, old), put_root(repo, new))


# -- as saver says it


@pytest.mark.parametrize("name", VECTORS)
def test_vectors(repo: GitRepo, name: str) -> None:
    was, now, kind, counts, brief = VECTORS[name]
    entry = diff_lines(repo, put(repo, was), put(repo, now))[0]
    assert entry["type"] == kind
    assert entry["old_filename"] == (None if kind == "created" else min(was).decode())
    assert entry["new_filename"] == (None if kind == "deleted" else min(now).decode())
    assert tuple(entry["line_counts"].values()) == counts
    signs = {"same": "=", "deleted": "-", "added": "+", "section": "§"}
    assert (
        " ".join(signs[line["type"]] + str(line.get("number", line.get("index"))) for line in entry["lines"]) == brief
    )


def test_the_json_example(repo: GitRepo) -> None:
    was, now = put(repo, {b"m.c": b"k1\nk2\nk3\nk4"}), put(repo, {b"m.c": b"k1\nK2\nk3\nk4\nk5"})
    # the keys in this order
    expected = (
        '{"type":"changed","old_filename":"m.c","new_filename":"m.c","line_counts":{"added":2,"deleted":1,"same":3},'
        '"lines":[{"type":"same","line":"k1","number":1},{"type":"section","index":0},'
        '{"type":"deleted","line":"k2","number":2},{"type":"added","line":"K2","number":2},'
        '{"type":"same","line":"k3","number":3},{"type":"same","line":"k4","number":4},'
        '{"type":"section","index":1},{"type":"added","line":"k5","number":5}]}'
    )
    (entry,) = diff_lines(repo, was, now)
    assert json.dumps(entry, separators=(",", ":")) == expected
    del entry["lines"]
    assert json.dumps(diff_summary(repo, was, now)) == json.dumps([entry])


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_a_row(repo: GitRepo, name: str) -> None:
    was, now, counts = COUNTS[name]
    assert line_counts(repo, put(repo, was), put(repo, now)) == counts


def test_unchanged_files_follow_in_path_order(repo: GitRepo) -> None:
    same = {b"a-b": b"1\n", b"a/b": b"2\n", b"a.b": b"3\n", b"z": b"4\n"}
    entries = diff_lines(
        repo, put(repo, {**same, b"y": b"", b"b": LINES}), put(repo, {**same, b"x": LINES, b"c": b"\n"})
    )
    assert [(entry["type"], entry["new_filename"]) for entry in entries] == [
        ("created", "c"),
        ("renamed", "x"),
        ("deleted", None),
        *(("unchanged", name) for name in ("a-b", "a.b", "a/b", "z")),
    ]


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a\n\n\n", ["a"]),
        (b"\na", ["", "a"]),
        (b"a\r\nb\rc\n", ["a\r", "b\rc"]),
        ("a\u2028b\x0b\x85\n".encode(), ["a\u2028b\x0b\x85"]),
        (b"\xff\n\xe2\x82\nx", ["\ufffd", "\ufffd", "x"]),
    ],
    ids=ascii,
)
def test_lines_of_unchanged_and_of_only_renamed_files(repo: GitRepo, content: bytes, lines: list[str]) -> None:
    was, now = put(repo, {b"f": content, b"g": content + b"x"}), put(repo, {b"f": content, b"h\xff": content + b"x"})
    renamed, unchanged = diff_lines(repo, was, now)
    assert (renamed["type"], renamed["old_filename"], renamed["new_filename"]) == ("renamed", "g", "h\ufffd")
    assert unchanged["lines"] == [{"type": "same", "line": line, "number": n + 1} for n, line in enumerate(lines)]
    assert unchanged["line_counts"] == {"added": 0, "deleted": 0, "same": len(lines)}


def test_a_rename_that_changes_only_blanks_shows_the_new_lines(repo: GitRepo) -> None:
    (entry,) = diff_lines(repo, put(repo, {b"f": LINES}), put(repo, {b"g": LINES.replace(b"one", b"one ")}))
    assert entry["line_counts"] == {"added": 0, "deleted": 0, "same": 10}
    assert entry["lines"][0] == {"type": "same", "line": "one ", "number": 1}


def saver_says(repo: GitRepo, was: Oid, now: Oid) -> list[tuple[Any, ...]]:
    """The changed files by libgit2's own patches and line objects, asked as saver asks (FORMAT §2.3)."""
    trees = [raw(repo)[pygit2.Oid(raw=oid)].peel(pygit2.Tree) for oid in (was, now)]
    diff = trees[0].diff_to_tree(trees[1], DiffOption.IGNORE_WHITESPACE_EOL, context_lines=60000)
    diff.find_similar()
    kinds = {DeltaStatus.ADDED: "created", DeltaStatus.DELETED: "deleted", DeltaStatus.RENAMED: "renamed"}
    signs = {" ": "same", "-": "deleted", "+": "added"}
    result = []
    for patch in diff:
        assert patch is not None
        lines = [
            (signs[line.origin], line.raw_content.removesuffix(b"\n").decode(errors="replace"), number)
            for hunk in patch.hunks
            for line in hunk.lines
            if line.origin in signs
            for number in [line.old_lineno if line.origin == "-" else line.new_lineno]
        ]
        same, added, deleted = patch.line_stats
        result.append((kinds.get(patch.delta.status, "changed"), added, deleted, same, lines))
    return result


def test_random_trees_are_as_saver_says(repo: GitRepo) -> None:
    rnd = random.Random(5)
    for _ in range(100):
        was, now = (put(repo, files) for files in random_trees(rnd))
        if was is None or now is None:
            continue
        entries = diff_lines(repo, was, now)
        changed = [entry for entry in entries if entry["type"] != "unchanged"]
        shown = []
        for entry in changed:
            lines = [tuple(line.values()) for line in entry["lines"] if line["type"] != "section"]
            filled = entry["type"] == "renamed" and not entry["line_counts"]["added"] + entry["line_counts"]["deleted"]
            counts = (0, 0, 0) if filled else tuple(entry["line_counts"].values())
            shown.append((entry["type"], *counts, [] if filled else lines))
        said = saver_says(repo, was, now)
        assert shown == said
        assert line_counts(repo, was, now) == (sum(one[1] for one in said), sum(one[2] for one in said))
        without = [{key: value for key, value in entry.items() if key != "lines"} for entry in entries]
        assert diff_summary(repo, was, now) == without


# -- as git says it


def test_all_pairs_of_a_real_kata(saver_kata: Path) -> None:
    repo = GitRepo(saver_kata)
    tags = tags_of(saver_kata)
    files = {}
    for index, commit in tags.items():
        entry = repo.entry(repo.commit(commit).tree, b"files")
        assert entry is not None
        files[index] = entry.oid
    for was in tags:
        for now in tags:
            expected = git_diff(repo, f"refs/tags/{was}", f"refs/tags/{now}")
            assert raw_diff(repo, files[was], files[now]) == expected


@pytest.mark.parametrize("name", ODD)
def test_cases_are_gits_to_the_byte(repo: GitRepo, name: str) -> None:
    was, now = ODD[name]
    for one, other in ((was, now), (now, was)):
        mine, theirs = both(repo, one, other)
        assert mine == theirs
        # nor do they stop the others
        diff_lines(repo, put(repo, one), put(repo, other))


def assert_applies(repo: GitRepo, was: Oid | None, now: Oid | None) -> None:
    """``git apply`` makes the one tree out of the other, and the other out of the one."""
    patch = raw_diff(repo, was, now)
    roots = put_root(repo, was), put_root(repo, now)
    # newer versions of git bring back a link or a submodule as a file, by patches of their own, too
    is_reversed = GIT_VERSION < (2, 44) or not re.search(rb"^deleted file mode 1[26]0000$", patch, re.MULTILINE)
    for options, start, end in (((), *roots), (("-R",), *roots[::-1]))[: 1 + is_reversed]:
        git(repo.git_dir, "read-tree", start)
        git(repo.git_dir, "apply", "--cached", "--allow-empty", *options, stdin=patch)
        assert git(repo.git_dir, "write-tree").decode().strip() == end


# An index, which git applies to, keeps no odd modes.
@pytest.mark.parametrize("name", [name for name in ODD if name != "odd modes"])
def test_git_applies_the_cases(repo: GitRepo, name: str) -> None:
    was, now = ODD[name]
    assert_applies(repo, put(repo, was), put(repo, now))


def comparable(patch: bytes) -> bytes:
    """A patch without what may be otherwise in any: a delta in place of a binary literal; from git 2.44 the figures."""
    patch = re.sub(rb"GIT binary patch\n(?:.+\n)+\n(?:.+\n)+\n", b"", patch)
    return patch if GIT_VERSION < (2, 44) else re.sub(rb"similarity index \d+%", b"", patch)


def test_random_trees_are_as_git_says(repo: GitRepo) -> None:
    rnd = random.Random(7)
    for number in range(60):
        was, now = random_trees(rnd)
        mine, theirs = both(repo, was, now)
        assert comparable(mine) == comparable(theirs)
        if number % 3 == 0:
            assert_applies(repo, put(repo, was), put(repo, now))


@pytest.mark.thorough
def test_a_rename_of_much_text(repo: GitRepo) -> None:
    """So many lines that git takes different ones for equal, and so long that "all" is a number above 2^16."""
    rnd = random.Random(3)
    lines = [b"%d" % rnd.randrange(10**9) for _ in range(140_000)]
    edited = [line if number % 50 else b"x" + line for number, line in enumerate(lines)]
    old, new = b"\n".join(lines) + b"\n", b"\n".join(edited) + b"\n"
    mine, theirs = both(repo, {b"f": old}, {b"g": new})
    equal = comparable(mine) == comparable(theirs)
    assert equal, "too long to be shown"
    assert b"similarity index" in mine
    assert line_counts(repo, put(repo, {b"f": old}), put(repo, {b"f": b"first\n" + old + b"last\n"})) == (2, 0)


# -- the differences from git that katafs.kata.views.diff lists


def test_renames_where_git_has_a_choice(repo: GitRepo) -> None:
    """Files of a few words, many of them alike, as git pairs them and libgit2 would not."""
    if GIT_VERSION >= (2, 44):
        pytest.skip("from git 2.44 on likeness is reckoned otherwise, and of equals others are chosen")
    rnd = random.Random(11)
    for _ in range(60):
        pool = [b"%d\n" % rnd.randrange(9) * rnd.randrange(4) + rnd.choice((b"", b"end", b"a\nb\n")) for _ in range(6)]
        names = [rnd.choice((b"", b"a/", b"b/")) + name for name in (b"f", b"g", b"h", b"i", b"j", b"k")]
        mine, theirs = both(
            repo,
            {name: rnd.choice(pool) for name in names},
            {b"c/" + rnd.choice((name, name[-1:])): rnd.choice(pool) + rnd.choice((b"", b"x\n")) for name in names},
        )
        assert comparable(mine) == comparable(theirs)


def test_a_binary_content_that_git_has_as_a_delta(repo: GitRepo) -> None:
    was, now = {b"f": bytes(550)}, {b"f": bytes(550) + b"x"}
    mine, theirs = both(repo, was, now)
    assert b"\nliteral 550\n" in mine
    assert b"\ndelta 7\n" in theirs
    assert comparable(mine) == comparable(theirs)
    assert_applies(repo, put(repo, was), put(repo, now))


def test_ids_have_7_digits_where_git_takes_more(repo: GitRepo) -> None:
    # the ids of both begin with 51d2738
    mine, theirs = both(repo, {b"f": b"4827\n"}, {b"f": b"11742\n"})
    assert mine != theirs
    assert mine == re.sub(rb"(index |\.\.)([0-9a-f]{7})[0-9a-f]+", rb"\1\2", theirs)


def test_attributes_and_configuration_change_nothing(repo: GitRepo) -> None:
    was: Files = {b".gitattributes": b"f binary\n", b"f": LINES, b"g": b"a \n", b"h": LINES}
    now: Files = {b".gitattributes": b"f binary\n", b"f": EDITED, b"g": b"a\n", b"i": EDITED}
    old, new = put(repo, was), put(repo, now)
    said = [ask(repo, old, new) for ask in (raw_diff, diff_lines, line_counts)]
    for path in (repo.git_dir / "info" / "attributes", repo.path / ".gitattributes", repo.path / "attributes"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("* binary\ni diff=evil\n")
    with (repo.git_dir / "config").open("a") as config:
        config.write(
            '[diff "evil"]\ncommand = touch evil\ntextconv = touch evil;\nbinary = true\nxfuncname = .\n'
            "[diff]\nrenames = false\nrenameLimit = 1\nnoprefix = true\ncontext = 0\nalgorithm = patience\n"
            "indentHeuristic = false\n"
            f"[core]\nabbrev = 12\nquotePath = false\nignoreCase = true\nattributesFile = {repo.path}/attributes\n"
        )
    hostile = GitRepo(repo.path)
    # libgit2 does obey them, asked in the ordinary way
    trees = [raw(hostile)[pygit2.Oid(raw=oid)].peel(pygit2.Tree) for oid in (old, new) if oid]
    assert "Binary files" in str(trees[0].diff_to_tree(trees[1]).patch)
    assert [ask(hostile, old, new) for ask in (raw_diff, diff_lines, line_counts)] == said
    assert not list(repo.path.rglob("evil"))


# -- trouble


def test_a_missing_or_damaged_object_is_said_so(repo: GitRepo) -> None:
    was, now = put(repo, {b"f": LINES, b"d/g": LINES}), put(repo, {b"e": EDITED, b"d/g": b"b\n"})
    for path in sorted((repo.git_dir / "objects").glob("??/*")):
        kept = path.read_bytes()
        path.chmod(0o644)
        # libgit2 itself would never come back from one that was cut short
        for damaged in (b"", b"damaged", kept[:2], kept[:10], kept[:-1], None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            for ask in (raw_diff, diff_lines, diff_summary, line_counts):
                with pytest.raises(DamagedError):
                    ask(GitRepo(repo.path), was, now)
        path.write_bytes(kept)
    raw_diff(GitRepo(repo.path), was, now)


def test_what_is_not_a_tree(repo: GitRepo) -> None:
    blob = bytes(raw(repo).create_blob(b"a").raw)
    for was, now in ((blob, None), (None, blob), (b"\1" * 20, None)):
        with pytest.raises(DamagedError):
            raw_diff(repo, was, now)


def test_trees_that_stand_for_very_many_files(repo: GitRepo) -> None:
    tree = put(repo, {b"%d" % number: b"a\n" for number in range(10)})
    for _ in range(9):
        rows = (b"40000 %d\0%s" % (number, tree) for number in range(10))
        tree = bytes(raw(repo).odb.write(ObjectType.TREE, b"".join(rows)).raw)
    for was, now in ((None, tree), (tree, put(repo, {b"0": b"a\n"}))):
        with pytest.raises(DamagedError):
            line_counts(repo, was, now)


def test_what_takes_long_is_heavy_before_it_has_taken_long(repo: GitRepo) -> None:
    """A few small trees, read once, stand for many files, of whose contents nothing must be read."""

    def tree(mode: bytes, oid: Oid) -> Oid:
        for entry_mode in (mode, b"40000", b"40000"):
            rows = (b"%s %c\0%s" % (entry_mode, name, oid) for name in range(0x30, 0x30 + 64))
            oid = bytes(raw(repo).odb.write(ObjectType.TREE, b"".join(rows)).raw)
        return oid

    blob = bytes(raw(repo).create_blob(b"a\n").raw)
    for mode, other in ((b"100755", blob), (b"120000", blob), (b"160000", b"\2" * 20)):
        with repo.budget.within(3_500), pytest.raises(HeavyError, match="more than 200 files differ"):
            raw_diff(repo, tree(b"100644", blob), tree(mode, other), most=200, most_moved=4)
    was, now = put(repo, {b"a%d" % number: b"a\n" for number in range(5)}), put(repo, {b"b": b"a\n"})
    with pytest.raises(HeavyError, match="among many files"):
        raw_diff(repo, was, now, most=200, most_moved=4)
    assert raw_diff(repo, was, now, most=200, most_moved=6) == raw_diff(repo, was, now)


@pytest.mark.parametrize("name", [b"\x01" * 200, b"n" * 200])
def test_names_are_paid_for(repo: GitRepo, name: bytes) -> None:
    """A few trees of long names make paths of many kilobytes, which stand in a patch several times for each file."""

    def tree(text: bytes) -> Oid:
        oid = put(repo, {b"%d" % number: text for number in range(30)}) or b""
        for _ in range(50):
            oid = bytes(raw(repo).odb.write(ObjectType.TREE, b"40000 %s\0%s" % (name, oid)).raw)
        return oid

    was, now = tree(b"a\n"), tree(b"b\n")
    for view in (raw_diff, diff.diff_lines, diff_summary):
        with repo.budget.within(5_000), pytest.raises(HeavyError):
            view(repo, was, now)
    commit = Commit(bytes(20), bytes(20), (), 0, b"")
    root = Root(bytes(20), {b"files": TreeEntry(b"files", MODE_TREE, now)})
    with repo.budget.within(5_000), pytest.raises(HeavyError):
        event_document(repo, Snapshot(0, commit, NATIVE, root, 0, is_outage=False), Rows([{"index": 0}]))


def test_trees_that_are_very_deep(repo: GitRepo) -> None:
    tree = put(repo, {b"f": b"a\n"})
    for _ in range(500):
        tree = bytes(raw(repo).odb.write(ObjectType.TREE, b"40000 d\0" + (tree or b"")).raw)
    with pytest.raises(DamagedError):
        raw_diff(repo, tree, None)


def test_threads_with_repositories_of_their_own(repo: GitRepo) -> None:
    was, now = put(repo, {b"f": LINES, b"g": LINES}), put(repo, {b"f": EDITED, b"h": EDITED})
    expected = raw_diff(repo, was, now), diff_lines(repo, was, now)
    wrong: list[object] = []

    def work() -> None:
        own = GitRepo(repo.path)
        for _ in range(50):
            said = raw_diff(own, was, now), diff_lines(own, was, now)
            if said != expected:
                wrong.append(said)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
