"""The lock of writers, as other hosts see it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from katafs.git.store.storing import MUTEX, repository_lock


def test_it_is_held_by_who_could_write(tmp_path: Path) -> None:
    """Or CephFS goes on holding a dead host's lock for five minutes, not one (`tests.engines` sees it there)."""
    with repository_lock(tmp_path, 1) as is_alone:
        path = os.path.realpath(tmp_path / MUTEX)
        held = [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.realpath(f"/proc/self/fd/{fd}") == path]
        assert (is_alone, [fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE for fd in held]) == (True, [os.O_RDWR])
