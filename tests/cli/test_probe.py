"""``katafs probe``, and what ``katafs mount`` refuses; on engines as they are see `tests.engines`, `tests.hosts`."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from katafs.engine.mount_table import holding
from katafs.engine.trust import FINDING, FileSystem, judgement, keep_finding, refusal
from tests.conftest import unavailable
from tests.mounts import OTHER, CommandLine, command_line, katafs, patience, wait_until

OFF = {"AttrTimeout": 0, "EntryTimeout": 0, "DirEntryTimeout": 0, "NegEntryTimeout": 0, "Meta": {"OpenCache": 0}}
SHARED = FileSystem("fuse.some", "server:/katas", ("allow_other", "max_read=131072"))


@pytest.fixture
def cli(fuse: None) -> Iterator[CommandLine]:
    with command_line() as started:
        yield started


def test_a_local_file_system_by_way_of_another_host(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is asked for another host runs what it would be told there."""
    (tmp_path / "ssh").write_text(f'#!/bin/sh\nshift 4\nexec {sys.executable} -m "$@"\n'.replace('"$@"', "$*"))
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = json.loads(katafs("probe", "--json", store, f"host:{store}").stdout)
    assert told["status"] == 0
    assert {trial["grade"] for trial in told["trials"]} == {"right"}
    assert {one["type"] for one in told["file_systems"]} == {mounted_type(store)}
    # nothing is left: what a local file system gives need not be kept
    assert os.listdir(store) == []


