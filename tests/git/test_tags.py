"""Tags that are looked for together: what is said of each is what is said of it alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from katafs.git import GitRepo
from katafs.git.budget import Budget
from tests.katas import git, make_long_kata


@pytest.fixture
def tagged(store: Path) -> Path:
    """A kata of 200 events whose tags are packed, but for some that were set otherwise since."""
    path = make_long_kata(store, "AbCdEf", 200)
    git(path, "pack-refs", "--all")
    git(path, "tag", "-f", "5", "7")
    git(path, "symbolic-ref", "refs/tags/6", "refs/tags/9")
    git(path, "tag", "-d", "8")
    (path / ".git/refs/tags/10").write_bytes(b"")
    (path / ".git/refs/tags/11").write_bytes(b"0" * 40 + b"\n")
    (path / ".git/refs/tags/12").symlink_to("/etc/passwd")
    return path


@pytest.mark.parametrize("is_sorted", [True, False])
def test_they_are_those_alone(tagged: Path, is_sorted: bool) -> None:
    packed = tagged / ".git/packed-refs"
    if not is_sorted:
        head, *lines = packed.read_bytes().splitlines(keepends=True)
        packed.write_bytes(b"".join([head.replace(b" sorted", b""), *lines[::-1]]))
    alone = GitRepo(tagged).refs
    found = GitRepo(tagged).refs.tags(range(-3, 210))
    assert found == {index: alone.tag(index) for index in range(201) if index not in range(5, 13) or index in (7, 9)}
    together = GitRepo(tagged)
    together.look_at_tags(range(4, 6))
    assert [together.tag(index) for index in range(210)] == [alone.tag(index) for index in range(210)]


def test_what_moved_is_seen_in_the_next_moment(tagged: Path) -> None:
    repo = GitRepo(tagged)
    repo.main()
    repo.look_at_tags(range(20, 24))
    git(tagged, "tag", "-f", "21", "30")
    repo.main()
    repo.look_at_tags(range(20, 24))
    assert repo.tag(21) == repo.tag(30)


@pytest.mark.parametrize("what", ["a link", "a file", "too much", "nothing"])
def test_where_they_are_not_found_together(tagged: Path, what: str) -> None:
    """None is found, and the budget has as much as is needed to look for each."""
    tags, packed = tagged / ".git/refs/tags", tagged / ".git/packed-refs"
    if what == "too much":
        packed.write_bytes(packed.read_bytes().replace(b" sorted", b"") + b"# \n" * 100_000)
    elif what == "nothing":
        packed.unlink()
    else:
        tags.rename(tags.with_name("others"))
        tags.symlink_to("others") if what == "a link" else tags.write_bytes(b"")
    repo = GitRepo(tagged, budget=Budget(10_000))
    assert repo.refs.tags(range(100, 132)) == {}
    assert repo.budget.left >= 5_000


def test_tags_of_one_question(tagged: Path) -> None:
    """Who answers for many reads `packed-refs` once for them: what has come since is seen, and what has a file."""
    few = b"".join((tagged / ".git/packed-refs").read_bytes().splitlines(keepends=True)[:60])
    (tagged / ".git/packed-refs").write_bytes(few)
    repo, alone = GitRepo(tagged, budget=Budget(1e6)), GitRepo(tagged).refs
    assert repo.main() is not None
    assert [repo.tag(index) for index in range(20)] == [alone.tag(index) for index in range(20)]
    git(tagged, "tag", "300", "1")
    git(tagged, "tag", "-f", "13", "1")
    assert repo.tag(300) == repo.tag(13) == repo.tag(1)
    git(tagged, "tag", "-f", "14", "1")
    git(tagged, "pack-refs", "--all")
    assert repo.tag(300) == repo.tag(1)
    repo.main()
    assert repo.tag(14) == repo.tag(1)
