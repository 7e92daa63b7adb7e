"""Damaged katas on a mount: what looking around makes, and what fails when an object cannot be read."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from katafs.kata.model.ids import kata_path
from katafs.tree.numbers import FIXED, Key, Numbers
from tests.katas import add_event, git, git_files, loose, loosen, make_kata
from tests.mounts import MakeMount, Mount, wait_until
from tests.tree.test_tree import NATIVE, SAVER, content, fresh, nodes_below

DAMAGE = "ERROR .* (is damaged|is missing|cannot be compared)"


def test_looking_around_makes_nothing(mount: MakeMount, saver_kata: Path, mode: str) -> None:
    """Every file of the kata is damaged: whatever makes a diff or an archive fails, and says so in the log."""
    for index in range(8):
        for path, oid in git_files(saver_kata, f"refs/tags/{index}").items():
            if path.startswith(b"files/"):
                damage(saver_kata, oid)
    mounted = mount(saver_kata.parents[2], mode)
    kata = mounted.kata(SAVER)
    looks = ["ls", "ls diff", "ls download", "find diff -type f", "find download -maxdepth 1", "ls -l download.tgz"]
    for look in (*looks, "find diff events -name '*.json'", "find . -maxdepth 2 -name 'x*'"):
        result = subprocess.run(["sh", "-c", look], cwd=kata, capture_output=True, check=True)
        assert bool(result.stdout) == (look != "find . -maxdepth 2 -name 'x*'"), look
    assert "ERROR" not in mounted.log_text()
    mounted.expected_log = DAMAGE
    for name in ("diff/0..1", "diff/2..3.json", "download.tgz"):
        with pytest.raises(OSError, match="Input/output error"):
            (kata / name).stat()
    with pytest.raises(OSError, match="Input/output error"):
        os.listdir(kata / "download" / (kata / "download.tgz").readlink().stem)


# -- damaged repositories


def damage(path: Path, oid: str) -> None:
    """Overwrite a loose object; it may have been overwritten before."""
    file = loose(path, oid)
    file.chmod(0o644)
    file.write_bytes(b"not an object")


def remove(path: Path, oid: str) -> None:
    loose(path, oid).unlink()


BY_NAME = [b"/events/%d.json" % index for index in range(4)] + [b"/diff/0..3.json", b"/diff/3..2.summary.json"]
DOWNLOAD = {b"/download.tgz", b"/download"}
EVENT_2 = {b"/events/2", b"/events/2.json", b"/diff/1..2", b"/diff/2..3", b"/diff/3..2.summary.json"}
EVENT_2 |= {b"/html/1..2.html", b"/html/2..3.html"}
NEEDS = {
    "2:files/hiker.py": {b"/events/2/files/hiker.py", *EVENT_2} - {b"/events/2"},
    "2:files": {b"/events/2/files", *EVENT_2} - {b"/events/2"},
    "2:stdout": {b"/events/2/stdout", b"/events/2.json", b"/html/1..2.html"},
    "2:truncations.json": {b"/events/2/truncations.json", b"/events/2.json"},
    "2:events_summary.json": {b"/events/2/events_summary.json"},
    "2:config": {b"/config", *(b"/events/%d/config" % index for index in range(4))},
    "2:manifest.json": {b"/manifest.json", *(b"/events/%d/manifest.json" % index for index in range(4)), *DOWNLOAD},
    "2^{tree}": EVENT_2,
    "2": {*EVENT_2, b"/config"},
}


TIPS = ("main", "main^{tree}", "main:events_summary.json")
BREAKS = [(break_object, what) for break_object in (damage, remove) for what in (*NEEDS, *TIPS)]
IDS = {(break_object.__name__, what): f"DMG0{number:02}" for number, (break_object, what) in enumerate(BREAKS)}


@pytest.fixture(scope="module")
def damaged_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kata of four events, and many copies of it, in each one object is damaged."""
    store = tmp_path_factory.mktemp("damage")
    path = make_kata(store, NATIVE)
    for index in (1, 2, 3):
        output = {"content": f"run {index}", "truncated": index == 2}
        add_event(path, index, files={"hiker.py": f"{index}\n", "same/same": "same\n"}, stdout=output, status="1")
    loosen(path)
    for break_object, what in BREAKS:
        copy = kata_path(store, IDS[break_object.__name__, what])
        shutil.copytree(path, copy)
        name = what if what in TIPS else f"refs/tags/{what}"
        break_object(copy, git(copy, "rev-parse", name).decode().strip())
    return store


@pytest.fixture(scope="module")
def intact(damaged_store: Path) -> dict[bytes, object]:
    return image(damaged_store)


