"""NFSv4, in a Linux in user mode: the tests of this folder run there once more, and have two hosts on NFS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines.user_mode import is_user_mode, run_pytest


@pytest.mark.slow
@pytest.mark.skipif(is_user_mode(), reason="this is it")
def test_in_user_mode(directories: Callable[[str], Path]) -> None:
    folder = Path(__file__).parent
    tests = [str(folder / name) for name in ("test_at_once.py", "test_faults.py")]
    # A client whose wire is cut waits in the kernel that the tests themselves run in: that did not end there yet.
    options = ("--engines", "--slow", "-k", "not dies and not cut and not away")
    assert run_pytest(directories("nfs"), *tests, *options, seconds=1800) == 0
