"""``katafs fsck``: each hazard is made for real in a kata of both layouts, found, mended, and gone afterwards."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from katafs.kata.fsck import Outcome
from tests.fsck.cases import (
    LAST,
    assert_git_is_content,
    assert_mended,
    check,
    copy_kata,
    kept,
    make_old,
    references,
)
from tests.katas import git, loose
from tests.power.client import git_event

Damage = Callable[[Path], object]
NOWHERE = "1234567890123456789012345678901234567890"


def write(name: str, text: str | bytes = b"") -> Damage:
    """Write a file of the kata anew."""

    def damage(path: Path) -> None:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)

    return damage


def remove(*names: str) -> Damage:
    """Remove files of the kata."""

    def damage(path: Path) -> None:
        for name in names:
            (path / name).unlink()

    return damage


def run(*commands: str) -> Damage:
    """Run git commands in the kata."""

    def damage(path: Path) -> None:
        for command in commands:
            git(path, *command.split(" "))

    return damage


def both(*steps: Damage) -> Damage:
    """Several damages."""

    def damage(path: Path) -> None:
        for step in steps:
            step(path)

    return damage


def other_commit(path: Path) -> str:
    """A commit on top of event 3's that ``main`` does not have."""
    return git(path, "commit-tree", "main^{tree}", "-p", "main~1", "-m", "6 a save that crashed").decode().strip()


HARM: dict[str, tuple[str, Damage]] = {
    "newest tag": ("tag-missing", remove(f".git/refs/tags/{LAST}")),
    "all tags": ("tag-missing", remove(*(f".git/refs/tags/{index}" for index in range(LAST + 1)))),
    "tags in the middle": ("tag-missing", remove(".git/refs/tags/2", ".git/refs/tags/3")),
    "a tag, others packed": ("tag-missing", run("pack-refs --all", "update-ref -d refs/tags/4")),
    "a tag of another event": ("tag-wrong", run("update-ref refs/tags/2 refs/tags/1")),
    "a packed tag of another event": ("tag-wrong", run("update-ref refs/tags/2 refs/tags/1", "pack-refs --all")),
    "an empty tag": ("tag-wrong", write(".git/refs/tags/3")),
    "a tag of rubbish": ("tag-wrong", write(".git/refs/tags/3", "\x1b[31mrubbish\n")),
    "a tag of nothing": ("tag-wrong", write(".git/refs/tags/3", NOWHERE)),
    "a tag too many": ("tag-without-event", run("update-ref refs/tags/7 main")),
    "an empty tag too many": ("tag-without-event", write(".git/refs/tags/7")),
    "main moved back": ("main-behind", run("update-ref refs/heads/main refs/tags/1")),
    "no main": ("main-lost", remove(".git/refs/heads/main")),
    "an empty main": ("main-lost", write(".git/refs/heads/main")),
    "main of rubbish": ("main-lost", write(".git/refs/heads/main", b"\0" * 41)),
    "main of nothing": ("main-lost", write(".git/refs/heads/main", NOWHERE)),
    "main of a tree": (
        "main-lost",
        lambda path: write(".git/refs/heads/main", git(path, "rev-parse", "main^{tree}"))(path),
    ),
    "an empty main over an old one": (
        "main-lost",
        both(run("update-ref refs/heads/main refs/tags/1", "pack-refs --all"), write(".git/refs/heads/main")),
    ),
    "no HEAD": ("head-wrong", remove(".git/HEAD")),
    "an empty HEAD": ("head-wrong", write(".git/HEAD")),
    "HEAD of rubbish": ("head-wrong", write(".git/HEAD", "rubbish")),
    "HEAD of another branch": ("head-wrong", write(".git/HEAD", "ref: refs/heads/master\n")),
    "HEAD of a commit": ("head-wrong", lambda path: write(".git/HEAD", git(path, "rev-parse", "main"))(path)),
    "HEAD that is a link": (
        "head-wrong",
        both(remove(".git/HEAD"), lambda path: (path / ".git/HEAD").symlink_to("/etc/passwd")),
    ),
    "a stray branch": ("branch-stray", run("branch aB3dE6gH main~1")),
    "an empty branch": ("reference-broken", write(".git/refs/heads/other")),
    "a branch of nothing": ("reference-broken", write(".git/refs/heads/other", NOWHERE)),
    "a reference of rubbish": ("reference-broken", write(".git/refs/odd/one", "rubbish")),
    "packed-refs cut short": (
        "packed-refs-damaged",
        both(run("pack-refs --all"), lambda path: cut(path / ".git/packed-refs", 1)),
    ),
    "rubbish in packed-refs": (
        "packed-refs-damaged",
        both(run("pack-refs --all"), lambda path: append(path / ".git/packed-refs", b"rubbish\n")),
    ),
    "no refs": ("refs-missing", both(run("pack-refs --all"), lambda path: shutil.rmtree(path / ".git/refs"))),
    "no configuration": ("config-missing", remove(".git/config")),
    "an index cut short": ("index-damaged", both(run("read-tree main"), lambda path: cut(path / ".git/index", 9))),
    "an empty index": ("index-damaged", write(".git/index")),
    "no manifest": ("manifest-missing", remove("manifest.json")),
    "an empty manifest": ("manifest-differs", write("manifest.json")),
    "another manifest": ("manifest-differs", write("manifest.json", '{"version": 1}')),
    "a temporary object": ("temporary-file", write(".git/objects/ab/tmp_obj_XyZ123", b"x")),
    "a temporary object of libgit2's": ("temporary-file", write(".git/objects/tmp_object_git2_Xy", b"x")),
    "what was to be a lock of ours": ("temporary-file", write(".git/.katafs-0123456789abcdef", b"")),
    "a temporary pack": ("temporary-file", write(".git/objects/pack/tmp_pack_XyZ123", b"x")),
    "an empty object": ("object-damaged", write(f".git/objects/{NOWHERE[:2]}/{NOWHERE[2:]}")),
    "an object of other bytes": (
        "object-damaged",
        lambda path: shutil.copy(loose(path, "main"), ensured(path / f".git/objects/{NOWHERE[:2]}/{NOWHERE[2:]}")),
    ),
}
LOCKED = ("HEAD", "packed-refs", "refs/heads/main", "refs/tags/3", "refs/heads/aB3dE6gH", "index", "config")


