"""Katas for tests: the shared ones unpacked, others made, and what git itself says of them."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import record
from katafs.kata.record.create import create_kata
from katafs.kata.record.message import parse_act
from tests.mounts import Mount
from tests.scratch import fast_directory

START = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)


def unpack(archive: Path, store: Path) -> None:
    """Unpack one of the shared archives, whose members are ``cyber-dojo/katas/Ab/Cd/Ef/…``, into a store."""
    with tarfile.open(archive) as tar:
        trust(tar)
        for member in tar.getmembers():
            parts = Path(member.name).parts
            if parts[:2] == ("cyber-dojo", "katas") and len(parts) > 2:
                member.name = str(Path(*parts[2:]))
                tar.extract(member, store)


def trust(tar: tarfile.TarFile) -> None:
    """Have all that is in an archive unpacked, as it is; Debian's Python 3.11.2 does so in any case, and has no
    filters."""
    tar.extraction_filter = getattr(tarfile, "fully_trusted_filter", lambda member, _path: member)


def git(path: Path, *arguments: object, stdin: bytes = b"") -> bytes:
    """What the git command prints, run in ``path``."""
    command = ["git", *map(str, arguments)]
    result = subprocess.run(command, cwd=path, input=stdin, capture_output=True, check=False)
    if result.returncode:
        error = subprocess.CalledProcessError(result.returncode, command, result.stdout, result.stderr)
        error.add_note(result.stderr.decode(errors="replace"))
        raise error
    return result.stdout


def loose(path: Path, name: str) -> Path:
    """The file of a loose object, by any name that git knows."""
    oid = git(path, "rev-parse", name).decode().strip()
    return path / ".git" / "objects" / oid[:2] / oid[2:]


def loosen(path: Path) -> None:
    """Unpack all packs of a kata, so that each object is a file that can be damaged."""
    packs = path / ".git/objects/pack"
    for data, name in [(pack.read_bytes(), pack.stem) for pack in packs.glob("*.pack")]:
        for file in packs.glob(f"{name}.*"):
            # git stores nothing that it finds
            file.unlink()
        git(path, "unpack-objects", "-q", stdin=data)


def message(files: Mapping[str, str] | None = None, colour: str = "red", **more: Any) -> dict[str, Any]:
    """A ``ran_tests`` message."""
    made: dict[str, Any] = {"summary": {"colour": colour, "duration": 1.25, "predicted": "none"}, **more}
    if files is not None:
        made["files"] = {name: {"content": content} for name, content in files.items()}
    return made


def make_kata(store: Path, kata_id: str, files: Mapping[str, str] | None = None, exercise: str = "Fizz Buzz") -> Path:
    """A native kata with event 0 only: its directory."""
    first = (
        files if files is not None else {"hiker.py": "def answer():\n    return 6 * 9\n", "cyber-dojo.sh": "pytest\n"}
    )
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
    data = json.dumps(message(index=index, **fields)).encode()
    record(path, kata_id, parse_act(Kind.RAN_TESTS, data), START + timedelta(minutes=index))


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


ODD_FILES = {
    "with space.txt": "blank\n",
    "grüße/日本.txt": "こんにちは",
    "a/b/c/deep.txt": "deep\n",
    "quo\"te'.txt": "quotes\n",
    "new\nline.txt": "newline\n",
    "back\\slash.txt": "backslash\n",
    "*.txt": "star\n",
    ".hidden/.file": "hidden\n",
    "-dash": "dash\n",
    "same/name.txt": "one of two\n",
    "other/name.txt": "two of two\n",
    "empty": "",
    "large.txt": "0123456789abcdef\n" * 12_000,
}


def make_odd_kata(store: Path, kata_id: str) -> Path:
    """A native kata of five events with odd names and sizes, two files swapped at each."""
    path = make_kata(store, kata_id, ODD_FILES)
    files = dict(ODD_FILES)
    for index in range(1, 5):
        files["empty"] = f"not empty at {index}\n" if index % 2 else ""
        files["same/name.txt"], files["other/name.txt"] = files["other/name.txt"], files["same/name.txt"]
        add_event(path, index, files=files, stdout={"content": f"run {index}\n"}, status=str(index))
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
    # made in memory, where syncing costs nothing
    with tempfile.TemporaryDirectory(dir=fast_directory()) as directory:
        make_long_kata(Path(directory), "LngKat")
        shutil.copytree(directory, base / "long-store")
    return base / "long-store"


def stored_rows(path: Path, at: str = "main") -> list[dict[str, Any]]:
    """The rows that a commit of a kata holds, in either layout."""
    names = git(path, "ls-tree", "--name-only", at).decode().split()
    name = "events_summary.json" if "events_summary.json" in names else "events.json"
    rows: list[dict[str, Any]] = json.loads(git(path, "show", f"{at}:{name}"))
    return rows


def git_commit(path: Path, subject: str, changes: Mapping[str, bytes], base: str = "refs/heads/main") -> bool:
    """Commit changed files on ``main`` as somebody else would, with the git command; whether nobody was faster.

    ``base`` is what ``main`` must still be.
    """
    stream = [b"commit refs/heads/main\ncommitter other <other@example.com> now\n"]
    stream.append(f"data {len(subject.encode())}\n{subject}\nfrom {base}^0\n".encode())
    for name, data in changes.items():
        stream.append(f"M 100644 inline {name}\ndata {len(data)}\n".encode() + data + b"\n")
    command = ["git", "fast-import", "--quiet", "--date-format=now"]
    result = subprocess.run(command, cwd=path, input=b"".join(stream), capture_output=True, check=False)
    if result.returncode:
        assert re.search(rb"Not updating refs/heads/main|[Ll]ock", result.stderr), result
    return result.returncode == 0


def git_event(path: Path, content: str, *, tag: bool = True) -> int:
    """Record an event of a native kata with the git command: the content is that of ``files/other.txt``. Its index."""
    rows = stored_rows(path)
    row = {"colour": "amber", "index": len(rows), "time": row_time(60 * len(rows)), "type": "test"}
    changes = {"event.json": pretty_json(row), "events_summary.json": pretty_json([*rows, row])}
    changes |= {"stdout": content.encode(), "files/other.txt": content.encode()}
    assert git_commit(path, f"{len(rows)} ran tests, no prediction, got amber", changes)
    if tag:
        git(path, "update-ref", f"refs/tags/{len(rows)}", "main")
    return len(rows)


def assert_sound(path: Path) -> int:
    """git finds nothing wrong, and every event has its row, its one commit and its tag. The newest index."""
    command = ["git", "fsck", "--strict", "--full", "--no-dangling"]
    result = subprocess.run(command, cwd=path, capture_output=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b""), f"{path}: {result}"
    indexes = [row["index"] for row in stored_rows(path)]
    assert indexes == list(range(len(indexes)))
    subjects = git(path, "log", "--first-parent", "--reverse", "--format=%H %s", "main").decode().splitlines()
    commits = [line.split(" ", 2)[:2] for line in subjects]
    tags = git(path, "for-each-ref", "--sort=version:refname", "--format=%(objectname) %(refname:strip=2)", "refs/tags")
    assert [line.split(" ") for line in tags.decode().splitlines()] == [pair for pair in commits if pair[1].isdigit()]
    assert [int(index) for _, index in commits if index.isdigit()] == indexes
    return len(indexes) - 1


def repository_state(path: Path) -> tuple[bytes, bytes]:
    """All references, and how many objects there are: equal as long as nothing is written."""
    return git(path, "for-each-ref"), git(path, "count-objects", "-v")


class Served(NamedTuple):
    """A kata in a store, and in a mount of it."""

    stored: Path
    shown: Path

    @property
    def ran_tests(self) -> Path:
        return self.shown / "ran_tests"

    def outcome(self) -> dict[str, Any]:
        """What is read from ``ran_tests`` after a write."""
        answer: dict[str, Any] = json.loads(self.ran_tests.read_bytes())
        return answer

    def accepted(self) -> int:
        """The index of the event that the last write recorded, about which mount and repository agree."""
        index = assert_sound(self.stored)
        assert self.recorded() == index
        return index

    def recorded(self) -> int:
        """The same without git's fsck, which takes a pack that goes while it looks for a damaged one."""
        outcome = self.outcome()
        assert outcome["ok"] is True, outcome
        index = int(outcome["index"])
        assert outcome["commit"] == git(self.stored, "rev-parse", f"refs/tags/{index}").decode().strip()
        assert os.readlink(self.shown / "events" / "latest") == str(index)
        assert set(os.listdir(self.shown / "events")) == {"latest", *map(str, range(index + 1))}
        return index

    def refused(self) -> str:
        """The errno that the last write was refused with."""
        outcome = self.outcome()
        assert outcome["ok"] is False, outcome
        assert outcome["message"]
        return str(outcome["errno"])


_NUMBERS = itertools.count(1)


def serve_kata(mount: Mount, files: Mapping[str, str] | None = None) -> Served:
    """A new native kata in the store of a mount."""
    kata_id = f"{next(_NUMBERS):06}"
    return Served(make_kata(mount.store, kata_id, files), mount.kata(kata_id))


@contextlib.contextmanager
def serving(directory: Path, mode: str, *options: str) -> Iterator[Mount]:
    """A mount of an empty store, for a whole module of tests."""
    with (
        tempfile.TemporaryDirectory(prefix="katafs-store-", dir=fast_directory()) as store,
        Mount(Path(store), directory / "mnt", mode, options) as mount,
    ):
        yield mount


def tags_of(path: Path) -> dict[int, bytes]:
    """The event tags of a repository, with the ids that git gives for them."""
    lines = git(path, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/tags").decode().splitlines()
    found = {int(name): bytes.fromhex(oid) for name, oid in (line.split(" ") for line in lines)}
    return dict(sorted(found.items()))