def test_a_host_that_greets(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some shells print something for whoever comes by ssh."""
    (tmp_path / "ssh").write_text("#!/bin/sh\necho Welcome\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    said = katafs("probe", store, f"host:{store}", check=False)
    assert (said.returncode, said.stderr) == (1, f"katafs: host:{store} says 'Welcome', which is no answer\n".encode())


def mounted_type(path: Path) -> str:
    mounted = holding(path)
    assert mounted is not None
    return mounted.file_system


def test_the_command_line_is_wrong(store: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for other, why in (
        (tmp_path / "other", "they are not one store"),
        (tmp_path / "missing", "does not exist"),
        ("", "the path is empty"),
    ):
        said = katafs("probe", store, other, check=False)
        assert (said.returncode, why in said.stderr.decode()) == (2, True), said
    assert os.listdir(store) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_made_goes_when_it_is_stopped(store: Path, number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-m", "katafs", "probe", store, store], stdout=subprocess.DEVNULL)
    wait_until((store / ".katafs-probe/turns").exists, "the probe")
    process.send_signal(number)
    assert process.wait(patience(20)) == 1
    assert os.listdir(store) == []


def test_one_at_a_time(store: Path) -> None:
    (store / ".katafs-probe").mkdir()
    said = katafs("probe", store, store, check=False)
    assert (said.returncode, b"another probe" in said.stderr) == (1, True)
    assert os.listdir(store) == [".katafs-probe"]


def test_links_that_others_planted(store: Path, tmp_path: Path) -> None:
    """Who can write to the store has nothing written by whoever probes: a link in place of the directory, a directory
    with links, a link where the finding is made."""
    if os.geteuid() != 0:
        unavailable("only root can give files away")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("as it was")
    (victim / "file").chmod(0o600)
    planted = store / ".katafs-probe"
    planted.symlink_to(victim)
    assert asked_of_side(store, ["put", "name", "x"], ["lock", "flock"]) == [{"errno": errno.ENOTDIR}] * 2
    planted.unlink()
    (planted / "size").mkdir(parents=True)
    (planted / "size/file").symlink_to(victim / "file")
    (planted / "owned").symlink_to(victim / "file")
    os.chown(planted, OTHER, OTHER)
    assert asked_of_side(store, ["change", 0], ["own"]) == [{"errno": errno.EPERM}] * 2
    (store / f"{FINDING}.{os.getpid()}").symlink_to(victim / "file")
    keep_finding(store, [vars(SHARED)], 0)
    assert stat.S_IMODE((store / FINDING).stat().st_mode) == 0o644
    status = (victim / "file").stat()
    assert (os.listdir(victim), status.st_uid, stat.S_IMODE(status.st_mode)) == (["file"], 0, 0o600)
    assert (victim / "file").read_text() == "as it was"


def test_a_link_that_comes_in_the_middle(store: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").mkdir()
    command = [sys.executable, "-m", "katafs", "probe", str(store), str(store)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        wait_until((store / ".katafs-probe/turns").exists, "the probe")
        (store / ".katafs-probe").rename(store / "moved")
        (store / ".katafs-probe").symlink_to(tmp_path / "victim")
        assert b"was replaced by a link" in process.communicate(timeout=patience(20))[1]
    assert process.returncode == 1
    assert os.listdir(tmp_path / "victim") == []


def asked_of_side(store: Path, *told: list[object]) -> list[dict[str, object]]:
    """What a side of a probe answers."""
    lines = "".join(json.dumps(each) + "\n" for each in told)
    said = katafs("probe-side", store, stdin=lines.encode()).stdout.splitlines()
    return [json.loads(line) for line in said]


def test_a_pipe_in_place_of_the_finding(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That somebody has open, and sends nothing through."""
    os.mkfifo(store / FINDING)
    pipe = os.open(store / FINDING, os.O_RDWR)
    try:
        monkeypatch.setattr("katafs.engine.trust.LOCAL", frozenset())
        assert "katafs probe finds out" in refusal(store)
    finally:
        os.close(pipe)


@pytest.mark.parametrize(
    ("kind", "options", "settings", "said"),
    [
        ("ext4", "", {}, ""),
        ("ceph", "acl", {}, ""),
        ("fuse.ceph-fuse", "", {}, ""),
        ("nfs4", "vers=4.2,local_lock=none", {}, ""),
        ("nfs4", "vers=4.2,nocto", {}, "nocto"),
        ("nfs", "vers=3,nolock", {}, "nolock"),
        ("nfs", "vers=3,local_lock=none", {}, "katafs probe finds out"),
        ("fuse.mfs", "", {}, "whole seconds"),
        ("fuse.juicefs", "", OFF, ""),
        ("fuse.juicefs", "", OFF | {"EntryTimeout": 10**9}, "mount it with --entry-cache=0"),
        ("fuse.juicefs", "", OFF | {"Meta": {"OpenCache": 1, "SkipDirMtime": 1}}, "--open-cache=0 --skip-dir-mtime=0"),
        ("fuse.juicefs", "", OFF | {"AttrTimeout": 10**9, "DirEntryTimeout": 10**9}, ""),
        (
            "fuse.juicefs",
            "",
            OFF | {"AttrTimeout": 2e9, "ReaddirCache": True},
            "with --attr-cache=1 --readdir",
        ),
        ("fuse.juicefs", "", {}, "katafs probe finds out"),
        ("fuse.glusterfs", "", {}, "entry-timeout=0"),
        ("fuse.sshfs", "", {}, "katafs probe finds out"),
        ("fuse", "allow_other", {}, ""),
        ("unknown", "", {}, "katafs probe finds out"),
    ],
)
def test_what_is_known(kind: str, options: str, settings: dict[str, Any], said: str) -> None:
    reason = judgement(FileSystem(kind, "", tuple(options.split(","))), settings, {})
    assert said in reason
    assert bool(said) == bool(reason)


def test_a_finding_is_of_one_file_system_with_its_options(store: Path) -> None:
    keep_finding(store, [vars(SHARED)], 0)
    finding = json.loads((store / FINDING).read_text())
    assert judgement(SHARED, {}, finding) == ""
    others = (
        FileSystem("fuse.other", SHARED.source, SHARED.options),
        FileSystem(SHARED.type, "server:/others", SHARED.options),
        FileSystem(SHARED.type, SHARED.source, ("allow_other",)),
    )
    assert all("it is not known" in judgement(other, {}, finding) for other in others)
    # and what is known stays so
    assert "whole seconds" in judgement(FileSystem("fuse.mfs", "", ()), {}, finding)
    keep_finding(store, [vars(SHARED)], 1)
    assert "has found that events can be lost" in judgement(SHARED, {}, json.loads((store / FINDING).read_text()))
    bare = FileSystem("fuse", "", ())
    keep_finding(store, [vars(bare)], 1)
    assert "has found that events can be lost" in judgement(bare, {}, json.loads((store / FINDING).read_text()))


def test_mounting_what_is_not_known(cli: CommandLine) -> None:
    """No store is there, but what it lies on is no file system that katafs knows."""
    if os.geteuid() != 0:
        unavailable("only root's mounts say who serves them")
    refused = cli.run("mount", "/proc/sys", "mnt")
    assert refused.returncode == 1
    assert "file system of type proc" in refused.stderr
    assert "unsafe_store" in refused.stderr
    cli.mount("-o", "unsafe_store", "--log-file", "log", "/proc/sys", "mnt")
    (one,) = json.loads(cli.run("status", "--json", "mnt").stdout)
    assert one["unsafe_store"] is True
    assert "unsafe_store: events may be lost" in cli.run("status", "mnt").stdout
    assert "katafs_unsafe_store 1.0" in (cli.directory / "mnt/.katafs/stats").read_text()
    assert "WARNING" in (log := (cli.directory / "log").read_text())
    assert "of type proc" in log


def test_what_is_known_is_not_called_unsafe(cli: CommandLine) -> None:
    (cli.directory / "store").mkdir(exist_ok=True)
    cli.mount("-o", "unsafe_store", "store", "mnt")
    (one,) = json.loads(cli.run("status", "--json", "mnt").stdout)
    assert one["unsafe_store"] is False