def cut(file: Path, length: int) -> None:
    os.truncate(file, file.stat().st_size - length)


def append(file: Path, data: bytes) -> None:
    with file.open("ab") as stream:
        stream.write(data)


def ensured(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


@pytest.mark.parametrize("harm", HARM)
def test_a_hazard_is_found_and_mended(kata: Path, harm: str) -> None:
    before = references(kata)
    code, damage = HARM[harm]
    damage(kata)
    make_old(kata)
    assert_mended(kata, before, code)


@pytest.mark.parametrize("name", ["refs/heads/main", "HEAD"])
def test_a_log_of_commits_that_are_gone(kata: Path, name: str) -> None:
    """After a power cut the line of a commit of git's may be all that is left of it."""
    before = references(kata)
    tip = git(kata, "rev-parse", "main").decode().strip()
    log = ensured(kata / ".git/logs" / name)
    good = (log.read_text() if log.exists() else "") + f"{'0' * 40} {tip} a <a@b> 1 +0000\t\n"
    log.write_text(f"{good}{tip} {NOWHERE} a <a@b> 1 +0000\tcommit: lost\n")
    make_old(kata)
    assert_mended(kata, before, "stale-file")
    assert log.read_text() == good


def test_a_log_of_a_commit_that_lacks_its_files(kata: Path, tmp_path: Path) -> None:
    """git writes the line before it moves the branch."""
    before = references(kata)
    tip = git(kata, "rev-parse", "main").decode().strip()
    git_event(kata, LAST + 1, tmp_path / "index")
    loose(kata, "main:files/by-git.txt").unlink()
    git(kata, "update-ref", "-d", f"refs/tags/{LAST + 1}")
    (kata / ".git/refs/heads/main").write_text(f"{tip}\n")
    make_old(kata)
    assert_mended(kata, before, "stale-file", "stale-file")  # of HEAD, too


def test_a_log_of_another_repository_is_left(store: Path, tmp_path: Path) -> None:
    """A link may lead there."""
    kata, other = copy_kata("native", store), tmp_path / "other"
    log = other / "logs/refs/heads/main"
    log.parent.mkdir(parents=True)
    log.write_text(text := f"{NOWHERE} {NOWHERE} a <a@b> 1 +0000\t\n")
    shutil.rmtree(kata / ".git/logs", ignore_errors=True)
    (kata / ".git/logs").symlink_to(other / "logs")
    make_old(kata)
    check(kata, repair=True)
    assert log.read_text() == text


@pytest.mark.parametrize("name", LOCKED)
def test_a_lock_that_nobody_holds(store: Path, name: str) -> None:
    kata = copy_kata("native", store)
    before = references(kata)
    write(f".git/{name}.lock")(kata)
    make_old(kata)
    assert_mended(kata, before, "lock-stale")


def test_a_sound_kata_has_no_findings(kata: Path) -> None:
    assert check(kata, notes=True) == check(kata, repair=True, notes=True) == []
    git(kata, "gc", "-q")
    make_old(kata)
    assert check(kata, notes=True) == check(kata, repair=True, notes=True) == []


@pytest.mark.parametrize("harm", ["newest tag", "an empty main", "HEAD of rubbish", "a stray branch"])
def test_quick_finds_it_too(kata: Path, harm: str) -> None:
    before = references(kata)
    code, damage = HARM[harm]
    damage(kata)
    make_old(kata)
    assert_mended(kata, before, code, is_quick=True)


def test_everything_at_once(kata: Path) -> None:
    before = references(kata)
    for harm in ("newest tag", "an empty tag", "an empty main", "no HEAD", "no configuration", "an empty manifest"):
        HARM[harm][1](kata)
    for name in ("HEAD", "refs/heads/main", "packed-refs", f"refs/tags/{LAST}"):
        write(f".git/{name}.lock")(kata)
    make_old(kata)
    assert {finding.state for finding in check(kata, repair=True)} == {Outcome.MENDED}
    assert check(kata) == []
    assert references(kata) == before
    assert_git_is_content(kata)


# -- what is lost by nobody


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("branch-stray", "refs/heads/aB3dE6gH"),
        ("tag-wrong", "refs/tags/3"),
        ("tag-without-event", "refs/tags/9"),
        ("head-wrong", "HEAD"),
    ],
)
def test_commits_that_main_does_not_have_are_kept(kata: Path, code: str, name: str) -> None:
    before = references(kata)
    commit = other_commit(kata)
    if name == "HEAD":
        write(".git/HEAD", commit)(kata)
    else:
        git(kata, "update-ref", name, commit)
    make_old(kata)
    assert_mended(kata, before, code)
    assert kept(kata) == [commit]
    git(kata, "gc", "-q", "--prune=now")
    assert git(kata, "cat-file", "-t", commit) == b"commit\n"


