"""The daemon is killed again and again under services that write by plain paths, all at once, and their readers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.benchmarks import services
from tests.scratch import fast_directory


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("kills", [2, pytest.param(250, marks=pytest.mark.slow)])
def test_nobody_hears_what_is_not_so(fuse: None, version: int, kills: int) -> None:
    with tempfile.TemporaryDirectory(prefix="katafs-services-", dir=fast_directory()) as directory:
        assert services.run(Path(directory), version, seconds=kills, kills=kills, reads=0) == 0
