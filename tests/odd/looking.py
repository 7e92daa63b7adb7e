"""Reading katas from a mount, while a neighbour looks how long an answer takes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.mounts import Mount, patience
from tests.odd.truth import Truth

#: of a kata that takes no longer to be looked at, however damaged
DEADLINE = 30.0
# Asks for what the kernel does not keep, and writes when each was asked, and how long the answer took, in seconds.
_NEIGHBOUR = """\
import os, select, sys, time
os.chdir(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
took = []
print("ready", flush=True)
while not select.select([0], [], [], 0.002)[0]:
    for name in ("events/0/event.json", f"events/{9000 + len(took)}"):
        begun = time.monotonic()
        try:
            os.stat(name)
        except FileNotFoundError:
            pass
        except OSError:
            sys.exit()
        took.append((begun, time.monotonic() - begun))
for begun, seconds in took:
    print(f"{begun:.6f} {seconds:.6f}")
"""


class Neighbour:
    """Another user, who looks at a kata of his own all the while."""

    def __init__(self, kata: Path) -> None:
        command = [sys.executable, "-c", _NEIGHBOUR, str(kata)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def end(self) -> list[tuple[float, float]]:
        """When he asked, by the monotonic clock, and how long he waited: the longest first."""
        output, _ = self._process.communicate(b"\n", patience(DEADLINE))
        took = [(float(begun), float(seconds)) for begun, seconds in map(bytes.split, output.splitlines())]
        return sorted(took, key=lambda asked: -asked[1])


def peak_memory(pid: int) -> int:
    """The most that a process ever had in memory, in MiB."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) >> 10


@contextlib.contextmanager
def deadline(mount: Mount, seconds: float = DEADLINE) -> Iterator[None]:
    """Kill the daemon of a mount that does not answer in time: who waits for it is told ENOTCONN."""
    timer = threading.Timer(patience(seconds), mount.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


#: what is read at a path: its bytes, the names in it, or the number of an error
Seen = bytes | tuple[bytes, ...] | int


def look(path: bytes) -> Seen:
    """Read one file or directory as a program would: a file has the size that it is said to have."""
    try:
        if os.path.isdir(path):
            return tuple(sorted(os.listdir(path)))
        with open(path, "rb") as file:
            data = file.read()
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return error.errno or -1
    return data if size == len(data) else data + b" but its size is %d" % size


def paths_of(truth: Truth) -> dict[bytes, bytes]:
    """What stands in the mount of a kata byte for byte as git has it: all files, and outputs, of all events."""
    found: dict[bytes, bytes] = {}
    tags = truth.tags()
    for index, oid in tags.items():
        root = {name: oid for name, _, oid in truth.entries(truth.links(truth.peeled(oid))[0])}
        prefix = b"events/%d/" % index
        shown = {b"files/" + name: data for name, data in truth.files(root[b"files"])}
        for name, absent in ((b"stdout", b""), (b"stderr", b""), (b"status", b"0")):
            shown[name] = truth.objects[root[name]][1] if name in root else absent
        found |= {prefix + name: data for name, data in shown.items()}
        if index == max(tags):
            found |= shown
    return found


def is_summary(seen: bytes, truth: Truth) -> bool:
    """Whether these are the rows at the tip, whatever their type is said to be."""
    root = {name: oid for name, _, oid in truth.entries(truth.links(truth.main)[0])}
    stored = json.loads(truth.objects[root.get(b"events_summary.json") or root[b"events.json"]][1])
    rows = [{key: value for key, value in row.items() if key != "type"} for row in stored]
    shown = json.loads(seen)
    return len(shown) == len(rows) and rows == [
        {k: row.get(k) for k in mine} for row, mine in zip(shown, rows, strict=True)
    ]


def below(top: bytes) -> Iterator[bytes]:
    """All files below a directory, from the top."""
    for parent, _, names in os.walk(top):
        yield from (os.path.relpath(os.path.join(parent, name), top) for name in names)


def shown_otherwise(kata: Path, truth: Truth, dice: random.Random) -> Iterator[str]:
    """What a mount shows of a valid kata otherwise than git has it; of a large one a part is looked at."""
    top = os.fsencode(kata)
    expected = paths_of(truth)
    for name, data in dice.sample(sorted(expected.items()), min(len(expected), 60)):
        seen = look(top + b"/" + name)
        if seen != data:
            yield f"{name!r}: {describe(seen)}, not {len(data)} bytes"
    tags = truth.tags()
    for directory in (b"files", *(b"events/%d/files" % n for n in dice.sample(sorted(tags), min(len(tags), 3)))):
        names = {name[len(directory) + 1 :] for name in expected if name.startswith(directory + b"/")}
        if (listed := set(below(top + b"/" + directory))) != names:
            yield f"{directory!r} lists {sorted(listed ^ names)[:3]} otherwise"
    seen = look(top + b"/events_summary.json")
    if not isinstance(seen, bytes) or not is_summary(seen, truth):
        yield f"events_summary.json: {describe(seen)}"


def describe(seen: Seen) -> str:
    """In few words."""
    if isinstance(seen, int):
        return os.strerror(seen)
    return f"{len(seen)} bytes {seen[:30]!r}" if isinstance(seen, bytes) else f"{len(seen)} names"


def cloned_otherwise(kata: Path, truth: Truth, directory: Path) -> Iterator[str]:
    """What `git clone` of a mounted ``.git`` gives otherwise than git has it."""
    command = ["git", "clone", "-q", "--no-local", "--mirror", str(kata / ".git"), str(directory)]
    result = subprocess.run(command, capture_output=True, check=False)
    if result.returncode:
        yield f"git clone: {result.stderr.decode(errors='replace').splitlines()[-3:]}"
        return
    listed = subprocess.run(["git", "for-each-ref", "--format=%(objectname) %(refname)"], cwd=directory,
                            capture_output=True, check=True).stdout.splitlines()  # fmt: skip
    if {line[41:]: bytes.fromhex(line[:40].decode()) for line in listed} != truth.references:
        yield "git clone has other references"
