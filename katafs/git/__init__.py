"""git objects and references, by pygit2; the only package that imports it.

A repository in the store is hostile: nothing of its configuration, and nothing of the daemon's user's, may change
what is read or written, and no hook, filter or attribute of it is ever run. libgit2 runs no hooks for the calls used
here; the settings below switch off the rest for the whole process.

    format   git's formats, as functions of bytes
    odb      reading objects          refs    references
    repo     reading a repository     store   writing to one, and upkeep
    diff     what differs between two trees, or contents
"""

import pygit2
from pygit2.enums import ConfigLevel

from katafs.git.config import read_config
from katafs.git.format.stored import Commit, Oid, TreeEntry
from katafs.git.repo import GitRepo
from katafs.git.store.storing import repository_lock
from katafs.git.store.writer import GitWriter

__all__ = ["Commit", "GitRepo", "GitWriter", "Oid", "TreeEntry", "read_config", "repository_lock"]

# Stores belong to the services that write them, seldom to the daemon's user (libgit2: GIT_OPT_SET_OWNER_VALIDATION).
pygit2.settings.owner_validation = False
# Packs are mapped into memory; small windows keep a walk through a large history from looking like a leak.
pygit2.settings.mwindow_size = 1 << 20
pygit2.settings.mwindow_mapped_limit = 64 << 20
for _level in (ConfigLevel.SYSTEM, ConfigLevel.XDG, ConfigLevel.GLOBAL, ConfigLevel.PROGRAMDATA):
    pygit2.settings.search_path[_level] = ""
