"""The engines that hosts share, each as two hosts with a katafs each: the tests are the same for all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.engines.cephfs import cephfs
from tests.engines.client import Engine, Hosts
from tests.engines.juicefs import WITHOUT_CACHES, juicefs
from tests.engines.nfs import nfs
from tests.engines.user_mode import is_user_mode
from tests.scratch import fast_directory, scratch

# the data of CephFS and of NFS is on a disk, so that it is as slow as that; and there is one NFS server a machine
ENGINES: dict[str, Engine] = {"juicefs": juicefs, "juicefs-cold": partial(juicefs, options=WITHOUT_CACHES)}
ENGINES = {"nfs": nfs} if is_user_mode() else {**ENGINES, "cephfs": cephfs}


@pytest.fixture(scope="session")
def directories(request: pytest.FixtureRequest, fuse: None) -> Iterator[Callable[[str], Path]]:
    """Makes a directory for an engine."""
    if not request.config.getoption("--engines"):
        pytest.skip("needs file systems that hosts share: run with --engines")
    made: list[Path] = []

    def make(engine: str) -> Path:
        where = fast_directory() if engine.startswith("juicefs") else scratch()
        made.append(Path(tempfile.mkdtemp(prefix=f"{engine}-", dir=where)))
        return made[-1]

    yield make
    for path in made:
        shutil.rmtree(path)


@pytest.fixture(
    scope="session",
    params=[name if name == "juicefs" else pytest.param(name, marks=pytest.mark.slow) for name in ENGINES],
)
def hosts(request: pytest.FixtureRequest, directories: Callable[[str], Path]) -> Iterator[Hosts]:
    """Two hosts with their mounts; nobody says that it is safe, since katafs knows the engine."""
    with ENGINES[request.param](directories(request.param)) as (one, other), one.mount, other.mount:
        yield one, other
