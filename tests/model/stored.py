"""What a repository holds, read by libgit2 without katafs, and compared with the model commit by commit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from tests.model.algebra import Commit, Json, Model


class Stored:
    """A kata's repository, as far as it was compared."""

    def __init__(self, path: Path, kata_id: str) -> None:
        self.path, self.kata_id = path, kata_id
        #: the commits that were found right, oldest first
        self.commits: list[pygit2.Oid] = []
        #: events whose writer may have died before the tag
        self.untagged: set[int] = set()
        self._blobs: dict[pygit2.Oid, bytes] = {}

    def compare(self, model: Model) -> None:
        """Every commit that is new, and every tag, is as the model has it."""
        repo = pygit2.Repository(str(self.path))
        new, known = self._new_commits(repo), len(self.commits)
        expected = model.commits[len(self.commits) :]
        assert [commit.message for commit in new] == [commit.subject for commit in expected]
        for commit, wanted in zip(new, expected, strict=True):
            self._compare_commit(repo, commit, wanted)
            self.commits.append(commit.id)
        tags = {int(name[10:]): repo.references[name].target for name in repo.references if name[:10] == "refs/tags/"}
        if expected and expected[-1].ours and not expected[-1].subject.startswith("set option "):
            self._mended({index for index, at in model.tags.items() if at < known})
        wanted_tags = {index: self.commits[at] for index, at in model.tags.items()}
        assert tags == {n: oid for n, oid in wanted_tags.items() if n in tags or n not in self.untagged}
        assert set(repo.references) == {"refs/heads/main", *(f"refs/tags/{index}" for index in tags)}
        assert repo.references["HEAD"].target == "refs/heads/main"
        repo.free()

    def _mended(self, before: set[int]) -> None:
        """An event of katafs has set the tags that were missing just before it; older ones it may leave to others."""
        index = max(before, default=0)
        while index in self.untagged:
            self.untagged.discard(index)
            index -= 1

    def _new_commits(self, repo: pygit2.Repository) -> list[pygit2.Commit]:
        """The commits after those that are known: a straight line from the newest of them."""
        commit = repo.references["refs/heads/main"].peel(pygit2.Commit)
        new: list[pygit2.Commit] = []
        while commit.id not in self.commits[-1:]:
            new.append(commit)
            parents = commit.parent_ids
            if not parents and not self.commits:
                break
            assert len(parents) == 1
            commit = repo[parents[0]].peel(pygit2.Commit)
        return new[::-1]

    def _compare_commit(self, repo: pygit2.Repository, commit: pygit2.Commit, wanted: Commit) -> None:
        stored = {}
        for name, blob in _walk(commit.tree, ""):
            if blob.id not in self._blobs:
                self._blobs[blob.id] = blob.data
            stored[name] = self._blobs[blob.id]
        assert stored == wanted.tree
        if wanted.ours:
            who = (self.kata_id, f"{self.kata_id}@cyber-dojo.org", int(wanted.now.timestamp()), 0)
            for person in (commit.author, commit.committer):
                assert (person.name, person.email, person.time, person.offset) == who

    def newest_commit(self) -> pygit2.Commit:
        return pygit2.Repository(str(self.path)).references["refs/heads/main"].peel(pygit2.Commit)

    def newest_rows(self) -> list[Json]:
        tree = self.newest_commit().tree
        blob = tree["events_summary.json" if "events_summary.json" in tree else "events.json"]
        assert isinstance(blob, pygit2.Blob)
        rows: list[Json] = json.loads(blob.data)
        return rows

    def objects(self) -> set[str]:
        """The ids of all objects: a moment after an event the files in which they are may become others."""

        def found() -> set[str]:
            return {str(oid) for oid in pygit2.Repository(self.path / ".git").odb}

        while (ids := found()) != found():
            pass
        return ids


def _walk(tree: pygit2.Tree, above: str) -> Iterator[tuple[str, pygit2.Blob]]:
    for entry in tree:
        name = f"{above}{entry.name}"
        if isinstance(entry, pygit2.Tree):
            yield from _walk(entry, f"{name}/")
        else:
            assert isinstance(entry, pygit2.Blob)
            assert entry.filemode == FileMode.BLOB
            yield name, entry


def assert_clean(path: Path) -> None:
    """git finds nothing wrong with a repository."""
    command = ["git", "fsck", "--strict", "--full", "--no-dangling"]
    result = subprocess.run(command, cwd=path, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def commit_as_another(path: Path, wanted: Commit, tags: list[int]) -> None:
    """Commit the model's newest tree as a service without katafs does it: its own name, branch, then tags."""
    repo = pygit2.Repository(str(path))
    index = pygit2.Index()
    for name, data in wanted.tree.items():
        index.add(pygit2.IndexEntry(name, repo.create_blob(data), FileMode.BLOB))
    who = pygit2.Signature("other", "other@example.com", int(wanted.now.timestamp()), 60)
    main = repo.references.get("refs/heads/main")
    parents = [main.target] if main else []
    commit = repo.create_commit("refs/heads/main", who, who, wanted.subject, index.write_tree(repo), parents)
    for tag in tags:
        repo.create_reference(f"refs/tags/{tag}", commit)
    repo.free()


def new_saver_kata(path: Path, model: Model, now: datetime) -> None:
    """A kata as saver leaves it after its creation, event 0."""
    path.mkdir(parents=True)
    repo = pygit2.init_repository(str(path), initial_head="main")
    repo.free()
    model.create(now)
    model.commits[0] = model.commits[0]._replace(ours=False)
    commit_as_another(path, model.commits[0], [0])
    for name in ("manifest.json", "options.json", "events.json", "README.md"):
        (path / name).write_bytes(model.commits[0].tree[name])
