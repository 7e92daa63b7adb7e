"""An engine that may lose events is found out: it is not mounted, and nothing else writes to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.hosts.host import two_hosts
from tests.katas import make_kata
from tests.mounts import katafs
from tests.plain_katas import make_plain_kata


@pytest.mark.slow
def test_stale_names(fuse: None, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    with two_hosts(tmp_path, stale_entries=True) as (one, other):
        probed = katafs("probe", one.store, other.store, check=False)
        assert (probed.returncode, b"events can be lost" in probed.stdout) == (1, True)
        said = katafs("mount", one.store, tmp_path / "mnt", check=False)
        assert (said.returncode, b"katafs probe has found that events can be lost" in said.stderr) == (1, True)


def test_who_writes_to_a_store_refuses_it(fuse: None, tmp_path: Path) -> None:
    """As mount does; who only reads does not."""
    manifest = json.dumps({"visible_files": {}}).encode()
    with two_hosts(tmp_path) as (one, _):
        make_kata(one.shared, "AbCdEf", {"a.txt": "0\n"})
        make_plain_kata(one.shared, "Pan023", 1, 3, events=3)
        (one.store / ".katafs-probe.json").unlink()
        for command, status in (
            (("create",), 1),
            (("migrate",), 1),
            (("compact",), 1),
            (("fsck", "--repair"), 8),
        ):
            said = katafs(*command, one.store, stdin=manifest, check=False)
            assert (said.returncode, said.stdout) == (status, b"")
            assert b"it is not known whether events can be lost there" in said.stderr
            assert b"--unsafe-store writes to it as it is" in said.stderr
            assert katafs(*command, "--unsafe-store", one.store, stdin=manifest).returncode == 0
        katafs("fsck", one.store)
        katafs("migrate", "--dry-run", one.store)
