"""Reading objects: loose and packed, damaged in every way, and without any configuration."""

from __future__ import annotations

import gc
import os
import random
import weakref
import zlib
from pathlib import Path

import pygit2
import pytest

from katafs.errors import DamagedError, NotFoundError
from katafs.git import GitRepo
from katafs.git.format.stored import BLOB, COMMIT, TREE
from tests.katas import add_event, git, make_kata, tags_of

SIZES = (0, 1, 63, 64, 65, 4096, 65_535, 65_536, 65_537, 300_000)


@pytest.fixture
def kata(store: Path) -> Path:
    path = make_kata(store, "AbCdEf")
    add_event(path, 1, files={"a.txt": "a\n"})
    return path


def store_blob(path: Path, data: bytes) -> bytes:
    return bytes.fromhex(git(path, "hash-object", "-w", "--stdin", stdin=data).decode())


def loose_file(path: Path, oid: bytes) -> Path:
    return path / ".git" / "objects" / oid.hex()[:2] / oid.hex()[2:]


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_and_sizes_equal_gits(kata: Path, packed: bool) -> None:
    seeded = random.Random(7)
    contents = [seeded.randbytes(size) for size in SIZES] + [b"x\n" * size for size in SIZES]
    contents += [bytes(seeded.choices(range(256), range(256), k=2_000)) for _ in range(30)]
    oids = [store_blob(kata, data) for data in contents]
    repo = GitRepo(kata)
    if packed:
        git(
            kata,
            "pack-objects",
            "-q",
            kata / ".git/objects/pack/pack",
            stdin=b"".join(b"%b\n" % oid.hex().encode() for oid in oids),
        )
        git(kata, "prune-packed", "-q")
    assert loose_file(kata, oids[-1]).exists() != packed
    for oid, data in zip(oids, contents, strict=True):
        assert repo.blob(oid) == data
        assert repo.blob_size(oid) == len(data)


def test_a_repository_that_is_repacked_while_it_is_open(kata: Path) -> None:
    repo = GitRepo(kata)
    tip = repo.main()
    assert tip is not None
    before = repo.commit(tip)
    git(kata, "gc", "-q", "--prune=now")
    assert not loose_file(kata, tip).exists()
    assert repo.main() == tip
    assert repo.commit(tip) == before
    assert {index: repo.tag(index) for index in (0, 1)} == tags_of(kata)
    add_event(kata, 2)
    assert {index: repo.tag(index) for index in (0, 1, 2)} == tags_of(kata)
    assert repo.main() == repo.tag(2)


def test_every_way_to_damage_a_loose_object(kata: Path) -> None:
    data = b"line of text\n" * 500
    oid = store_blob(kata, data)
    file = loose_file(kata, oid)
    whole = file.read_bytes()
    file.chmod(0o644)
    other = zlib.compress(b"blob 5\0other")
    lies = [zlib.compress(b"blob %d\0" % size + data) for size in (0, len(data) - 1, len(data) + 1, 1 << 40)]
    cut = [whole[:length] for length in (0, 1, 2, 5, 10, 20, len(whole) - 5, len(whole) - 1)]
    for damaged in [other, *lies, *cut, b"rubbish", zlib.compress(b"no head"), zlib.compress(b"lump 3\0abc")]:
        file.write_bytes(damaged)
        with pytest.raises(DamagedError):
            GitRepo(kata).blob(oid)
    file.write_bytes(whole)
    assert GitRepo(kata).blob(oid) == data


def test_what_is_missing_or_of_another_kind(kata: Path) -> None:
    repo = GitRepo(kata)
    blob = store_blob(kata, b"a blob\n")
    tip = repo.main()
    assert tip is not None
    for oid, kind in ((blob, TREE), (blob, COMMIT), (tip, BLOB), (b"\1" * 20, BLOB)):
        with pytest.raises(DamagedError):
            repo.objects.read(oid, kind)
    with pytest.raises(DamagedError):
        repo.blob_size(b"\1" * 20)
    with pytest.raises(DamagedError):
        repo.commit(blob)
    (kata / ".git").rename(kata / "gone")
    with pytest.raises(NotFoundError):
        repo.blob(b"\1" * 20)


def test_a_name_that_is_there_twice_is_the_first_and_stands_there(kata: Path) -> None:
    blob, other = store_blob(kata, b"1"), store_blob(kata, b"2")
    rows = [b"100644 a\0" + blob, b"100644 a.b\0" + blob, b"100755 a\0" + other]
    command = ["hash-object", "-w", "-t", "tree", "--literally", "--stdin"]
    tree = bytes.fromhex(git(kata, *command, stdin=b"".join(rows)).decode())
    found = GitRepo(kata).tree(tree)
    assert [(entry.name, entry.mode, entry.oid) for entry in found] == [
        (b"a", 0o100644, blob),
        (b"a.b", 0o100644, blob),
    ]


def test_an_annotated_tag_stands_for_its_commit(kata: Path) -> None:
    git(kata, "tag", "-f", "-a", "-m", "annotated", "1", "main")
    repo = GitRepo(kata)
    tip = repo.main()
    assert tip is not None
    assert repo.tag(1) != tip
    assert repo.commit_of_event(tip, 1).oid == tip


def test_references_that_are_no_ids(kata: Path) -> None:
    main = kata / ".git/refs/heads/main"
    for rubbish in (b"", b"rubbish\n", b"ref: refs/heads/main\n", b"0" * 39 + b"\n", b"0" * 41):
        main.write_bytes(rubbish)
        with pytest.raises(DamagedError):
            GitRepo(kata).main()
    main.unlink()
    main.symlink_to("/etc/passwd")
    with pytest.raises(DamagedError):
        GitRepo(kata).main()
    main.unlink()
    assert GitRepo(kata).main() is None


def test_no_configuration_and_no_alternates_are_obeyed(kata: Path, store: Path) -> None:
    """A pipe that is included would be waited for; an alternate would show another kata's objects."""
    other = make_kata(store, "ABCDEF", {"secret.txt": "a secret\n"})
    secret = store_blob(other, b"another secret\n")
    os.mkfifo(kata / "pipe")
    (kata / ".git/config").write_text(f"[include]\n\tpath = {kata}/pipe\n")
    (kata / ".git/objects/info").mkdir(exist_ok=True)
    (kata / ".git/objects/info/alternates").write_text(f"{other}/.git/objects\n")
    repo = GitRepo(kata)
    assert repo.main() is not None
    with pytest.raises(DamagedError):
        repo.blob(secret)


def test_what_libgit2_was_lent_is_not_kept(kata: Path) -> None:
    """The garbage collector does not see what libgit2 holds: each repository in which renames were looked for stayed in
    memory, with its packs open."""
    git(kata, "repack", "-adq")
    repo = GitRepo(kata)
    tip = repo.main()
    assert tip is not None
    assert isinstance(repo.objects.repository[pygit2.Oid(raw=repo.commit(tip).tree)], pygit2.Tree)
    objects = weakref.ref(repo.objects)
    del repo
    gc.collect()
    assert objects() is None
