"""How many lines an event adds and deletes, by libgit2 as FORMAT.md §2.3 says that saver asks it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping

import pygit2
from pygit2.enums import DiffOption, FileMode

from tests.scratch import fast_directory


@functools.cache
def _scratch() -> pygit2.Repository:
    return pygit2.init_repository(tempfile.mkdtemp(prefix="katafs-model-", dir=fast_directory()), bare=True)


def count_lines(was: Mapping[str, bytes], now: Mapping[str, bytes]) -> tuple[int, int]:
    """Added and deleted: ends of lines do not count, and a renamed file counts by what differs."""
    old, new = _tree(was), _tree(now)
    diff = old.diff_to_tree(new, DiffOption.IGNORE_WHITESPACE_EOL, context_lines=2_000_000_000)
    diff.find_similar()
    stats = [patch.line_stats for patch in diff if patch is not None]
    return sum(added for _, added, _ in stats), sum(deleted for _, _, deleted in stats)


def _tree(files: Mapping[str, bytes]) -> pygit2.Tree:
    repo, index = _scratch(), pygit2.Index()
    for name, content in files.items():
        index.add(pygit2.IndexEntry(name, repo.create_blob(content), FileMode.BLOB))
    tree = repo[index.write_tree(repo)]
    assert isinstance(tree, pygit2.Tree)
    return tree
