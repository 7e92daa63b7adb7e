"""A run of the tests depends on nothing that an earlier one left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import unavailable

ROOT = Path(__file__).resolve().parents[2]


def test_a_mount_that_a_killed_run_left_is_no_failure(tmp_path: Path) -> None:
    """pytest removes what runs before the last three left; what cannot be removed failed the run at its end."""
    if os.geteuid() != 0:
        unavailable("only root can leave a mount that cannot be removed")
    (tmp_path / "test_nothing.py").write_text("def test_nothing(tmp_path): pass\n")
    left = tmp_path / "pytest-of-root" / "pytest-0" / "left"
    left.mkdir(parents=True)
    tmp_path.joinpath("pytest-of-root").chmod(0o700)
    for number in range(1, 4):
        left.parent.with_name(f"pytest-{number}").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "left", left], check=True)
    try:
        run = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", tmp_path],
            env=os.environ | {"PYTEST_DEBUG_TEMPROOT": str(tmp_path), "LOGNAME": "root"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            if line.startswith(f"left {tmp_path}/"):
                subprocess.run(["umount", line.split()[1]], check=True)
    assert "1 passed" in run.stdout
    assert (run.returncode, run.stderr) == (0, "")
    assert not left.exists(), "the run did not try to remove it"
