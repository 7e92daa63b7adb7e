"""A repository's configuration: read as git reads it, and obeyed in nothing but what says whether it may be written."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from katafs.git.config import parse_config, read_config, settings

_CASES = [
    b"",
    b"[core]\n\tbare = false\n",
    b"\xef\xbb\xbf[a]b=1",
    b"[a]b=1\r\nc = 2 \r\n",
    b"[a] b = 1 ; c\n # d\nd=#\n",
    b'[a "B \\"c\\\\ d"] e = f',
    b"[a.B] c",
    b'[a] b = "x ; y" z  # c\n',
    b'[a] b = "x',
    b'[a] b = x\\\n  y\\\\\n c = "p\\\nq"\n',
    b"[a] b = x\\",
    b"[a] b = \\q",
    b"[a] b # c\n",
    b"[a] b ; c",
    b"[a b] c",
    b'[a "b" ] c',
    b'[a"b"] c',
    b'[ "b"] c=1',
    b"[] c=1",
    b"[]",
    b'[ "b"]',
    b"[a\nb] c",
    b'[a "b\n"] c',
    b"b = 1\n[a]",
    b"[a] 1b = 2",
    b"[a] b_c = 2",
    b'[a] b\t= \t"" x \n',
    b"[a] b = \r x",
    b'[a] b = a\\tb\\nc\\bd\\"e',
    b"[a] b = '\"x'",
    b'[a\t"b"]c=1[d]e=2',
    b"[a]\n[b] c = 1 [d]\n",
    b"[a] b == 1",
    b"]",
    b"[a",
    b'[a "b',
]


def _one_blank(value: bytes) -> bytes:
    """Versions of git do not agree on blanks within a value, and before a last continuation."""
    return value.translate(bytes.maketrans(b"\t\r", b"  ")).rstrip(b" ")


def as_git_reads(path: Path) -> list[tuple[str, bytes | None]] | None:
    """All settings, with names as git shows them; None where it does not read the file."""
    done = subprocess.run(
        ["git", "config", "-f", path, "-z", "--no-includes", "--list"], capture_output=True, check=False
    )
    if done.returncode:
        return None
    found = []
    for item in done.stdout.split(b"\0")[:-1]:
        name, newline, value = item.partition(b"\n")
        found.append((name.decode("utf-8", "replace"), _one_blank(value) if newline else None))
    return found


def as_we_read(data: bytes) -> list[tuple[str, bytes | None]] | None:
    try:
        return [(name, None if value is None else _one_blank(value)) for name, value in settings(data)]
    except ValueError:
        return None


@pytest.mark.parametrize("data", _CASES, ids=repr)
def test_settings_are_those_that_git_reads(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(data)
    assert as_we_read(data) == as_git_reads(tmp_path / "config")


def test_random_configurations(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    parts = [
        b"[a]",
        b'[b "C"]',
        b"[D.e]",
        b"[",
        b"]",
        b'"',
        b"\\",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"#",
        b";",
        b"=",
        b"k",
        b"V1",
    ]
    parts += [b"\nkey = ", b"x y", b"\\n", b'\\"', b"\r", b"-", b"[a]\nx=1\n"]
    for _ in range(500):
        data = dice.choice([b"[a]\n", b""]) + b"".join(dice.choices(parts, k=dice.randint(1, 9)))
        (tmp_path / "config").write_bytes(data)
        assert as_we_read(data) == as_git_reads(tmp_path / "config"), (seed, data)


_FORMAT_1 = b"[core] repositoryformatversion = 1\n"
_WRITTEN = {
    "nothing": b"",
    "format 0": b"[core]\nrepositoryFormatVersion = 0",
    "format 1": _FORMAT_1,
    "hexadecimal": b"[CORE] repositoryformatversion = 0x1",
    "the last one counts": b"[core] repositoryformatversion = 99\n" + _FORMAT_1,
    "a comment": _FORMAT_1 + b"; [extensions] x\n",
    "another core": _FORMAT_1 + b'[core "x"] repositoryformatversion = 99\n',
    "noop": _FORMAT_1 + b"[extensions] noop = whatever",
    "worktreeConfig": _FORMAT_1 + b"[extensions] worktreeConfig",
    "relativeWorktrees": _FORMAT_1 + b"[extensions] relativeWorktrees = true",
    "sha1": _FORMAT_1 + b"[extensions] objectFormat = sha1",
    "files": _FORMAT_1 + b"[extensions] refStorage = files",
    "an include": _FORMAT_1 + b'[include] path = /dev/zero\n[includeIf "gitdir:/"] path = /dev/zero',
    "64 KiB": _FORMAT_1 + b"#" * ((64 << 10) - len(_FORMAT_1)),
}
_NOT_WRITTEN = {
    "format 2": (b"[core] repositoryformatversion = 2", "repositoryformatversion is 2"),
    "format 99": (b'[core] repositoryformatversion = "\\\n9"9', "repositoryformatversion is 99"),
    "format -1": (b"[core] repositoryformatversion = -1", "repositoryformatversion is -1"),
    "no number": (b"[core] repositoryformatversion = one", "no number"),
    "no value": (b"[core] repositoryformatversion", "no number"),
    "unknown": (_FORMAT_1 + b"[extensions] fromTheFuture = false", "fromthefuture"),
    "unknown in format 0": (b"[extensions] x = true", "extension x"),
    "below a subsection": (_FORMAT_1 + b'[extensions "x"] noop = true', "extension x.noop"),
    "sha256": (_FORMAT_1 + b"[extensions] objectFormat = sha256", "objectformat is sha256"),
    "reftable": (_FORMAT_1 + b"[extensions] refStorage = reftable", "refstorage is reftable"),
    "partialClone": (_FORMAT_1 + b"[extensions] partialClone = origin", "partialclone"),
    "sha1 in format 0": (b"[extensions] objectFormat = sha1", "needs core.repositoryformatversion 1"),
    "no syntax": (b"[core\nbare = false", "line 1"),
    "a NUL": (b"[core]\0", "NUL"),
    "too large": (_FORMAT_1 + b"#" * (64 << 10), "larger than 64 KiB"),
}


@pytest.mark.parametrize("name", _WRITTEN)
def test_repositories_that_may_be_written(name: str) -> None:
    found = parse_config(_WRITTEN[name])
    assert found.may_be_written, found.why_not
    assert found.may_be_packed
    assert found.object_format == "sha1"


@pytest.mark.parametrize("name", _NOT_WRITTEN)
def test_repositories_that_may_not_be_written(name: str) -> None:
    data, reason = _NOT_WRITTEN[name]
    found = parse_config(data)
    assert reason in found.why_not
    assert not found.may_be_written
    assert not found.may_be_packed
    assert found.object_format == ("sha256" if name == "sha256" else "sha1")


@pytest.mark.parametrize("value", [b"= true", b"= On", b"", b"= 2", b"= 0x1k"])
def test_precious_objects(value: bytes) -> None:
    found = parse_config(_FORMAT_1 + b"[extensions] preciousObjects " + value)
    assert found.may_be_written
    assert not found.may_be_packed
    assert parse_config(_FORMAT_1 + b"[extensions] preciousObjects = off").may_be_packed


def test_a_file_that_changes(tmp_path: Path) -> None:
    """What is read is what is there at this moment; only a plain file is opened, and nothing waited for."""
    assert read_config(tmp_path).may_be_written
    path = tmp_path / "config"
    path.write_bytes(_NOT_WRITTEN["format 2"][0])
    assert not read_config(tmp_path).may_be_written
    new = tmp_path / "new"
    new.write_bytes(_FORMAT_1)
    new.rename(path)
    assert read_config(tmp_path).may_be_written
    path.unlink()
    os.mkfifo(path)
    assert "no plain file" in read_config(tmp_path).why_not
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "cannot be read" in read_config(tmp_path).why_not
