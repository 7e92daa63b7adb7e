"""``katafs fsck``: finds what is wrong in a store, and mends what can be mended, beside running daemons and services.

Nothing that was recorded is lost by a repair: commits that ``main`` does not have keep a reference below
``refs/katafs/lost``, files that are replaced are moved to ``.git/katafs-lost-found``. Removed are only locks, temporary
files and worktrees of writers that died.
"""

from katafs.kata.fsck.exam import Finding, Outcome
from katafs.kata.fsck.sweep import Result, check_ids, check_store

__all__ = ["Finding", "Outcome", "Result", "check_ids", "check_store"]
