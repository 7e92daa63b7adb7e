"""Repositories to download, and the care that no download stays open."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.katas import git, make_long_kata


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """An empty repository with main."""
    path = tmp_path / "repo"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", str(path)], check=True)
    return path


@pytest.fixture(scope="module")
def long_kata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native kata of 60 events, with an option commit after them, whose objects are all loose."""
    path = make_long_kata(tmp_path_factory.mktemp("store"), "AbCdEf", 60)
    option = git(path, "commit-tree", "-m", "set option theme to dark", "-p", "main", "main^{tree}").decode().strip()
    git(path, "update-ref", "refs/heads/main", option)
    return path


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    """Whatever becomes of a download, its temporary file is closed."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = [os.readlink(f"/proc/self/fd/{fd}") for fd in set(os.listdir("/proc/self/fd")) - before if fd_exists(fd)]
    assert [target for target in left if "(deleted)" in target] == []


def fd_exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")
