"""A kata in the mount against an expansion of it that is written here, from git and from the interface alone.

`expected` says what every listed file of a kata must be. The tools that people use must see those files and bytes, and
nothing else.
"""

from __future__ import annotations

import functools
import io
import json
import os
import re
import shutil
import stat
import subprocess
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import MODES
from tests.katas import (
    git,
    git_blobs,
    git_files,
    long_store,
    make_odd_kata,
    pretty_json,
    time_ns,
    trust,
    unpack,
)
from tests.mounts import Mount

SAVER, NATIVE, LONG = "rG63fy", "Nt1veK", "LngKat"
OPTIONS = ("theme", "colour", "predict", "revert_red", "revert_amber", "revert_green")
GIT_SHOWN = ("COMMIT_EDITMSG", "HEAD", "ORIG_HEAD", "config", "description", "index", "logs", "objects", "refs")
CONTROLS = (
    b"ran_tests",
    b"control/ran_tests",
    b"control/predicted_right",
    b"control/predicted_wrong",
    b"control/reverted",
    b"control/checked_out",
    b"control/file_create",
    b"control/file_delete",
    b"control/file_rename",
    b"control/file_edit",
)


class Shown(NamedTuple):
    """A file: its bytes, and its time where the interface gives one. None: known elsewhere."""

    data: bytes | None
    mtime_ns: int | None = None


@functools.cache
def expected(path: Path) -> dict[bytes, Shown]:
    """All files that the kata stored at ``path`` shows, by path."""
    tip = git_files(path, "main")
    is_native = b"events_summary.json" in tip
    (stored_rows,) = git_blobs(path, [tip[b"events_summary.json" if is_native else b"events.json"]]).values()
    rows = json.loads(stored_rows)
    trees = [git_files(path, f"refs/tags/{index}") for index in range(len(rows))]
    blobs = git_blobs(path, {oid for tree in (tip, *trees) for oid in tree.values()})
    shown: dict[bytes, Shown] = {}
    summary = b"["
    for index, tree in enumerate(trees):
        row = pretty_json({**rows[index], "type": "test" if index else "created"})
        summary += (b",\n  " if index else b"\n  ") + row[:-1].replace(b"\n", b"\n  ")
        stored = {name: blobs[oid] for name, oid in tree.items()}
        event = _expected_event(stored, is_native=is_native, is_first=index == 0)
        event |= {b"event.json": row, b"events_summary.json": summary + b"\n]\n"}
        assert not is_native or event == {**event, **stored}, "in the native layout all is stored as it is shown"
        when = time_ns(rows[index]["time"])
        shown |= {b"events/%d/%s" % (index, name): Shown(data, when) for name, data in event.items()}
        if index:
            shown[b"diff/%d..%d" % (index - 1, index)] = Shown(None, max(when, time_ns(rows[index - 1]["time"])))
    shown |= _expected_tip({name: blobs[oid] for name, oid in tip.items()}, shown, len(rows) - 1)
    made = int(git(path, "log", "--format=%ct", "--reverse").split()[0]) * 1_000_000_000
    shown |= {name: Shown(file.data, made) for name, file in shown.items() if name.startswith(b"config/")}
    return {**shown, **_expected_git(path)}


def _expected_event(stored: dict[bytes, bytes], *, is_native: bool, is_first: bool) -> dict[bytes, bytes]:
    seen = {name: data for name, data in stored.items() if name.startswith((b"files/", b"config/"))}
    for name, empty in ((b"stdout", b""), (b"stderr", b""), (b"status", b"0")):
        seen[name] = empty if is_first else stored.get(name, empty)
    seen[b"manifest.json"] = stored[b"manifest.json"]
    if is_native:
        seen[b"truncations.json"] = stored[b"truncations.json"]
    else:
        options = json.loads(stored[b"options.json"])
        seen |= {f"config/{name}".encode(): f"{options[name]}\n".encode() for name in OPTIONS}
        flags = json.loads(stored.get(b"truncations.json", b"{}"))
        flags = {name: flags.get(name, False) for name in ("stdout", "stderr", "status")}
        seen[b"truncations.json"] = pretty_json({"files": {}, **flags})
    return seen


