"""Who works in repositories that are written to: git packs, collects and prunes them, katafs compacts and mends them.

``python -m tests.benchmarks.beside LOG STORE ID...`` does one after the other, in random order, until there is a file
``LOG.stop``. A line of the log says what was run, and what came of it; it begins with WRONG where that is neither
success nor a lock that somebody else holds.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

from katafs.kata.model.ids import kata_path
from tests.mounts import katafs

GIT = (
    "gc",
    "repack -adq",
    "repack -Adq --write-midx -b",
    "prune",
    "pack-refs --all",
    "maintenance run",
)
KATAFS = ("compact -q", "fsck -q --repair")
#: what git says of a lock; then it may say who could hold it, and what it could not do
_LOCKED = re.compile(r"Unable to create '[^']*\.lock': File exists|gc is already running|lock file '[^']*' exists")
#: and when what it has packed was moved meanwhile, so that the loose reference stays
_MOVED = re.compile(r"(error: cannot lock ref 'refs/[^']*': is at [0-9a-f]{40} but expected [0-9a-f]{40}\n)+")


def run_git(kata: Path, what: str) -> str:
    """Run git: what came of it."""
    command = ["git", "-c", "gc.autoDetach=false", *what.split()]
    result = subprocess.run(command, cwd=kata, capture_output=True, check=False)
    said = (result.stdout + result.stderr).decode(errors="replace")
    if _LOCKED.search(said):
        return f"{what}: locked"
    if not result.returncode and _MOVED.fullmatch(said):
        return f"{what}: done, but a reference could not be locked: it had moved"
    return f"{what}: done" if not (result.returncode or said) else f"WRONG {what}: {result.returncode} {said!r}"


def run_katafs(store: Path, kata_id: str, what: str) -> str:
    """Run katafs: what came of it. It may have something to mend when a daemon has just died."""
    result = katafs(*what.split(), store, kata_id, check=False)
    said = (result.stdout + result.stderr).decode()
    if not said and not result.returncode:
        return f"{what}: done"
    if "locked" in said:
        return f"{what}: locked"
    if "--repair" in what and result.returncode == 1:
        return f"{what}: mended {re.sub('[0-9a-f]{8,}', '...', said)!r}"
    return f"WRONG {what}: {result.returncode} {said!r}"


def main() -> None:
    """Work until told to stop."""
    log, store, ids = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    stop = log.with_name(f"{log.name}.stop")
    with open(log, "w", buffering=1) as lines:
        while not stop.exists():
            kata_id, what = random.choice(ids), random.choice(GIT + KATAFS)
            came = run_git(kata_path(store, kata_id), what) if what in GIT else run_katafs(store, kata_id, what)
            lines.write(f"{came}\n")


if __name__ == "__main__":
    main()