@pytest.fixture(scope="module")
def broken(fuse: None, damaged_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    mount = Mount(damaged_store, tmp_path_factory.mktemp("broken") / "mnt", "fast", ())
    mount.expected_log = DAMAGE
    with mount:
        yield mount
    assert "Traceback" not in mount.log_text()


@pytest.mark.parametrize("how", ["damage", "remove"])
@pytest.mark.parametrize("what", NEEDS)
def test_damage_is_an_error_for_what_needs_it(broken: Mount, intact: dict[bytes, object], what: str, how: str) -> None:
    """One object of event 2 is damaged. Everything that does not need it is as before, and can be listed."""
    assert len(intact) > 100
    kata = broken.kata(IDS[how, what])
    failed: dict[bytes, int | None] = {}
    for name, data in intact.items():
        try:
            seen = read(os.fsencode(kata) + name)
            # what control files explain, and pages, have the id in them
            assert name in DOWNLOAD or name.startswith((b"/control/", b"/html/")) or seen == data, name
        except OSError as error:
            failed[name] = error.errno
    assert set(failed.values()) == {errno.EIO}
    # what is in a directory that cannot be read needs not be named
    outermost = {name for name in failed if not any(name.startswith(other + b"/") for other in failed)}
    assert {re.sub(b"/config/.*", b"/config", name) for name in outermost} == NEEDS[what]
    with pytest.raises(OSError, match="Input/output error"):
        (kata / "download.tgz").read_bytes()


@pytest.mark.parametrize("how", ["damage", "remove"])
@pytest.mark.parametrize("what", TIPS)
def test_a_kata_whose_tip_is_damaged_shows_its_repository(broken: Mount, what: str, how: str) -> None:
    kata = broken.kata(IDS[how, what])
    assert os.listdir(kata) == [".git"]
    assert (kata / ".git/HEAD").read_bytes() == b"ref: refs/heads/main\n"
    for name in ("events", "ran_tests", "manifest.json"):
        # what cannot be read may be there
        with pytest.raises(OSError, match="Input/output error"):
            (kata / name).stat()
    assert not (kata / "nothing").exists()


def image(store: Path) -> dict[bytes, object]:
    """What is in the kata, but for the download and ``.git``: the bytes of files, the names in directories."""
    with fresh(store) as tree:
        top = tree.node(Numbers.number(Key(FIXED, NATIVE, 0)))
        below = nodes_below(tree, top)
        nodes = {name: node for name, node, _ in below if not name.startswith((b"/.git", b"/download/"))}
        for name in BY_NAME:
            directory, _, last = name[1:].partition(b"/")
            nodes[name] = top.child(directory).node.child(last).node
        return {name: node.names() if stat.S_ISDIR(node.mode) else content(node) for name, node in nodes.items()}


def read(path: bytes) -> object:
    if os.path.islink(path):
        return os.readlink(path)
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        return os.listdir(path)
    with open(path, "rb") as file:
        data = file.read()
    assert len(data) == status.st_size
    return data


def test_only_what_is_below_a_damaged_directory_fails(mount: MakeMount, store: Path, mode: str) -> None:
    """What is in front of it, and behind it, is there with the right bytes, also when it was mended."""
    names = ("a.txt", "b/c/deep.txt", "b/x.txt", "m/n/inner.txt", "m/o.txt", "p/q.txt", "p/r/s.txt", "z.txt")
    path = make_kata(store, NATIVE)
    files = {name: f"this is {name}\n" for name in names}
    add_event(path, 1, files=files)
    loosen(path)
    oid = git(path, "rev-parse", "1:files/m").decode().strip()
    object_file = loose(path, oid)
    saved = object_file.read_bytes()
    damage(path, oid)
    mounted = mount(store, mode)
    mounted.expected_log = DAMAGE
    for top in (mounted.kata(NATIVE) / "files", mounted.kata(NATIVE) / "events/1/files"):
        assert sorted(os.listdir(top)) == ["a.txt", "b", "m", "p", "z.txt"]
        for name, text in files.items():
            if name.startswith("m/"):
                with pytest.raises(OSError, match="Input/output error"):
                    (top / name).read_text()
            else:
                assert (top / name).read_text() == text
                assert (top / name).stat().st_size == len(text)
        with pytest.raises(OSError, match="Input/output error"):
            os.listdir(top / "m")
        found = subprocess.run(["find", ".", "-type", "f"], cwd=top, capture_output=True, check=False).stdout
        assert set(found.decode().split()) == {f"./{name}" for name in names if not name.startswith("m/")}
    object_file.write_bytes(saved)
    for top in (mounted.kata(NATIVE) / "files", mounted.kata(NATIVE) / "events/1/files"):
        wait_until(lambda top=top: _reads(top, files), "the mended directory", 5)  # type: ignore[misc]


def _reads(top: Path, files: dict[str, str]) -> bool:
    try:
        return {name: (top / name).read_text() for name in files} == files
    except OSError:
        return False
