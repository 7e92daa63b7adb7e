"""JuiceFS whose settings are known to lose events. Runs with ``--engines``, and in CI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.juicefs import juicefs
from tests.mounts import katafs


@pytest.mark.parametrize("tried", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_with_its_caches_it_is_refused(directories: Callable[[str], Path], tmp_path: Path, tried: bool) -> None:
    """katafs mount says which options are to be others; and probe finds that events would be lost."""
    (tmp_path / "mnt").mkdir()
    with juicefs(directories("juicefs"), ()) as (one, other):
        said = katafs("mount", one.store, tmp_path / "mnt", check=False)
        assert said.returncode == 1
        assert b"--entry-cache=0 --skip-dir-mtime=0" in said.stderr
        if not tried:
            return
        probed = katafs("probe", "--json", one.store, other.store, check=False)
        lost = [trial["name"] for trial in json.loads(probed.stdout)["trials"] if trial["grade"] == "loses events"]
        assert (probed.returncode, lost[-1]) == (1, "a file removed under its lock")
