"""Recording the system calls by which a command, and all that it starts, changes a directory: strace, and its output.

What is recorded comes in the order in which the calls returned; a call began at ``start``, maybe before others did.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import unavailable
from tests.mounts import patience

#: a client says that it heard of success by asking for a file below here
MARK = b"/acknowledged/"

_CALLS = (
    *("open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "lseek", "ftruncate", "truncate"),
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir"),
    *("symlink", "symlinkat", "fsync", "fdatasync", "sync", "syncfs", "access", "faccessat", "faccessat2"),
    # nobody does this; who begins to is found
    *("copy_file_range", "sendfile", "fallocate", "pwritev2", "splice"),
)
_LINE = re.compile(
    r"(\d+) +(?:<\.\.\. \w+ resumed>(?P<rest>.*)|(?P<begun>[a-z]\w+\(.*) <unfinished \.\.\.>|(?P<whole>\w+\(.*))"
)
_RESULT = re.compile(r"\) += (-?\d+)(?:<([^>]*)>(\(deleted\))?)?")
_ARGUMENT = re.compile(r'"((?:\\x..)*)"(\.\.\.)?|(AT_FDCWD|-?\d+)<([^>]*)>(\(deleted\))?|([\w|-]+)')
_FUSE = b"/dev/fuse"


@dataclass(frozen=True)
class Call:
    """Something that a call did to a path, or a mark. ``start`` and ``number`` count lines of the trace."""

    number: int
    start: int
    kind: str  # open write truncate seek rename link unlink mkdir rmdir symlink sync sync-all mark
    path: bytes = b""
    other: bytes = b""  # where it is renamed or linked to; the target of a symbolic link
    data: bytes = b""
    position: int | None = None  # None: where the last write ended
    flags: frozenset[str] = frozenset()

    def __str__(self) -> str:
        words = (
            self.kind,
            os.fsdecode(self.path),
            os.fsdecode(self.other),
            f"{len(self.data)} bytes" * bool(self.data),
        )
        return f"call {self.number}: " + " ".join(filter(None, words))


def acknowledge(text: str) -> None:
    """Called by a recorded client: it has just heard of success."""
    os.access(MARK + text.encode(), os.F_OK)


def can_trace() -> None:
    """Skip the test where nobody may be traced."""
    if shutil.which("strace") is None:
        unavailable("strace is not installed")
    with tempfile.TemporaryDirectory() as directory:
        command = ["strace", "-f", "-o", os.path.join(directory, "trace"), "true"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            unavailable(f"no process can be traced here (ptrace): {result.stderr.strip()}")


def record(below: Path, command: Sequence[object], seconds: float = 120) -> list[Call]:
    """Run a command to its end; what was done below a directory, a path without links, and the marks."""
    with tempfile.TemporaryDirectory() as directory:
        output = Path(directory, "trace")
        options = ["-f", "--seccomp-bpf", "-y", "-qq", "-xx", "-s", str(1 << 26), "-e", "signal=none"]
        whole = ["strace", *options, "-o", output, "-e", f"trace={','.join(_CALLS)}", *command]
        root = Path(__file__).resolve().parents[2]
        with subprocess.Popen(
            list(map(str, whole)), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            try:
                said, _ = process.communicate(timeout=patience(seconds))
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        assert process.returncode == 0, said.decode()
        with open(output, encoding="ascii", errors="surrogateescape") as lines:
            return list(parse(lines, os.fsencode(below)))


def python(module: str, *arguments: object) -> list[object]:
    """The command that runs a module of the tests."""
    return [sys.executable, "-m", module, *arguments]


def parse(lines: Iterator[str] | Sequence[str], below: bytes) -> Iterator[Call]:
    """What strace wrote with the options of `record`."""
    begun: dict[str, tuple[int, str]] = {}
    heard = 0
    for number, line in enumerate(lines, start=1):
        found = _LINE.match(line)
        if found is None:
            continue
        thread = found[1]
        if found["begun"] is not None:
            begun[thread] = (number, found["begun"])
            continue
        start, text = number, found["whole"]
        if text is None:
            start, text = begun.pop(thread)
            text += found["rest"]
        result = _RESULT.search(text)
        if result is None:
            continue  # the process ended in it
        name, arguments = text[: result.start()].split("(", 1)
        call = _Text(number, start, name, arguments, result, below)
        if call.is_reply():
            heard = number
        elif (mark := call.mark()) is not None:
            # a client that writes to a mount hears of it when the daemon answers, which is some calls before its mark
            yield Call(number, heard if mark.startswith(b"mount:") else number, "mark", mark)
        elif int(result[1]) >= 0:
            yield from call.effects()


class _Text:
    """One call as strace writes it."""

    def __init__(self, number: int, start: int, name: str, arguments: str, result: re.Match[str], below: bytes) -> None:
        self._number, self._start, self._name, self._below = number, start, name, below
        self._result, self._made = int(result[1]), _path(result[2], result[3])
        self._strings: list[bytes] = []
        self._open: list[tuple[str, bytes]] = []
        self._words: list[str] = []
        for string, is_cut, fd, path, is_deleted, word in _ARGUMENT.findall(arguments):
            assert not is_cut, f"strace cut a string: {name}"
            if fd:
                self._open.append((fd, _path(path, is_deleted)))
            elif word:
                self._words.append(word)
            else:
                self._strings.append(_bytes(string))

    def is_reply(self) -> bool:
        """Whether a daemon answers a request; what it says of its own accord has the number 0."""
        is_write = self._name in ("write", "writev") and bool(self._open) and self._open[0][1] == _FUSE
        return is_write and any(b"".join(self._strings)[8:16])

    def mark(self) -> bytes | None:
        """What a client has marked."""
        is_mark = "access" in self._name and bool(self._strings) and self._strings[0].startswith(MARK)
        return self._strings[0][len(MARK) :] if is_mark else None

    def effects(self) -> Iterator[Call]:
        """What it did below the directory."""
        for call in self._effects():
            is_ours = call.path.startswith(self._below) or call.other.startswith(self._below)
            if is_ours or call.kind == "sync-all":
                assert call.path.startswith(b"/"), f"a relative path: {call}"
                yield call

    def _call(self, kind: str, path: bytes = b"", **more: object) -> Call:
        return Call(self._number, self._start, kind, path, **more)  # type: ignore[arg-type]

    def _effects(self) -> Iterator[Call]:
        name = self._name.removesuffix("64").removesuffix("2").removesuffix("at")
        if name in ("open", "creat"):
            flags = {"O_CREAT", "O_TRUNC"} if name == "creat" else set(self._words[0].split("|"))
            if flags & {"O_WRONLY", "O_RDWR", "O_CREAT"}:
                yield self._call("open", self._made, flags=frozenset(flags))
        elif name in ("write", "pwrite", "writev", "pwritev"):
            data = b"".join(self._strings)[: self._result]
            position = int(self._words[-1]) if name.startswith("p") else None
            yield self._call("write", self._open[0][1], data=data, position=position)
        elif name == "lseek":
            yield self._call("seek", self._open[0][1], position=self._result)
        elif name in ("ftruncate", "truncate"):
            path = self._open[0][1] if self._open else self._strings[0]
            yield self._call("truncate", path, position=int(self._words[-1]))
        elif name in ("fsync", "fdatasync"):
            yield self._call("sync", self._open[0][1])
        elif name in ("sync", "syncfs"):
            yield self._call("sync-all")
        elif name in ("rename", "link"):
            source, target = self._paths()
            if source.startswith(b"/proc/self/fd/"):
                # a file without a name gets one
                source = dict(self._open)[source.rpartition(b"/")[2].decode()]
            yield self._call(name, source, other=target)
        elif name == "symlink":
            yield self._call(name, self._paths(self._strings[1:])[0], other=self._strings[0])
        elif name in ("unlink", "mkdir", "rmdir"):
            yield self._call("rmdir" if "AT_REMOVEDIR" in self._words else name, self._paths()[0])
        elif self._open and name not in ("access", "faccess"):
            # not understood, if it is one of ours
            assert not any(path.startswith(self._below) for _, path in self._open), f"{self._name} is not in the model"

    def _paths(self, strings: list[bytes] | None = None) -> list[bytes]:
        """Each path, with the directory that it is looked up in."""
        named = self._strings if strings is None else strings
        above = [path for _, path in self._open] or [b""] * len(named)
        return [os.path.join(directory, path) for directory, path in zip(above, named, strict=True)]


def _path(text: str | None, is_deleted: str | None) -> bytes:
    """The path of a descriptor; of a file without a name one that no other has."""
    path = _bytes(text or "")
    return path + b" (deleted)" if is_deleted else path


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()
