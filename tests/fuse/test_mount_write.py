"""Writing a message to ``ran_tests`` with whatever writes files: shells, tools, Python; and who hears of an error."""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from katafs.kata.record.inbox import UNFINISHED_SECONDS
from tests.katas import Served, git, make_kata, message, repository_state, serve_kata
from tests.mounts import MakeMount, Mount, patience, wait_until

LAPTOP = "fedcba9876543210" * 4
COUNT = itertools.count()
# more than cat and cp write at once; more than the kernel sends at once
LARGE, HUGE = 200_000, 1_500_000


@pytest.fixture
def kata(served: Mount) -> Served:
    return serve_kata(served)


def document(size: int = 0, **more: Any) -> bytes:
    """A message like no other, at least that large, with a newline at the end. No file of it is an edited one."""
    number = next(COUNT)
    text = f"run {number}: 'quotes', \"more\", $HOME, \\n and \t, grüße\n"
    files = {f"hiker {number}.py": "answer = 42\n", f"a b/größe {number}.txt": "x" * size + text}
    return json.dumps(message(files, stdout={"content": text}, **more), indent=1, ensure_ascii=False).encode() + b"\n"


def assert_shown(kata: Served, data: bytes) -> None:
    """The message is the newest event in the mount."""
    for name, file in json.loads(data)["files"].items():
        assert (kata.shown / "files" / name).read_bytes() == file["content"].encode()
    assert (kata.shown / "stdout").read_bytes() == json.loads(data)["stdout"]["content"].encode()


def assert_recorded(kata: Served, data: bytes, index: int) -> None:
    """The message is event ``index``, in the mount and in the repository."""
    assert_shown(kata, data)
    assert kata.accepted() == index


SHELL = {
    "echo": 'echo "$(cat doc)" > "$1"',
    "echo, two at once": 'echo "$(cat doc)" "" > "$1"',
    "printf": 'printf %s "$(cat doc)" > "$1"',
    "printf to a descriptor": 'text=$(cat doc); exec 5> "$1"; printf %s "${text:0:99}" >&5; printf %s "${text:99}" >&5',
    "a group": 'text=$(cat doc); { echo; printf %s "${text:0:1}"; printf %s "${text:1}"; echo; } > "$1"',
    "a subshell": '(text=$(cat doc); exec 5> "$1"; printf %s "${text:0:9}" >&5; true 5>&1; printf %s "${text:9}" >&5)',
    "a loop": 'while IFS= read -r line; do printf "%s\\n" "$line"; done < doc > "$1"',
    "cat": 'cat doc > "$1"',
    "cat, no clobber": 'set -C; cat doc >| "$1"',
    "cat, appended": 'cat doc >> "$1"',
    "cat, to and fro": 'cat doc 1<> "$1"',
    "a here document": "cat > \"$1\" <<'END'\n@DOCUMENT@END",
    "a here string": 'cat > "$1" <<< "$(cat doc)"',
    "a pipe": 'cat doc | cat | cat > "$1"',
    "cp": 'cp doc "$1"',
    "cp -f, no sparse": 'cp -f --sparse=never doc "$1"',
    "dd, 1000": 'dd if=doc of="$1" bs=1000 status=none',
    "dd, one block": 'dd if=doc of="$1" bs=4M status=none',
    "dd, not truncated": 'dd if=doc of="$1" bs=4096 conv=notrunc status=none',
    "dd, appended, synced": 'dd if=doc of="$1" bs=64k oflag=append conv=notrunc,fsync status=none',
    "tee": 'tee "$1" < doc > tee.out',
    "tee -a": 'tee -a "$1" < doc > tee.out',
    "head": 'head -c 100M doc > "$1"',
    "sed": "sed 's/nothing/nothing/' doc > \"$1\"",
    "sed w": 'sed -n "w $1" doc',
    "dash": 'dash -c \'cat doc > "$0"\' "$1"',
    "perl": 'perl -0777 -e \'open F, ">", shift or die; print F <STDIN>; close F or die\' "$1" < doc',
    "perl, unbuffered": 'perl -e \'open F, ">", shift or die; syswrite F, $_ or die while <STDIN>\' "$1" < doc',
    "ruby": 'ruby -e \'File.write(ARGV[0], File.binread("doc"))\' "$1"',
    "node": 'node -e \'const fs = require("fs"); fs.writeFileSync(process.argv[1], fs.readFileSync("doc"))\' "$1"',
    "curl": 'curl -sS -o "$1" "file://$PWD/doc"',
}