def _expected_tip(stored: dict[bytes, bytes], shown: dict[bytes, Shown], last: int) -> dict[bytes, Shown]:
    first, newest = b"events/0/files/", b"events/%d/" % last
    tip = {name.removeprefix(newest): file for name, file in shown.items() if name.startswith(newest)}
    visible = {
        name.removeprefix(first).decode(): {"content": (file.data or b"").decode()}
        for name, file in shown.items()
        if name.startswith(first)
    }
    tip[b"manifest.json"] = Shown(pretty_json({**json.loads(stored[b"manifest.json"]), "visible_files": visible}))
    tip[b"events.json"] = tip[b"events_summary.json"]
    for name in (b"README.md", b"options.json", b"events.json"):
        if name in stored:
            tip[name] = Shown(stored[name], tip[b"event.json"].mtime_ns)
    # what the pages and the table say is for tests of their own
    pages = [b"html/%d..%d.html" % (max(index - 1, 0), index) for index in range(last + 1)]
    return {**tip, **dict.fromkeys((*CONTROLS, b"history", b"html/index.html", *pages), Shown(None))}


def _expected_git(path: Path) -> dict[bytes, Shown]:
    shown = {}
    for parent, _, names in os.walk(path / ".git"):
        for name in (os.path.relpath(os.path.join(parent, name), path) for name in names):
            if name.split("/")[1] in GIT_SHOWN:
                data = None if name == ".git/config" else (path / name).read_bytes()
                shown[os.fsencode(name)] = Shown(data, (path / name).stat().st_mtime_ns)
    return shown


def walk(top: Path) -> Iterator[tuple[bytes, os.stat_result]]:
    """Everything below a directory: paths relative to it, and what lstat says."""
    root = os.fsencode(top)
    for parent, directories, files in os.walk(root):
        for name in (*directories, *files):
            path = os.path.join(parent, name)
            yield os.path.relpath(path, root), os.lstat(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, shared_katas: Path) -> Path:
    store = tmp_path_factory.mktemp("expansion") / "store"
    store.mkdir()
    unpack(shared_katas / "saver-v2-rG63fy.tgz", store)
    make_odd_kata(store, NATIVE)
    shutil.copytree(long_store(tmp_path_factory.getbasetemp()), store, dirs_exist_ok=True)
    return store


@pytest.fixture(scope="module", params=MODES)
def mounted(request: pytest.FixtureRequest, fuse: None, store: Path) -> Iterator[Mount]:
    with Mount(store, store.parent / f"mnt-{request.param}", request.param, ()) as mount:
        yield mount


@pytest.mark.parametrize("kata_id", [SAVER, NATIVE])
def test_every_file_is_there_with_its_bytes_and_attributes(mounted: Mount, kata_id: str) -> None:
    top = mounted.kata(kata_id)
    path = mounted.store / top.relative_to(mounted.path)
    owner = path.stat()
    wanted = expected(path)
    seen = {name: status for name, status in walk(top) if not name.startswith(b"download/")}
    files = {name for name, status in seen.items() if stat.S_ISREG(status.st_mode)}
    assert files == wanted.keys()
    links = {name for name, status in seen.items() if stat.S_ISLNK(status.st_mode)}
    assert links == {b"events/latest", b"diff/latest", b"download.tgz"}
    contents: defaultdict[int, set[bytes]] = defaultdict(set)
    for name, status in seen.items():
        assert (status.st_uid, status.st_gid, status.st_nlink) == (owner.st_uid, owner.st_gid, 1)
        if stat.S_ISREG(status.st_mode):
            data = (top / os.fsdecode(name)).read_bytes()
            check_file(name, status, data, wanted[name])
            contents[status.st_ino].add(data)
        else:
            assert stat.S_IMODE(status.st_mode) == (0o777 if name in links else 0o555), name
    directories = [status.st_ino for status in seen.values() if stat.S_ISDIR(status.st_mode)]
    assert len(set(directories)) == len(directories), "a directory has one number, at one place"
    assert not [number for number, datas in contents.items() if len(datas) > 1], "different bytes, different numbers"
    assert not contents.keys() & set(directories)
    assert max(*directories, *contents) < 1 << 63, "Node.js shows larger ones as negative"