def test_files_that_are_replaced_are_kept(kata: Path) -> None:
    before = references(kata)
    harm = ("another manifest", "main of rubbish", "rubbish in packed-refs", "an empty index")
    for name in harm:
        HARM[name][1](kata)
    make_old(kata)
    # what the manifest is can be known once there is a main
    assert {finding.state for finding in check(kata, repair=True)} == {Outcome.MENDED}
    assert references(kata) == before
    aside = kata / ".git" / "katafs-lost-found"
    assert sorted(os.listdir(aside)) == ["index", "manifest.json", "packed-refs", "refs-heads-main"]
    assert (aside / "manifest.json").read_bytes() == b'{"version": 1}'
    assert (aside / "refs-heads-main").read_bytes() == b"\0" * 41


def test_the_newest_commit_is_found_without_log_and_tag(kata: Path) -> None:
    """A power cut may take the log, main, and the tags that were to come: no event goes with them."""
    before = references(kata)
    shutil.rmtree(kata / ".git" / "logs", ignore_errors=True)
    for name in ("heads/main", f"tags/{LAST}", f"tags/{LAST - 1}"):
        (kata / ".git" / "refs" / name).unlink()
    make_old(kata)
    assert [finding.code for finding in check(kata, repair=True)] == ["main-lost", "tag-missing"]
    assert references(kata) == before
    assert check(kata) == []


def test_main_is_not_guessed(kata: Path) -> None:
    """Of two newest commits only a person can choose one."""
    shutil.rmtree(kata / ".git" / "logs", ignore_errors=True)
    commit = other_commit(kata)
    main = git(kata, "rev-parse", "main").decode().strip()
    for name in ("heads/main", f"tags/{LAST}"):
        (kata / ".git" / "refs" / name).unlink()
    make_old(kata)
    (finding,) = check(kata, repair=True)
    assert (finding.code, finding.state) == ("main-lost", Outcome.LEFT)
    assert commit in finding.advice
    assert main in finding.advice
