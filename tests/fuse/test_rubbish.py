"""What must not be written: rubbish to ``ran_tests``, and anything to anything else. Nothing changes, all goes on."""

from __future__ import annotations

import errno
import json
import mmap
import os
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kata.test_message import GIT_NAMES, NO_NAMES, WRONG
from tests.katas import GitCommit, GitFile, Served, import_commits, message, repository_state, serve_kata
from tests.mounts import Mount, wait_until

MEGABYTE = 1 << 20


@pytest.fixture
def kata(served: Mount) -> Served:
    return serve_kata(served)


def whole(**fields: object) -> bytes:
    """A message with these fields put in."""
    return json.dumps({**message(), **fields}).encode()


def named(name: str) -> bytes:
    """A message with a file of that name."""
    return whole(files={"first.txt": {"content": "first"}, name: {"content": "x"}})


GOOD = json.dumps(message({"a.txt": "é" * 300}), ensure_ascii=False).encode()
RUBBISH = {
    **{f"{field}, {name}": whole(**{field: value}) for field, cases in WRONG.items() for name, value in cases.items()},
    **{f"name {name[:20]!r} {len(name)}": named(name) for name in (*NO_NAMES, *GIT_NAMES)},
    "name long, in 300 bytes": named("n" * 300),
    "a very long path": named("/".join(["d" * 99] * 40)),
    "not JSON": b"{red}",
    "text": b"hello\n",
    "array": b"[" + GOOD + b"]",
    "number": b"42",
    "empty object": b"{}",
    "no summary": b'{"files": {}}',
    "single quotes": GOOD.replace(b'"', b"'"),
    "one comma more": GOOD[:-1] + b",}",
    "something after": GOOD + b"x",
    "two objects": GOOD + b"\n" + GOOD,
    "a brace after": GOOD + b"}",
    "a quote after": GOOD + b'"',
    "NUL after": GOOD + b"\0",
    "NUL before": b"\0" + GOOD,
    "BOM": b"\xef\xbb\xbf" + GOOD,
    "UTF-16": GOOD.decode().encode("utf-16"),
    "a byte that is no UTF-8": GOOD.replace("é".encode(), b"\xe9", 1),
    "half a character": GOOD.replace("é".encode(), b"\xc3", 1),
    "lone surrogate": GOOD.replace("é".encode(), b"\\ud800", 1),
    "duplicate key": GOOD[:-1] + b', "summary": {"colour": "red"}}',
    "duplicate file": b'{"summary": {"colour": "red"}, "files": {"a": {"content": ""}, "a": {"content": ""}}}',
    "NaN": b'{"summary": {"colour": "red", "duration": NaN}}',
    "1e999": b'{"summary": {"colour": "red", "duration": 1e999}}',
    "-Infinity": b'{"summary": {"colour": "red", "duration": -Infinity}}',
    "control character": b'{"summary": {"colour": "red\n"}}',
    "deep arrays": b'{"summary": {"colour": "red", "x": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
    "deep objects": b'{"x": ' * 900 + b"1" + b"}" * 900,
    "a gap of 1001": whole(index=1002),
}


