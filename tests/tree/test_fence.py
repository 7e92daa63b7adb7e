"""What a kata holds is no repository: git, or a prompt that runs git, obeys none of it, wherever it is called."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pygit2
import pytest

from tests.katas import add_event, git, make_kata
from tests.mounts import MakeMount

HEAD = "ref: refs/heads/main\n"
# what a prompt, an editor or a person calls
COMMANDS = (
    ["status"],
    ["log", "--oneline"],
    ["rev-parse", "--git-dir", "--is-inside-git-dir", "--is-bare-repository", "--short", "HEAD"],
    ["branch"],
    ["diff"],
    ["config", "--list"],
    ["ls-files"],
)


def bare(ran: Path, below: str = "") -> dict[str, str]:
    """Files that git takes for a bare repository, with a configuration that runs a program."""
    config = "[core]\n\trepositoryformatversion = 0\n\tbare = false\n\tworktree = .\n"
    config += f'\tfsmonitor = "touch {ran}; false"\n\tpager = "touch {ran}"\n'
    files = {"HEAD": HEAD, "config": config, "objects/x": "", "refs/x": "", "sub/a.txt": "a\n"}
    return {f"{below}{name}": content for name, content in files.items()}


def look_around(place: Path) -> list[str]:
    """What git says in a directory, of each command."""
    runs = (subprocess.run(["git", *c], cwd=place, capture_output=True, text=True, check=False) for c in COMMANDS)
    return [run.stderr for run in runs]


def test_git_obeys_nothing_in_files(store: Path, mount: MakeMount, mode: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    outside = tmp_path / "outside"
    for name, content in bare(ran).items():
        (outside / name).parent.mkdir(parents=True, exist_ok=True)
        (outside / name).write_text(content)
    look_around(outside)
    assert ran.exists(), "this git is not in danger"
    ran.unlink()
    path = make_kata(store, "AbCdEf")
    linked = {"linked/HEAD": HEAD, "linked/commondir": "..\n"}
    files = {"a.txt": "a\n", **bare(ran), **bare(ran, "deep/er/"), **linked}
    add_event(path, 1, files=files)
    add_event(path, 2, files={"a.txt": "a\n", "HEAD": HEAD, "objects/x": ""})
    add_event(path, 3, files=files)
    kata = mount(store, mode).kata("AbCdEf")
    for place in (kata / "files", kata / "events/1/files"):
        for fenced in (".", "deep/er", "linked"):
            assert ".git" not in os.listdir(place / fenced)
            assert (place / fenced / ".git").is_file()
            said = look_around(place / fenced)
            assert all(text.startswith("fatal: not a git repository: ") for text in said), said
            assert pygit2.discover_repository(str(place / fenced)) is None
        assert (place / "HEAD").read_text() == HEAD
        look_around(place / "objects")
        look_around(place / "deep/er/refs")
        assert not (place / "deep/.git").exists()
    # nothing is in the way of the kata's own repository
    assert not (kata / "events/2/files/.git").exists()
    for place in (kata / "events/2/files", kata, kata / ".git"):
        assert git(place, "log", "--format=%s").startswith(b"3 ")
    (name,) = (file.stem for file in (kata / "download").glob("*.tgz"))
    look_around(kata / "download" / name / "files")
    look_around(kata / "download" / name / "files/deep/er")
    assert not ran.exists()


def test_it_comes_and_goes_with_the_files(store: Path, mount: MakeMount, mode: str) -> None:
    make_kata(store, "AbCdEf")
    kata = mount(store, mode).kata("AbCdEf")
    for index, is_fenced in enumerate([False, True, False, True], start=1):
        files = {"a.txt": f"{index}\n", **(bare(Path("/none")) if is_fenced else {})}
        message = {"files": {name: {"content": content} for name, content in files.items()}}
        (kata / "ran_tests").write_text(json.dumps({**message, "summary": {"colour": "red"}}))
        assert (kata / "files/.git").exists() == is_fenced


@pytest.mark.parametrize("below", ["", "sub/"])
def test_what_lies_among_plain_files(store: Path, mount: MakeMount, tmp_path: Path, below: str) -> None:
    """Somebody put it into the store: a bare repository, and one with a work tree."""
    ran = tmp_path / "ran"
    kata = store / "Ab/Cd/Ef"
    kata.mkdir(parents=True)
    (kata / "manifest.json").write_text("{}")
    for name, content in (bare(ran, below) | bare(ran, "tree/.git/")).items():
        (kata / name).parent.mkdir(parents=True, exist_ok=True)
        (kata / name).write_text(content)
    shown = mount(store).kata("AbCdEf")
    assert (shown / below / "HEAD").read_text() == HEAD
    assert not (shown / "tree/.git/config").exists()
    for place in (shown, shown / below, shown / "tree"):
        look_around(place)
    assert not ran.exists()


def test_what_lies_in_git(store: Path, mount: MakeMount, tmp_path: Path) -> None:
    """``logs`` has a HEAD and refs in every repository; one with objects and a configuration is fenced, too."""
    ran = tmp_path / "ran"
    path = make_kata(store, "AbCdEf")
    for name, content in bare(ran, ".git/logs/").items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    shown = mount(store).kata("AbCdEf")
    assert (shown / ".git/logs/config").exists()
    look_around(shown / ".git/logs")
    assert not ran.exists()
    assert git(shown / ".git", "log", "--format=%s").startswith(b"0 ")
