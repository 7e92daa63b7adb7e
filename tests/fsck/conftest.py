"""Fixtures of the tests of ``katafs fsck``: stores in memory, where syncing costs nothing."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.directories import remove_quietly
from tests.conftest import unavailable
from tests.fsck.cases import LAYOUTS, copy_kata
from tests.mounts import OTHER
from tests.scratch import fast_directory


@pytest.fixture
def store() -> Iterator[Path]:
    """An empty store."""
    made = Path(tempfile.mkdtemp(prefix="katafs-store-", dir=fast_directory()))
    yield made
    remove_quietly(made)


@pytest.fixture(params=LAYOUTS)
def kata(request: pytest.FixtureRequest, store: Path) -> Path:
    """A kata of six events in each layout."""
    return copy_kata(request.param, store)


@pytest.fixture
def owned(store: Path) -> Path:
    """A kata of another user's."""
    if os.geteuid() != 0:
        unavailable("only root can give files away")
    path = copy_kata("native", store)
    subprocess.run(["chown", "-R", f"{OTHER}:{OTHER}", path], check=True)
    return path
