"""What git says of a repository, and whether katafs says the same."""

from __future__ import annotations

import io
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from katafs.errors import KataError
from katafs.git import GitRepo
from tests.katas import git

#: as packs have them
KINDS = {b"commit": 1, b"tree": 2, b"blob": 3, b"tag": 4}
_ENTRY = re.compile(rb"([0-7]+) ([^\0]+)\0(.{20})", re.DOTALL)


class Truth(NamedTuple):
    """All objects, by id, as kind and bytes; all references; what ``git fsck`` says."""

    objects: dict[bytes, tuple[int, bytes]]
    references: dict[bytes, bytes]
    fsck: tuple[int, list[bytes]]

    @property
    def main(self) -> bytes:
        return self.references[b"refs/heads/main"]

    def tags(self) -> dict[int, bytes]:
        """The tags of events, as git has them: what they refer to, not peeled."""
        found = re.findall(rb"^refs/tags/(0|[1-9][0-9]*)$", b"\n".join(self.references), re.MULTILINE)
        return {int(name): self.references[b"refs/tags/" + name] for name in found}

    def peeled(self, oid: bytes) -> bytes:
        """The commit that an object stands for."""
        kind, data = self.objects[oid]
        return self.peeled(bytes.fromhex(data[7:47].decode())) if kind == KINDS[b"tag"] else oid

    def links(self, commit: bytes) -> tuple[bytes, list[bytes]]:
        """The tree and the parents of a commit."""
        head = self.objects[commit][1].partition(b"\n\n")[0]
        found = re.match(rb"tree (.{40})\n((?:parent .{40}\n)*)", head)
        assert found is not None
        parents = [bytes.fromhex(line[7:].decode()) for line in found[2].splitlines()]
        return bytes.fromhex(found[1].decode()), parents

    def entries(self, tree: bytes) -> list[tuple[bytes, int, bytes]]:
        """Name, mode and id of the entries of a tree."""
        return [(name, int(mode, 8), oid) for mode, name, oid in _ENTRY.findall(self.objects[tree][1])]

    def files(self, tree: bytes, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Path and bytes of all files below a tree; links are their text, submodules are none."""
        for name, mode, oid in self.entries(tree):
            if mode == 0o40000:
                yield from self.files(oid, prefix + name + b"/")
            elif mode != 0o160000:
                yield prefix + name, self.objects[oid][1]


def truth_of(path: Path) -> Truth:
    """Ask git."""
    output = io.BytesIO(git(path, "cat-file", "--batch-all-objects", "--batch", "--unordered"))
    objects = {}
    for line in output:
        oid, kind, size = line.split()
        objects[bytes.fromhex(oid.decode())] = (KINDS[kind], output.read(int(size)))
        output.read(1)
    listed = git(path, "for-each-ref", "--format=%(objectname) %(refname)").splitlines()
    references = {line[41:]: bytes.fromhex(line[:40].decode()) for line in listed}
    return Truth(objects, references, fsck(path))


def fsck(path: Path) -> tuple[int, list[bytes]]:
    """What ``git fsck`` ends with, and what it says."""
    command = ["git", "fsck", "--full", "--no-dangling", "--no-progress"]
    result = subprocess.run(command, cwd=path, capture_output=True, check=False)
    return result.returncode, sorted((result.stdout + result.stderr).splitlines())


def differences(path: Path, truth: Truth) -> Iterator[str]:
    """What katafs says otherwise than git, of each object and reference; nothing when all is well."""
    repo = GitRepo(path)
    for oid, (kind, data) in truth.objects.items():
        name = f"object {oid.hex()} (kind {kind}, {len(data)} bytes)"
        try:
            if repo.objects.read_any(oid) != (kind, data):
                yield f"{name} has other bytes"
            if kind == KINDS[b"blob"] and (repo.blob(oid), repo.blob_size(oid)) != (data, len(data)):
                yield f"{name} has another size"
            if kind == KINDS[b"tree"] and [(e.name, e.mode, e.oid) for e in repo.tree(oid)] != truth.entries(oid):
                yield f"{name} has other entries"
            if kind == KINDS[b"commit"]:
                commit = repo.commit(oid)
                if (commit.tree, list(commit.parents)) != truth.links(oid) or not data.endswith(commit.message):
                    yield f"{name} has other links"
        except KataError as error:
            yield f"{name}: {error}"
    yield from _other_references(repo, truth)


def _other_references(repo: GitRepo, truth: Truth) -> Iterator[str]:
    try:
        if repo.main() != truth.main:
            yield f"main is another: {repo.main()!r}"
        chain = [truth.main]
        while parents := truth.links(chain[-1])[1]:
            chain.append(parents[0])
        if [commit.oid for commit in repo.history(truth.main)] != chain:
            yield "the history is another"
    except KataError as error:
        yield f"main: {error}"
    tags = truth.tags()
    for index in range(max(tags, default=0) + 10):
        if repo.tag(index) != tags.get(index):
            yield f"tag {index} is another: {repo.tag(index)!r}"
    for index, oid in tags.items():
        try:
            if repo.commit(oid).oid != truth.peeled(oid):
                yield f"tag {index} is of another commit"
        except KataError as error:
            yield f"tag {index}: {error}"
