"""The no-OPEN mode: which mode a mount has, why, and that it works in both."""

from __future__ import annotations

import json
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
COMPILE += [f"-I{PACKAGE}", "-DFUSE_USE_VERSION=35", "-D_FILE_OFFSET_BITS=64"]


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
    cli.mount("--quiet", "--log-file=log", *options, "store", "mnt")
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
    maker = "fuse_session_new_versioned" if is_new() else "fuse_session_new"
    assert {maker, "katafs_fast_wanted", "katafs_fast_active"} <= shown


def is_new() -> bool:
    """Whether libfuse is 3.17 or newer here."""
    command = ["pkg-config", "--atleast-version=3.17", "fuse3"]
    return subprocess.run(command, check=False).returncode == 0


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
    build(
        SOURCE.read_text().replace("katafs_fast_wraps[] =", 'katafs_fast_wraps[] = "other_"'), cli.directory / "katafs"
    )
    check_mode(cli, "slower", "no fast open: this libfuse makes its session in another way")


def test_with_a_libfuse_that_does_not_call_it(cli: CommandLine) -> None:
    """Although pyfuse3 has the name: known only when there is a session."""
    build(SOURCE.read_text().replace("*SESSION_NEW(struct", "*katafs_fast_session(struct"), cli.directory / "katafs")
    check_mode(cli, "slower", "no fast open: this libfuse makes its session in another way")


def test_with_an_old_kernel(cli: CommandLine) -> None:
    """One that always sends OPEN and OPENDIR."""
    build(SOURCE.read_text().replace("FUSE_CAP_NO_OPENDIR_SUPPORT", "0"), cli.directory / "katafs")
    check_mode(cli, "slower", "no fast open: the kernel is too old for it")


def test_what_is_lost_is_said(cli: CommandLine) -> None:
    """To whoever mounts, and to whoever asks later; not where it was not wanted."""
    reason = "katafs was installed without its C library"
    said = cli.run("mount", "--log-file=log", "store", "mnt")
    assert said.returncode == 0
    assert said.stderr.endswith(f"/mnt: slower mode, and no keep-alive and no reload: {reason}\n")
    if os.geteuid() == 0:
        assert json.loads(cli.done("status", "--json", "mnt"))[0]["reason"] == reason
        assert f"fast mode, keep-alive and reload: {reason}\n" in cli.done("status", "mnt")
    cli.done("umount", "mnt")
    assert cli.run("mount", "--log-file=log", "--quiet", "store", "mnt").stderr == ""
    cli.done("umount", "mnt")
    assert cli.run("mount", "--log-file=log", "--no-fast-open", "store", "mnt").stderr == ""


# what was before libfuse 3.17, put over a newer header
OLD_HEADER = """
#pragma once
#include_next <fuse_lowlevel.h>
#undef FUSE_MINOR_VERSION
#define FUSE_MINOR_VERSION 14
#undef fuse_session_new
struct fuse_session *fuse_session_new(struct fuse_args *args, const struct fuse_lowlevel_ops *op,
	size_t op_size, void *userdata);
"""
# what is new in libfuse 3.17, put over an older header
NEW_HEADER = """
#pragma once
#include_next <fuse_lowlevel.h>
#include <stdbool.h>
#undef FUSE_MINOR_VERSION
#define FUSE_MINOR_VERSION 17
struct libfuse_version { uint32_t major, minor, hotfix, padding; };
void fuse_unset_feature_flag(struct fuse_conn_info *conn, uint64_t flag);
struct fuse_session *fuse_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *op,
	size_t op_size, struct libfuse_version *version, void *userdata);
static inline struct fuse_session *fuse_session_new_fn(struct fuse_args *args, const struct fuse_lowlevel_ops *op,
	size_t op_size, void *userdata)
{
	struct libfuse_version version = {3, 17, 4, 0};
	return fuse_session_new_versioned(args, op, op_size, &version, userdata);
}
#define fuse_session_new(args, op, op_size, userdata) fuse_session_new_fn(args, op, op_size, userdata)
"""
# the new libfuse, which runs init at once, and what calls it
NEW_LIBFUSE = """
#include <fuse_lowlevel.h>
int heard, wanted;
void fuse_unset_feature_flag(struct fuse_conn_info *conn, uint64_t flag) { conn->want &= ~flag; }
struct fuse_session *fuse_session_new_versioned(struct fuse_args *args, const struct fuse_lowlevel_ops *op,
	size_t op_size, struct libfuse_version *version, void *userdata)
{
	struct fuse_conn_info conn = {.capable = ~0u, .want = ~0u};
	(void)args, (void)op_size;
	heard = version->hotfix;
	op->init(userdata, &conn);
	wanted = conn.want & (FUSE_CAP_SPLICE_READ | FUSE_CAP_ATOMIC_O_TRUNC);
	return (struct fuse_session *)op;
}
"""
NEW_PROGRAM = """
#include <fuse_lowlevel.h>
#include <string.h>
static void init(void *userdata, struct fuse_conn_info *conn) { (void)userdata, (void)conn; }
int make(void)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	static struct fuse_lowlevel_ops ops;
	memset(&ops, 1, sizeof(ops)); /* all there, none is called but init */
	ops.init = init;
	return fuse_session_new(&args, &ops, sizeof(ops), NULL) != NULL;
}
"""
NEW_CALL = """
import ctypes, sys
fast = ctypes.CDLL(sys.argv[2], ctypes.RTLD_GLOBAL)
libfuse = ctypes.CDLL(sys.argv[1])
value = lambda name, library=fast: ctypes.c_int.in_dll(library, name)
value("katafs_fast_wanted").value = 1
made = ctypes.CDLL(sys.argv[3]).make()
wrapped, active = value("katafs_fast_wrapped").value, value("katafs_fast_active").value
print(made, wrapped, active, value("heard", libfuse).value, value("wanted", libfuse).value)
print(ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(fast, "katafs_fast_wraps"))).decode())
"""


