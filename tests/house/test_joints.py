"""What katafs takes for granted of others and no type says: a test for each joint, which says in words when it breaks.

What pyfuse3, libfuse and trio must take is looked at when the daemon starts (`tests.fuse.test_fast_open`).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pygit2
import pytest

from katafs.fuse.writing import descriptors
from katafs.git import GitRepo
from katafs.mount import child
from tests.katas import git, make_kata

# calls that write, by the argument that is the descriptor written to
WRITES = {
    0: ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile", "ftruncate"),
    2: ("splice", "copy_file_range"),
}


def numbers(header: str) -> dict[str, int]:
    """The numbers of system calls by the kernel's own header, which comes with the C library's."""
    command = ["gcc", "-E", "-dM", "-D__BITS_PER_LONG=64", "-x", "c", "-"]
    source = f"#include <{header}>\n"
    printed = subprocess.run(command, input=source, capture_output=True, text=True, check=True).stdout
    defined = dict(line.split()[1:3] for line in printed.splitlines() if len(line.split()) == 3)
    found = {}
    for name, value in defined.items():
        known = defined.get(value, value)
        if name.startswith("__NR_") and known.isdigit():
            found[name.removeprefix("__NR_")] = int(known)
    return found


@pytest.mark.parametrize(
    ("header", "table"),
    [("asm-generic/unistd.h", descriptors._ARM), ("asm/unistd_64.h", descriptors._X86)],
    ids=["aarch64", "x86_64"],
)
def test_the_numbers_of_calls_that_write(header: str, table: dict[int, int]) -> None:
    if not list(Path("/usr/include").glob(f"**/{header}")):
        pytest.skip(f"this architecture has no {header}")
    known = numbers(header)
    assert table == {known[name]: argument for argument, names in WRITES.items() for name in names}, (
        f"katafs.fuse.writing.descriptors knows other numbers of system calls than {header}"
    )


def test_two_modules_agree_on_what_writes() -> None:
    if child._WRITES:
        assert {int(number) for number in child._WRITES} < descriptors._CALLS.keys(), (
            "katafs.mount.child knows numbers of system calls that katafs.fuse.writing.descriptors does not"
        )


def test_libgit2_asks_our_backend_as_it_is_answered(store: Path) -> None:
    """For objects by whole ids only, and believes what it is told of their kinds."""
    path = make_kata(store, "AbCdEf")
    tree = git(path, "rev-parse", "main^{tree}").decode().strip()
    repo = GitRepo(path)
    ours = repo.objects.repository
    theirs = pygit2.Repository(path / ".git")
    stored = theirs[tree]
    assert isinstance(stored, pygit2.Tree)
    for entry in stored:
        shown = ours[entry.id]
        assert (shown.type, shown.id) == (entry.type, entry.id), f"pygit2 asks in another way for {entry.name}"
    assert ours.diff(pygit2.Oid(hex=tree), pygit2.Oid(hex=tree)).patch == "", "pygit2 compares trees in another way"
    absent = pygit2.Oid(hex="12" * 20)
    with pytest.raises(KeyError):
        ours[absent]
    assert absent not in ours, "pygit2 does not take KeyError for absence any more"
