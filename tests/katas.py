"""Katas for tests: the shared ones unpacked, others made, and what git itself says of them."""

from __future__ import annotations

import functools
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from katafs.kata.commit import append
from katafs.kata.create import create_kata
from katafs.kata.ids import kata_path
from katafs.kata.message import parse_ran_tests

START = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)


def unpack(archive: Path, store: Path) -> None:
    """Unpack one of the shared archives, whose members are ``cyber-dojo/katas/Ab/Cd/Ef/…``, into a store."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            parts = Path(member.name).parts
            if parts[:2] == ("cyber-dojo", "katas") and len(parts) > 2:
                member.name = str(Path(*parts[2:]))
                tar.extract(member, store, filter="fully_trusted")


def git(path: Path, *arguments: object, stdin: bytes = b"") -> bytes:
    """What the git command prints, run in ``path``."""
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, cwd=path, input=stdin, capture_output=True, check=True).stdout


def message(files: Mapping[str, str] | None = None, colour: str = "red", **more: Any) -> dict[str, Any]:
    """A ``ran_tests`` message."""
    made: dict[str, Any] = {"summary": {"colour": colour, "duration": 1.25, "predicted": "none"}, **more}
    if files is not None:
        made["files"] = {name: {"content": content} for name, content in files.items()}
    return made


def make_kata(store: Path, kata_id: str, files: Mapping[str, str] | None = None, exercise: str = "Fizz Buzz") -> Path:
    """A native kata with event 0 only: its directory."""
    first = files if files is not None else {"hiker.py": "def answer():\n    return 6 * 9\n", "cyber-dojo.sh": "pytest\n"}
    manifest = {
        "display_name": "Python, pytest",
        "exercise": exercise,
        "visible_files": {name: {"content": content} for name, content in first.items()},
    }
    create_kata(store, manifest, kata_id, START)
    return kata_path(store, kata_id)


def add_event(path: Path, index: int, **fields: Any) -> None:
    """Record a test run, a minute after the one before."""
    kata_id = "".join(path.parts[-3:])
    data = json.dumps(message(**fields)).encode()
    append(path, kata_id, parse_ran_tests(data), START + timedelta(minutes=index))


ODD_NAMES = ("with space.txt", "grüße/日本.txt", "a/b/c/deep.txt", 'quote".txt', "back\\slash.txt", ".hidden", "-dash")


def make_long_kata(store: Path, kata_id: str, events: int = 300) -> Path:
    """A native kata with a long history: files changed, renamed, deleted, emptied, with CRLF and odd names."""
    path = make_kata(store, kata_id)
    files = {"hiker.py": "def answer():\n    return 6 * 9\n", "cyber-dojo.sh": "pytest\n"}
    for index in range(1, events + 1):
        files["hiker.py"] = "".join(f"line {number} of {index}\n" for number in range(index % 40))
        files["dos.txt"] = f"one\r\ntwo {index // 5}\r\n" + ("three" if index % 2 else "three\r\n")
        files["empty.txt"] = "" if index % 3 else "not empty\n"
        odd = ODD_NAMES[index % len(ODD_NAMES)]
        if odd in files:
            del files[odd]
        else:
            files[odd] = f"{odd} at {index // 10}\n"
        moved = {"step.txt", "renamed/step.txt"} & set(files)
        name = "step.txt" if index // 4 % 2 else "renamed/step.txt"
        files = {key: value for key, value in files.items() if key not in moved}
        files[name] = "the same\nlines\nmoved about\n" + ("edited\n" if index % 4 == 3 else "")
        add_event(
            path,
            index,
            files=files,
            colour=("red", "amber", "green")[index % 3],
            stdout={"content": f"run {index}\n" * (index % 5), "truncated": index % 7 == 0},
            stderr={"content": "" if index % 2 else "wärning\n"},
            status=str(index % 3),
        )
    return path


class GitFile(NamedTuple):
    """A blob to be committed: its path, bytes and mode."""

    path: str
    data: bytes
    mode: str = "100644"


class GitCommit(NamedTuple):
    """A commit to be made by `import_commits`; ``files`` is the whole tree."""

    message: str
    files: Sequence[GitFile]
    tags: Sequence[int] = ()
    seconds: int = 0  # after `START`


def import_commits(path: Path, commits: Sequence[GitCommit]) -> Path:
    """Make a repository in ``path`` with these commits on ``main``, by git itself: loose objects, loose tags."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "-q", "-b", "main")
    stream: list[bytes] = []
    for number, commit in enumerate(commits, start=1):
        moment = int(START.timestamp()) + commit.seconds
        text = commit.message.encode()
        stream.append(b"commit refs/heads/main\nmark :%d\ncommitter k <k@cyber-dojo.org> %d +0000\n" % (number, moment))
        stream.append(b"data %d\n%s\ndeleteall\n" % (len(text), text))
        for file in commit.files:
            name = "".join(f"\\{byte:03o}" for byte in os.fsencode(file.path))
            stream.append(f'M {file.mode} inline "{name}"\ndata {len(file.data)}\n'.encode() + file.data + b"\n")
        stream.extend(b"reset refs/tags/%d\nfrom :%d\n\n" % (index, number) for index in commit.tags)
    git(path, "-c", "fastimport.unpackLimit=100000", "fast-import", "--quiet", stdin=b"".join(stream))
    return path


def row_time(seconds: int) -> list[int]:
    """The time of a row, that many seconds after `START`."""
    at = START + timedelta(seconds=seconds)
    return [at.year, at.month, at.day, at.hour, at.minute, at.second, at.microsecond]


def time_ns(time: Sequence[int]) -> int:
    """The time of a row in nanoseconds since the epoch."""
    moment = datetime(*time, tzinfo=UTC)  # type: ignore[misc, arg-type]
    return int(moment.replace(microsecond=0).timestamp()) * 1_000_000_000 + moment.microsecond * 1000


def pretty_json(value: object) -> bytes:
    """The bytes of a JSON file in the mount: two spaces, non-ASCII as it is, a newline at the end."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def git_files(path: Path, commit: str) -> dict[bytes, str]:
    """Paths and blob ids of all files of a commit, as git lists them."""
    lines = git(path, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]
    return {line.split(b"\t", 1)[1]: line.split(b" ", 3)[2][:40].decode() for line in lines}


def git_blobs(path: Path, ids: Iterable[str]) -> dict[str, bytes]:
    """The bytes of blobs, as git gives them."""
    wanted = sorted(set(ids))
    output = io.BytesIO(git(path, "cat-file", "--batch", stdin="".join(f"{oid}\n" for oid in wanted).encode()))
    found = {}
    for oid in wanted:
        name, kind, size = output.readline().split()
        assert (name.decode(), kind) == (oid, b"blob")
        found[oid] = output.read(int(size))
        output.read(1)
    return found


@functools.cache
def long_store(base: Path) -> Path:
    """A store with the native kata ``LngKat`` of 300 events; made once for a ``base`` directory. Not to be changed."""
    store = base / "long-store"
    store.mkdir()
    make_long_kata(store, "LngKat")
    return store