def test_with_libfuse_before_3_17(tmp_path: Path) -> None:
    """Imitated where it is newer."""
    if not is_new():
        pytest.skip("it is older here, as all other tests show")
    (tmp_path / "fuse_lowlevel.h").write_text(OLD_HEADER)
    (tmp_path / "_fastopen.c").write_text(SOURCE.read_text())
    command = [*COMPILE[:1], f"-I{tmp_path}", *COMPILE[1:], "_fastopen.c", "-o", "a.so"]
    subprocess.run(command, cwd=tmp_path, check=True)
    symbols = subprocess.run(["nm", "-D", tmp_path / "a.so"], capture_output=True, text=True, check=True).stdout
    assert " T fuse_session_new\n" in symbols


def test_with_libfuse_3_17_or_newer(tmp_path: Path) -> None:
    """Where the session's maker is a macro, for a function with one parameter more; imitated where it is older."""
    if is_new():
        pytest.skip("it is newer here, as all other tests show")
    (tmp_path / "fuse_lowlevel.h").write_text(NEW_HEADER)
    libraries = []
    # its caller looks in the katafs library first, and that one in the libfuse behind it
    parts: list[tuple[str, str, list[str]]] = [
        ("libnew.so", NEW_LIBFUSE, []),
        ("_fastopen.so", SOURCE.read_text(), ["-L.", "-lnew", "-lfuse3"]),
        ("program.so", NEW_PROGRAM, ["-L.", "-l:_fastopen.so", "-lnew"]),
    ]
    for name, text, links in parts:
        file = tmp_path / f"{name}.c"
        file.write_text(text)
        command = [*COMPILE[:1], f"-I{tmp_path}", "-Wl,-rpath,$ORIGIN", *COMPILE[1:], str(file), "-o", name, *links]
        subprocess.run(command, cwd=tmp_path, check=True)
        libraries.append(tmp_path / name)
    command = [sys.executable, "-c", NEW_CALL, *map(str, libraries)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "1 1 1 4 0\nfuse_session_new_versioned\n"


def test_a_pyfuse3_that_waits_in_another_way(cli: CommandLine) -> None:
    """It is served all the same, and the log says that it is slower."""
    build(SOURCE.read_text(), cli.directory / "katafs")
    waiting = cli.directory / "katafs/fuse/waiting.py"
    waiting.write_text(waiting.read_text().replace("    return look\n", "    pyfuse3.trio = trio\n    return look\n"))
    cli.mount("--log-file=log", "store", "mnt")
    assert (cli.directory / "mnt/Ab/Cd/Ef/files/cyber-dojo.sh").read_text() == "pytest\n"
    warning = "WARNING katafs.fuse.waiting: each request is waited for in the slower way: "
    wait_until(lambda: warning in (cli.directory / "log").read_text(), "the warning")


def test_pyfuse3_was_there_first() -> None:
    """Its call of fuse_session_new cannot be had any more: better say so than be slow in silence."""
    script = "import logging, pyfuse3; from katafs.fuse import fastopen; print(fastopen.load().is_active)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("False\n", "no fast open: pyfuse3 was imported too early\n")