def write(path: Path, data: bytes, size: int) -> None:
    """Write in pieces of that size, to the end or to the first error."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC)
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(fd, rest[:size]) :]
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [MEGABYTE, 17], ids=["at once", "in pieces"])
def test_rubbish(kata: Served, size: int) -> None:
    state = repository_state(kata.stored)
    for name, data in RUBBISH.items():
        if size == 17 and len(data) > 9000:
            continue
        with pytest.raises(OSError, match="Invalid argument"):
            write(kata.ran_tests, data, size)
        assert kata.refused() == "EINVAL", name
    assert repository_state(kata.stored) == state
    assert sorted(os.listdir(kata.shown / "events")) == ["0", "latest"]
    write(kata.ran_tests, GOOD, size)
    assert kata.accepted() == 1


def test_truncated_messages(kata: Served) -> None:
    """Every beginning of a message, each followed by the next one through the same descriptor."""
    state = repository_state(kata.stored)
    fd = os.open(kata.ran_tests, os.O_WRONLY)
    for end in (*range(1, 40), *range(len(GOOD) - 20, len(GOOD))):
        os.pwrite(fd, GOOD[:end], 0)
    assert repository_state(kata.stored) == state
    os.pwrite(fd, GOOD, 0)
    os.close(fd)
    assert kata.accepted() == 1


def test_an_index_that_is_late(kata: Served) -> None:
    state = repository_state(kata.stored)
    with pytest.raises(FileExistsError):
        write(kata.ran_tests, whole(index=0), MEGABYTE)
    assert (kata.refused(), repository_state(kata.stored)) == ("EEXIST", state)
    write(kata.ran_tests, whole(index=1), MEGABYTE)
    assert kata.accepted() == 1


# -- too large

BEGIN = b'{"summary": {"colour": "red"}, "stdout": {"content": "'
END = b'"}}'


def test_20_mib(kata: Served, tmp_path: Path) -> None:
    state = repository_state(kata.stored)
    data = BEGIN + b"x" * (20 * MEGABYTE) + END
    (tmp_path / "doc").write_bytes(data)
    for size in (len(data), MEGABYTE, 99_999):
        with pytest.raises(OSError, match="File too large"):
            write(kata.ran_tests, data, size)
        assert kata.refused() == "EFBIG"
    for command in ('cat doc > "$0"', 'cp doc "$0"', 'dd if=doc bs=4M of="$0"'):
        result = subprocess.run(["sh", "-c", command, kata.ran_tests], cwd=tmp_path, capture_output=True, check=False)
        assert result.returncode, command
        assert b"File too large" in result.stderr, command
        assert kata.refused() == "EFBIG"
    assert repository_state(kata.stored) == state


def test_the_largest_message(kata: Served) -> None:
    data = BEGIN + b"x" * (16 * MEGABYTE - len(BEGIN + END)) + END
    write(kata.ran_tests, data, MEGABYTE)
    assert kata.accepted() == 1
    assert (kata.shown / "stdout").stat().st_size == len(data) - len(BEGIN + END)
    with pytest.raises(OSError, match="File too large"):
        write(kata.ran_tests, BEGIN + b"x" + data[len(BEGIN) :], MEGABYTE)


# -- everything else in the mount

ELSEWHERE = """
echo x > files/hiker.py       : > files/hiker.py            echo x >> stdout              echo x 1<> status
echo x > events/0/stdout      echo x > events/0.json        echo x > events/new           echo x > new
echo x > manifest.json        echo x > diff/0..0            echo x > events/0/config/theme  echo x > .git/HEAD
echo x > .git/refs/tags/9     echo x > control/new          : > download.tgz              echo x > "$root/new"
echo x > "$root/.katafs/version"
mkdir new                     mkdir files/new               mkdir events/1                mkdir "$root/new"
rmdir files                   rmdir events/0                rm files/hiker.py             rm ran_tests
rm -r .git                    mv files/hiker.py x           mv ran_tests x                mv files/hiker.py stdout
ln files/hiker.py x           ln ran_tests x                ln -s stdout x                ln -sfn 9 events/latest
mkfifo x                      touch new                     touch files/hiker.py          rm config/theme
touch events                  chmod 600 stdout              chmod 700 control             chmod 700 files
chown 1:1 stderr              chown -h 1 events/latest      truncate -s 0 stdout          truncate -s 5 files/hiker.py
cp -p /etc/hostname files/    cp /etc/hostname stdout       tee stdout < /etc/passwd      dd if=/dev/zero of=status
tar -cf stdout /dev/null      sed -i s/a/b/ files/hiker.py  sort -o stdout stdout         install /dev/null x
"""


def seen(path: Path) -> list[tuple[object, ...]]:
    """All there is below a directory, with what a stat shows, and bytes."""
    found = []
    for parent, directories, files in os.walk(path):
        for name in (*directories, *files):
            entry = Path(parent, name)
            status = entry.lstat()
            data = entry.read_bytes() if entry.is_file() and "download" not in entry.parts else b""
            # locks of tags, which are made after a writer was answered, come and go in the directory of the repository
            mtime = status.st_mtime_ns if name != ".git" else 0
            found.append((str(entry), status.st_mode, status.st_uid, status.st_size, mtime, data))
    return sorted(found)


def test_anything_else(served: Mount, kata: Served) -> None:
    """As root, so that it is not owners and modes that forbid it."""
    # a directory that changed within the last tick of the clock is shown as just changed (`tree.dirs.stored_nodes`)
    wait_until(lambda: seen(kata.shown) == seen(kata.shown), "the kata is not quite new")
    before, state = seen(kata.shown), repository_state(kata.stored)
    environment = {**os.environ, "root": str(served.path), "LC_ALL": "C"}
    for command in re.split(r"\n| {2,}", ELSEWHERE.strip()):
        result = subprocess.run(
            ["bash", "-c", command], cwd=kata.shown, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode, command
        assert "Read-only file system" in result.stderr, (command, result.stderr)
    assert seen(kata.shown) == before
    assert repository_state(kata.stored) == state


def test_system_calls_on_anything_else(kata: Served) -> None:
    file, ran_tests = kata.shown / "files" / "hiker.py", kata.ran_tests
    calls: list[Callable[[], object]] = [
        lambda: os.close(os.open(file, os.O_RDONLY | os.O_TRUNC)),
        lambda: os.close(os.open(kata.shown / "new", os.O_RDWR | os.O_CREAT | os.O_EXCL)),
        lambda: os.setxattr(file, "user.new", b"x"),
        lambda: os.removexattr(file, "user.new"),
        lambda: os.utime(file, (1, 1)),
        lambda: os.rename(ran_tests, kata.shown / "control" / "new"),
        lambda: os.symlink("x", kata.shown / "new"),
        lambda: os.mknod(kata.shown / "new"),
    ]
    for number, call in enumerate(calls):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            call()
        assert caught.value.errno == errno.EROFS, number
    with pytest.raises(OSError, match="Invalid argument"):
        os.truncate(ran_tests, 5)
    assert file.read_bytes().startswith(b"def answer")


def test_bytes_that_root_puts_into_the_pages_of_a_file(served: Mount, kata: Served) -> None:
    """Only without OPEN it comes that far; the write is refused all the same, and then the bytes are dropped."""
    file = kata.shown / "files" / "hiker.py"
    content = file.read_bytes()
    if served.mode == "slower":
        with pytest.raises(OSError, match="Read-only"):
            file.open("r+b")
        return
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), len(content)) as pages:
        pages[:4] = b"evil"
        with pytest.raises(OSError, match="Read-only"):
            pages.flush()
        wait_until(lambda: file.read_bytes() == content, "the true content", seconds=1.0)
    assert (kata.shown / "events/0/files/hiker.py").read_bytes() == content


def test_a_layout_that_is_only_read(served: Mount) -> None:
    """The shape of May 2021: there is no control file, and none can be made."""
    row = b'{"index":0,"event":"created","time":[2021,5,31,1,2,3,4]}'
    files = [GitFile("events_summary.json", row), GitFile("manifest.json", b'{"version":2}')]
    import_commits(served.store / "Ma" / "yK" / "at", [GitCommit("0", files, tags=[0])])
    shown = served.kata("MayKat")
    assert "events" in os.listdir(shown)
    assert not {"ran_tests", "control"} & set(os.listdir(shown))
    with pytest.raises(OSError, match="Read-only"):
        (shown / "ran_tests").write_bytes(GOOD)


# -- anything at all


def test_random_bytes(kata: Served) -> None:
    """Pieces of messages, brackets and noise, at any offset: at most an errno, and never half an event."""
    chance = random.Random(2)
    parts = [
        GOOD[:20],
        GOOD[20:],
        GOOD,
        b"{",
        b"}",
        b'"',
        b"\\",
        b"[",
        b"]",
        b" \n",
        b"\xff\0",
        b'"colour"',
        b":",
        b",",
    ]
    fds = [os.open(kata.ran_tests, os.O_RDWR | flags) for flags in (0, os.O_APPEND, os.O_TRUNC)]
    count = 0
    for _ in range(400):
        data = b"".join(chance.choices(parts, k=chance.randrange(1, 6)))
        fd = chance.choice(fds)
        try:
            os.pwrite(fd, data, chance.choice([0, 5, 20, 4096, 1 << 40]))
            if '"ok": true' in os.pread(fd, 20, 0).decode():
                count += 1
        except OSError as error:
            assert error.errno == errno.EINVAL  # noqa: PT017
        if chance.random() < 0.1:
            os.ftruncate(fd, 0)
    for fd in fds:
        try:
            os.close(fd)
        except OSError as error:
            assert error.errno == errno.EINVAL  # noqa: PT017
    kata.ran_tests.write_bytes(GOOD)
    assert kata.accepted() > 1
    assert count


def test_random_paths(served: Mount, kata: Served) -> None:
    chance = random.Random(3)
    names = [*os.listdir(kata.shown), *("0", "1", "00", "-1", "0.json", "0..0", "0..0.json", "1..0", "99999999999")]
    names += ["..", ".", "", "n" * 255, "é", "\udcff", " ", "\n", "*", ".git", "config", "latest", "HEAD", "objects"]
    for _ in range(600):
        path = "/".join([str(kata.shown), *chance.choices(names, k=chance.randrange(1, 5))])
        try:
            os.stat(path, follow_symlinks=False)
            os.scandir(path).close()
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP), path  # noqa: PT017
    assert os.listdir(served.path)
    kata.ran_tests.write_bytes(GOOD)
    assert kata.accepted() == 1