def shell(script: str, kata: Served, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a script, whose ``$1`` is ``ran_tests``, in a directory; or skip the test where its program is not there."""
    program = script.split(" ", 1)[0]
    if program in ("perl", "ruby", "node", "curl", "dash") and shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    (directory / "script").write_bytes(script.encode().replace(b"@DOCUMENT@", (directory / "doc").read_bytes()))
    command = ["bash", "-e", "-o", "pipefail", "script", str(kata.ran_tests)]
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=patience(60)
    )


@pytest.mark.parametrize("script", SHELL.values(), ids=SHELL)
def test_shells_and_tools(kata: Served, script: str, tmp_path: Path) -> None:
    """They hear of an error, and without one they record what they were given."""
    for number, size in enumerate((0, LARGE), 1):
        refs = git(kata.stored, "for-each-ref")
        (tmp_path / "doc").write_bytes(document(size, index=0, laptop_id=LAPTOP, tab_seq="a"))
        result = shell(script, kata, tmp_path)
        assert result.returncode != 0
        # these say it with other words, or nothing
        if not script.startswith(("perl", "curl", "node")):
            assert "File exists" in result.stderr
        assert kata.refused() == "EEXIST"
        assert (kata.outcome()["laptop_id"], kata.outcome()["tab_seq"]) == (LAPTOP, "a")
        assert git(kata.stored, "for-each-ref") == refs
        (tmp_path / "doc").write_bytes(data := document(size, laptop_id=LAPTOP, tab_seq=number))
        result = shell(script, kata, tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert (kata.outcome()["laptop_id"], kata.outcome()["tab_seq"]) == (LAPTOP, number)
        assert_shown(kata, data)
    assert kata.accepted() == 2


def test_processes_that_share_a_descriptor(served: Mount, kata: Served, tmp_path: Path) -> None:
    """They are one writer: a message belongs to an open file."""
    (tmp_path / "doc").write_bytes(data := document())
    # the first closes what it did not finish
    result = shell('{ head -c 100 doc || true; tail -c +101 doc; } > "$1"', kata, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert_recorded(kata, data, 1)


# -- Python


def write_all(fd: int, data: bytes) -> None:
    """Where the last of several WRITEs is refused the kernel tells of fewer bytes: the rest is to hear why."""
    while data:
        data = data[os.write(fd, data) :]


def pieces(size: int, *, flags: int = os.O_TRUNC) -> Callable[[Path, Path], None]:
    """Write by os.write in pieces of that size."""

    def write(source: Path, target: Path) -> None:
        data = source.read_bytes()
        fd = os.open(target, os.O_WRONLY | flags)
        try:
            for at in range(0, len(data), size):
                write_all(fd, data[at : at + size])
        finally:
            os.close(fd)

    return write


def write_text(source: Path, target: Path) -> None:
    with target.open("w", encoding="utf-8") as file:
        json.dump(json.loads(source.read_bytes()), file)


def write_unbuffered(source: Path, target: Path) -> None:
    with target.open("wb", buffering=0) as file:
        write_all(file.fileno(), source.read_bytes()[:-1])


def write_vector(source: Path, target: Path) -> None:
    data = source.read_bytes()
    with target.open("r+b") as file:
        count = os.writev(file.fileno(), [data[:1], b"", data[1:999], data[999:]])
        write_all(file.fileno(), data[count:])


def send_file(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as file:
        while os.sendfile(file.fileno(), read.fileno(), None, 70_001):
            pass


def copy_file_range(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as file:
        try:
            while os.copy_file_range(read.fileno(), file.fileno(), 1 << 20):
                pass
        except OSError as error:
            assert error.errno == errno.EXDEV, "the kernel leaves it to its caller to write"  # noqa: PT017
            file.write(source.read_bytes())


def from_a_mapping(source: Path, target: Path) -> None:
    with source.open("rb") as read, mmap.mmap(read.fileno(), 0, prot=mmap.PROT_READ) as data, target.open("wb") as file:
        file.write(data)


def splice(source: Path, target: Path) -> None:
    reader, writer = os.pipe()
    with source.open("rb") as read, target.open("wb") as file:
        while count := os.splice(read.fileno(), writer, 65536):
            while count:
                count -= os.splice(reader, file.fileno(), count)
    os.close(reader)
    os.close(writer)


PYTHON: dict[str, Callable[[Path, Path], object]] = {
    "open, w": write_text,
    "open, unbuffered": write_unbuffered,
    "shutil.copyfile": shutil.copyfile,
    "4096 a piece": pieces(4096),
    "7777 a piece": pieces(7777),
    "appended": pieces(5000, flags=os.O_APPEND),
    "truncated and appended": pieces(65536, flags=os.O_APPEND | os.O_TRUNC),
    "synced": pieces(50_000, flags=os.O_SYNC),
    "writev": write_vector,
    "sendfile": send_file,
    "copy_file_range": copy_file_range,
    "mmap": from_a_mapping,
    "splice": splice,
}


@pytest.mark.parametrize("write", PYTHON.values(), ids=PYTHON)
def test_python(kata: Served, write: Callable[[Path, Path], object], tmp_path: Path) -> None:
    for size in (0, HUGE):
        refs = git(kata.stored, "for-each-ref")
        (tmp_path / "doc").write_bytes(document(size, index=0))
        with pytest.raises(FileExistsError):
            write(tmp_path / "doc", kata.ran_tests)
        assert (kata.refused(), git(kata.stored, "for-each-ref")) == ("EEXIST", refs)
        (tmp_path / "doc").write_bytes(data := document(size))
        write(tmp_path / "doc", kata.ran_tests)
        assert_shown(kata, data)
    assert kata.accepted() == 2


def test_python_byte_by_byte(kata: Served, tmp_path: Path) -> None:
    (tmp_path / "doc").write_bytes(data := document())
    pieces(1)(tmp_path / "doc", kata.ran_tests)
    assert_recorded(kata, data, 1)


# -- one descriptor


@pytest.fixture
def descriptor(kata: Served) -> Iterator[int]:
    fd = os.open(kata.ran_tests, os.O_RDWR | os.O_TRUNC)
    yield fd
    os.close(fd)


def test_one_message_after_another(kata: Served, descriptor: int) -> None:
    for index in range(1, 4):
        data = document()
        assert os.write(descriptor, data[:50]) == 50
        assert os.write(descriptor, data[50:] + b" \n") == len(data) - 48
        assert_recorded(kata, data, index)


def test_after_a_refused_write(kata: Served, descriptor: int) -> None:
    """The descriptor is as it was before, whether the next message follows at once, or from the start."""
    for index in range(1, 4):
        with pytest.raises(OSError, match="Invalid argument"):
            os.write(descriptor, b'{"summary": 1}')
        with pytest.raises(FileExistsError):
            os.write(descriptor, document(index=0))
        if index == 2:
            os.lseek(descriptor, 0, os.SEEK_SET)
        if index == 3:
            os.ftruncate(descriptor, 0)
        data = document()
        assert os.write(descriptor, data) == len(data)
        assert_recorded(kata, data, index)


@pytest.mark.parametrize("anew", ["lseek", "ftruncate", "both", "at once"])
def test_after_the_last_of_several_writes_was_refused(kata: Served, descriptor: int, anew: str) -> None:
    state = repository_state(kata.stored)
    data = document(HUGE, index=0)
    done = os.write(descriptor, data)
    assert 1 << 19 < done < len(data), "the kernel sent two WRITEs, and the second was refused: a short count"
    for _ in range(3):
        with pytest.raises(FileExistsError):
            os.write(descriptor, data[done:])
    assert (kata.refused(), repository_state(kata.stored)) == ("EEXIST", state)
    if anew in ("ftruncate", "both"):
        os.ftruncate(descriptor, 0)
    if anew in ("lseek", "both"):
        os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, data := document())
    assert_recorded(kata, data, 1)


def test_the_length_of_what_was_copied(kata: Served, descriptor: int) -> None:
    """Copying programs cut a file to it in the end, and others may have written meanwhile."""
    lengths = []
    for number in range(20):
        data = document(100 * number)
        with kata.ran_tests.open("wb", buffering=0) as file:
            lengths.append(file.write(data))
    for length in lengths:
        os.ftruncate(descriptor, length)
    with pytest.raises(OSError, match="Invalid argument"):
        os.ftruncate(descriptor, max(lengths) + 1)
    assert kata.accepted() == len(lengths)


def test_an_unfinished_message(served: Mount, kata: Served) -> None:
    """It never commits, and closing says nothing. The outcome does, at once; and again when the open file is gone."""
    state = repository_state(kata.stored)
    fd = os.open(kata.ran_tests, os.O_WRONLY | os.O_TRUNC)
    begun = document()[:-3]
    os.write(fd, begun)
    outcome = kata.outcome()
    assert (outcome["ok"], outcome["errno"]) == (False, "EINPROGRESS")
    assert f"{len(begun.lstrip())} bytes" in outcome["message"]
    os.truncate(kata.ran_tests, 0)
    assert kata.outcome() == outcome, "a path is nobody's message"
    copy = os.dup(fd)
    os.close(fd)
    assert kata.outcome() == outcome, "the open file is there"
    os.close(copy)
    wait_until(lambda: "dropped" in kata.ran_tests.read_text(), "the outcome", UNFINISHED_SECONDS - 2)
    assert (kata.refused(), repository_state(kata.stored)) == ("EINVAL", state)
    kata.ran_tests.write_bytes(data := document())
    assert_recorded(kata, data, 1)


def test_an_unfinished_message_of_a_process_that_ended(served: Mount, kata: Served) -> None:
    """A redirection cut short: the outcome says so in a second or two, long before the time for the rest is over."""
    state = repository_state(kata.stored)
    start = time.monotonic()
    status = subprocess.run(["sh", "-c", 'printf %s "{" > "$1"', "sh", kata.ran_tests], check=False).returncode
    assert status == 0, "printf has written what it was to write"
    wait_until(lambda: "dropped" in kata.ran_tests.read_text(), "the outcome", 8)
    assert time.monotonic() - start < UNFINISHED_SECONDS - 2
    assert repository_state(kata.stored) == state
    kata.ran_tests.write_bytes(data := document())
    assert_recorded(kata, data, 1)


def test_a_message_of_a_process_that_takes_its_time(kata: Served) -> None:
    """It is not dropped while its writer lives."""
    data = document()
    script = "import os, sys, time; os.write(1, b'{'); time.sleep(2.5); os.write(1, sys.argv[1].encode())"
    with kata.ran_tests.open("wb", buffering=0) as file:
        command = [sys.executable, "-c", script, data.decode().lstrip()[1:]]
        subprocess.run(command, stdout=file, check=True)
    assert_recorded(kata, data, 1)


@pytest.mark.slow
def test_an_unfinished_message_is_dropped_in_time(kata: Served) -> None:
    with kata.ran_tests.open("wb", buffering=0) as file:
        file.write(b'{"summary":')
        wait_until(lambda: "not finished" in kata.ran_tests.read_text(), "the outcome")
        with pytest.raises(OSError, match="Invalid argument"):
            file.write(b'{"colour": "red"}}')


def test_an_appending_writer_while_others_truncate(kata: Served, tmp_path: Path) -> None:
    data = document()
    with kata.ran_tests.open("ab", buffering=0) as file:
        file.write(data[:40])
        subprocess.run(["bash", "-c", f": > {kata.ran_tests}"], check=True)
        file.write(data[40:])
    assert_recorded(kata, data, 1)


# -- what is read


def test_the_explanation(served: Mount) -> None:
    """What it says can be written as it stands there, with files or without."""
    kata = serve_kata(served, {'odd "name".txt': "odd\n", "other.txt": "other\n"})
    text = kata.ran_tests.read_text()
    assert kata.ran_tests.stat().st_size == len(text.encode())
    found = re.fullmatch(r"[^{]*(\{.*\}) *\n\n[^{]*(\"files\": \{.*\})[^}]*", text, re.DOTALL)
    assert found is not None
    example, files = found.groups()
    kata.ran_tests.write_text(example)
    assert kata.accepted() == 1
    assert json.loads((kata.shown / "event.json").read_bytes())["colour"] == "green"
    assert sorted(os.listdir(kata.shown / "files")) == ['odd "name".txt', "other.txt"]
    kata.ran_tests.write_text(example.rstrip()[:-1] + ", " + files.replace(", …", "") + "}")
    # the files are edited, too
    assert kata.accepted() == 3
    assert os.listdir(kata.shown / "files") == ['odd "name".txt']


def test_never_the_message_itself(kata: Served) -> None:
    """Not even to somebody who has the file open already, and in the kernel's pages."""
    with kata.ran_tests.open("rb", buffering=0) as reader:
        explanation = reader.read()
        for written in (b"{", b" \n", b'{"summary"', b'{"a": 1}}', b"rubbish", document()):
            fd = os.open(kata.ran_tests, os.O_WRONLY)
            try:
                os.write(fd, written)
            except OSError as error:
                assert error.errno == errno.EINVAL  # noqa: PT017
            shown = os.pread(reader.fileno(), 1 << 20, 0)
            assert shown == kata.ran_tests.read_bytes()
            assert shown == explanation or "ok" in json.loads(shown)
            os.ftruncate(fd, 0)
            os.close(fd)


def test_read_only(store: Path, mount: MakeMount, mode: str) -> None:
    stored = make_kata(store, "AbCdEf")
    kata = Served(stored, mount(store, mode, ("--read-only",)).kata("AbCdEf"))
    state = repository_state(stored)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(kata.ran_tests, flags)
    assert kata.ran_tests.read_text().startswith("Write one JSON object")
    assert repository_state(stored) == state