def check_file(name: bytes, status: os.stat_result, data: bytes, wanted: Shown) -> None:
    is_writable = name in CONTROLS or name.startswith(b"config/")
    assert stat.S_IMODE(status.st_mode) == (0o644 if is_writable else 0o444), name
    assert status.st_size == len(data), name
    assert status.st_blocks == -(-len(data) // 512), name
    assert wanted.data in (None, data), name
    # of what changes with the tip the nanoseconds say that it is another one
    exactly = 1000 if name in (b"README.md", b"options.json", b"events.json") else 1
    assert wanted.mtime_ns is None or wanted.mtime_ns // exactly == status.st_mtime_ns // exactly, name


# -- what tools see


@pytest.fixture(scope="module")
def expansion(store: Path, tmp_path_factory: pytest.TempPathFactory, mounted: Mount) -> tuple[Path, Path]:
    """A kata in the mount, and the same as plain files, as `expected` has it; what that does not know is read one by
    one."""
    top = mounted.kata(NATIVE if mounted.mode == "fast" else SAVER)
    plain = tmp_path_factory.mktemp("plain") / top.name
    for name, shown in expected(store / top.relative_to(mounted.path)).items():
        path = plain / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((top / os.fsdecode(name)).read_bytes() if shown.data is None else shown.data)
    for link in ("events/latest", "diff/latest", "download.tgz"):
        (plain / link).symlink_to((top / link).readlink())
    archive = (top / "download.tgz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        trust(tar)
        tar.extractall(plain / "download")
    (plain / (top / "download.tgz").readlink()).write_bytes(archive)
    for empty in ("refs/heads", "refs/tags", "objects/pack", "objects/info"):
        (plain / ".git" / empty).mkdir(parents=True, exist_ok=True)
    return top, plain


def run(*command: object, cwd: Path) -> bytes:
    result = subprocess.run([os.fspath(part) for part in command], cwd=cwd, capture_output=True, check=False)  # type: ignore[call-overload]
    assert (result.returncode, result.stderr) == (0, b""), (command, result.stderr[-2000:])
    return bytes(result.stdout)


def image(top: Path) -> dict[bytes, tuple[object, ...]]:
    """All that a faithful copy keeps of everything below a directory."""
    found: dict[bytes, tuple[object, ...]] = {}
    for name, status in walk(top):
        path = top / os.fsdecode(name)
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[name] = (stat.filemode(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def test_find_grep_and_diff(expansion: tuple[Path, Path]) -> None:
    top, plain = expansion
    assert run("diff", "-r", "--no-dereference", top, plain, cwd=plain) == b""
    for command in (
        ["find", ".", "-type", "f", "-printf", "%P %s\\0"],
        ["find", ".", "-name", "*.txt", "-printf", "%P\\0"],
        ["grep", "-r", "-l", "-Z", "e", "."],
        ["grep", "-r", "-L", "-Z", "日\\|run\\|こん", "."],
        ["find", ".", "-type", "f", "-exec", "sha1sum", "-z", "{}", "+"],
    ):
        outputs = [sorted(run(*command, cwd=place).split(b"\0")) for place in (top, plain)]
        assert outputs[0] == outputs[1]
        assert len(outputs[0]) > 5
    count = run("sh", "-c", "find . -type f | grep -c ''", cwd=top)
    assert count == run("sh", "-c", "find . -type f | grep -c ''", cwd=plain)


def test_ls_and_tar(expansion: tuple[Path, Path]) -> None:
    top, plain = expansion
    sizes = [
        sorted(re.findall(rb"^-\S+ +\d+ \S+ +\S+ +(\d+) ", run("ls", "-AlRb", at, cwd=at), re.MULTILINE))
        for at in (top, plain)
    ]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) > 100
    for flags in ("-cf", "-cSf"):
        members: list[dict[str, bytes | None]] = []
        for place in (top, plain):
            with tarfile.open(fileobj=io.BytesIO(run("tar", flags, "-", ".", cwd=place))) as tar:
                files = {item.name: tar.extractfile(item) if item.isreg() else None for item in tar.getmembers()}
                members.append({name: file.read() if file else None for name, file in files.items()})
        assert members[0] == members[1]


@pytest.mark.parametrize(("command", "kata_id"), [("cp -a", SAVER), ("rsync -a", NATIVE)])
def test_copies_are_the_same(mounted: Mount, tmp_path: Path, command: str, kata_id: str) -> None:
    top = mounted.kata(kata_id)
    run(*command.split(), top, tmp_path, cwd=tmp_path)
    copy = tmp_path / top.name
    assert image(copy) == image(top)
    assert run("rsync", "-ain", f"{top}/", f"{copy}/", cwd=tmp_path) == b"", "a second copy has nothing to do"


def test_every_byte_of_a_long_history(mounted: Mount) -> None:
    top = mounted.kata(LONG)
    events = range(0, 301, 1 if mounted.mode == "fast" else 6)
    packed = run("tar", "-cf", "-", *map(str, events), cwd=top / "events")
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        files = {os.fsencode(item.name): tar.extractfile(item) for item in tar.getmembers() if item.isreg()}
        found = {name: file.read() for name, file in files.items() if file}
    wanted = {}
    for name, shown in expected(mounted.store / top.relative_to(mounted.path)).items():
        directory, _, rest = name.partition(b"/")
        if directory == b"events" and int(rest.partition(b"/")[0]) in events:
            wanted[rest] = shown.data
    assert found == wanted
    assert len(found) > 20 * len(events)
