"""An engine whose names are stale is found out, and not mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts.host import two_hosts
from tests.mounts import katafs


@pytest.mark.slow
def test_stale_names(fuse: None, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    with two_hosts(tmp_path, stale_entries=True) as (one, other):
        probed = katafs("probe", one.store, other.store, check=False)
        assert (probed.returncode, b"events can be lost" in probed.stdout) == (1, True)
        said = katafs("mount", one.store, tmp_path / "mnt", check=False)
        assert (said.returncode, b"katafs probe has found that events can be lost" in said.stderr) == (1, True)
