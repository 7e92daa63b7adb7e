"""The no-OPEN mode: which mode a mount has, why, and that it works in both."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import katafs
from tests.conftest import unavailable
from tests.katas import git, make_kata
from tests.mounts import CommandLine, command_line, wait_until

PACKAGE = Path(katafs.__file__).parent
SOURCE = PACKAGE / "_fastopen.c"
# as in pyproject.toml, but that warnings are errors
COMPILE = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I/usr/include/fuse3"]
COMPILE += ["-DFUSE_USE_VERSION=35", "-D_FILE_OFFSET_BITS=64"]


@pytest.fixture
def cli(fuse: None) -> Iterator[CommandLine]:
    """The command line in a directory with the kata AbCdEf in ``store``, run from a copy of the package without the
    library in ``katafs``."""
    with command_line() as started:
        make_kata(started.directory / "store", "AbCdEf")
        shutil.copytree(PACKAGE, started.directory / "katafs", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        started.environment["PYTHONPATH"] = str(started.directory)
        yield started


def build(source: str, directory: Path) -> Path:
    """Compile a library as the package's."""
    if shutil.which("gcc") is None or not Path("/usr/include/fuse3/fuse_lowlevel.h").exists():
        unavailable("gcc and libfuse3-dev are needed to build the library")
    file = directory / "source.c"
    file.write_text(source)
    library = directory / "_fastopen.so"
    subprocess.run([*COMPILE, file, "-o", library, "-lfuse3"], check=True)
    return library


def check_mode(cli: CommandLine, mode: str, warning: str, *options: str) -> None:
    """Mount, read and write; the log has that mode, and that warning or none."""
    cli.mount("--log-file=log", *options, "store", "mnt")
    lines = (cli.directory / "log").read_text().splitlines()
    # without the mode the mount is not kept alive either, and that is said too
    log = [line for line in lines if "will not outlive the daemon" not in line]
    assert len(lines) - len(log) == (mode != "fast")
    assert f"mode: {mode} " in log[-1]
    assert [line for line in log if " INFO " not in line] == [line for line in log if warning and warning in line]
    assert len(log) == (2 if warning else 1)
    kata = cli.directory / "mnt/Ab/Cd/Ef"
    assert (kata / "files/cyber-dojo.sh").read_text() == "pytest\n"
    (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
    assert git(cli.directory / "store/Ab/Cd/Ef", "tag") == b"0\n1\n"
    assert sorted(os.listdir(kata / "events")) == ["0", "1", "latest"]
    cli.done("umount", "mnt")
    wait_until(lambda: not cli.daemons(), "the end of the daemon")


def test_the_source_compiles_without_warnings(tmp_path: Path) -> None:
    library = build(SOURCE.read_text(), tmp_path)
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    shown = {line.split()[2] for line in symbols.splitlines()}
    assert {"fuse_session_new", "katafs_fast_wanted", "katafs_fast_active"} <= shown


def test_with_the_library(cli: CommandLine) -> None:
    build(SOURCE.read_text(), cli.directory / "katafs")
    check_mode(cli, "fast", "")


def test_not_wanted(cli: CommandLine) -> None:
    build(SOURCE.read_text(), cli.directory / "katafs")
    check_mode(cli, "slower", "", "--no-fast-open")


def test_without_the_library(cli: CommandLine) -> None:
    check_mode(cli, "slower", "WARNING katafs.fuse.fastopen: no fast open: katafs was installed without its C library")


def test_with_a_damaged_library(cli: CommandLine) -> None:
    (cli.directory / "katafs/_fastopen.so").write_bytes(b"not a library")
    check_mode(cli, "slower", "WARNING katafs.fuse.fastopen: no fast open: ")


def test_with_another_libfuse(cli: CommandLine) -> None:
    """One whose sessions are not made by the function that the library replaces."""
    build(SOURCE.read_text().replace("fuse_session_new(", "fuse_session_other("), cli.directory / "katafs")
    check_mode(cli, "slower", "no fast open: this libfuse makes its session in another way")


def test_with_an_old_kernel(cli: CommandLine) -> None:
    """One that always sends OPEN and OPENDIR."""
    build(SOURCE.read_text().replace("FUSE_CAP_NO_OPENDIR_SUPPORT", "0"), cli.directory / "katafs")
    check_mode(cli, "slower", "no fast open: the kernel is too old for it")


def test_pyfuse3_was_there_first() -> None:
    """Its call of fuse_session_new cannot be had any more: better say so than be slow in silence."""
    script = "import logging, pyfuse3; from katafs.fuse import fastopen; print(fastopen.load().is_active)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("False\n", "no fast open: pyfuse3 was imported too early\n")
