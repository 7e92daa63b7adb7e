"""Downloads and diffs as a person takes them from a mount, with tar and git."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.katas import add_event, git, make_kata, make_long_kata
from tests.mounts import MakeMount, wait_until


def unpack_download(kata: Path, into: Path) -> Path:
    """What a person does: follow the link, unpack; the directory that appears."""
    into.mkdir()
    subprocess.run(["tar", "xzf", kata / "download.tgz", "-C", into], check=True, capture_output=True)
    (directory,) = into.iterdir()
    return directory


def history(path: Path) -> bytes:
    """All that log and tags say of a repository."""
    return git(path, "log", "--format=raw", "main") + git(path, "for-each-ref", "--sort=refname", "refs/tags")


def test_download_is_an_ordinary_repository(
    mount: MakeMount, mode: str, saver_kata: Path, store: Path, tmp_path: Path
) -> None:
    make_long_kata(store, "AbCdEf", 40)
    here = mount(store, mode)
    for kata_id in ("rG63fy", "AbCdEf"):
        kata = here.kata(kata_id)
        repository = unpack_download(kata, tmp_path / kata_id)
        assert repository.name == os.readlink(kata / "download.tgz").removeprefix("download/").removesuffix(".tgz")
        assert git(repository, "fsck", "--strict", "--full") == b""
        assert git(repository, "status", "--porcelain") == b""
        assert git(repository, "remote") == b""
        assert history(repository) == history(store / kata_id[:2] / kata_id[2:4] / kata_id[4:])
    assert os.listdir(tmp_path / "rG63fy") == ["cyber-dojo-2021-07-01-rG63fy-Roman-Numerals"]


def test_packed_and_unpacked_have_the_same_members(mount: MakeMount, mode: str, store: Path, tmp_path: Path) -> None:
    make_long_kata(store, "AbCdEf", 10)
    download = mount(store, mode).kata("AbCdEf") / "download"
    name = next(entry for entry in os.listdir(download) if not entry.endswith(".tgz"))
    ours = tmp_path / "ours.tar"
    subprocess.run(["tar", "-C", download, "-cf", ours, name], check=True)

    def members(path: Path) -> dict[str, tuple[bool, int, float, bytes]]:
        with tarfile.open(path) as tar:
            return {
                member.name: (
                    member.isdir(),
                    member.size,
                    member.mtime,
                    b"" if member.isdir() else tar.extractfile(member).read(),  # type: ignore[union-attr]
                )
                for member in tar
            }

    packed, unpacked = members(download / f"{name}.tgz"), members(ours)
    assert packed.keys() == unpacked.keys()
    assert packed == unpacked
    assert any(entry.endswith(".pack") for entry in packed)


def test_download_follows_the_tip(mount: MakeMount, mode: str, store: Path, tmp_path: Path) -> None:
    make_kata(store, "AbCdEf")
    kata = mount(store, mode).kata("AbCdEf")
    first = unpack_download(kata, tmp_path / "first")
    assert git(first, "tag") == b"0\n"
    (kata / "ran_tests").write_text('{"summary": {"colour": "red"}, "stdout": {"content": "later"}}')
    second = unpack_download(kata, tmp_path / "second")
    assert git(second, "tag") == b"0\n1\n"
    assert (second / "stdout").read_text() == "later"
    unpacked = kata / "download" / second.name
    assert (unpacked / "stdout").read_text() == "later"
    add_event(store / "Ab" / "Cd" / "Ef", 2, stdout={"content": "latest"})
    wait_until(lambda: (unpacked / "stdout").read_text() == "latest", "a commit by somebody else", 1.0)
    assert git(unpacked, "tag") == b"0\n1\n2\n"
    assert git(unpacked, "status", "--porcelain") == b""


def test_who_reads_an_archive_for_long_reads_on_while_events_come(mount: MakeMount, mode: str, store: Path) -> None:
    """Also when the archive of the next tip is read meanwhile."""
    make_kata(store, "AbCdEf", {"a.bin": os.urandom(300_000).hex()})
    kata = mount(store, mode).kata("AbCdEf")

    def add(index: int) -> bytes:
        (kata / "ran_tests").write_text(json.dumps({"index": index, "summary": {"colour": "red"}}))
        return (kata / "download.tgz").read_bytes()

    whole = (kata / "download.tgz").read_bytes()
    fd = os.open(kata / "download.tgz", os.O_RDONLY)
    try:
        # the kernel is to ask for what is read, and no more
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        parts = [os.read(fd, 50_000)]
        seen = [whole]
        for index in range(1, 5):
            seen.append(add(index))
            parts.append(os.read(fd, 50_000))
        while part := os.read(fd, 50_000):
            parts.append(part)
        assert os.fstat(fd).st_size == len(whole)
    finally:
        os.close(fd)
    assert b"".join(parts) == whole
    assert len(set(seen)) == 5
    for index, archive in enumerate(seen):
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            assert sum(member.name.endswith("/stdout") for member in tar) == 1, f"event {index}"


def test_an_archive_is_read_on_after_a_death_or_not_at_all(mount: MakeMount, store: Path) -> None:
    """On where it would be made the same again: nothing was packed anew, and there was no event."""
    make_kata(store, "AbCdEf", {"a.bin": os.urandom(300_000).hex()})
    mounted = mount(store, "fast")
    mounted.expected_log = "the daemon has died"
    kata = mounted.kata("AbCdEf")

    def begin_and_kill() -> tuple[io.FileIO, bytes]:
        file = io.FileIO(kata / "download.tgz")
        # the kernel is to ask for what is read, and no more
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        part = file.read(50_000)
        before = mounted.daemon
        os.kill(before, signal.SIGKILL)
        wait_until(lambda: mounted.daemon not in (0, before), "the next daemon")
        return file, part

    file, part = begin_and_kill()
    with file:
        # which has a checksum at its end
        assert gzip.decompress(part + file.read())
    (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
    file, part = begin_and_kill()
    (kata / "ran_tests").write_text('{"summary": {"colour": "amber"}}')
    with file, pytest.raises(OSError, match="Stale"):
        file.read()


def test_every_diff_applies_and_equals_gits(
    mount: MakeMount, mode: str, saver_kata: Path, store: Path, tmp_path: Path
) -> None:
    """All pairs of the shared kata: the text equals git's, and turns W's files into N's."""
    kata = mount(store, mode).kata("rG63fy")
    options = ["--unified=1000000", "--find-renames", "--binary", "--no-color"]
    for was in range(8):
        for now in range(8):
            ours = (kata / "diff" / f"{was}..{now}").read_bytes()
            assert ours == git(saver_kata, "diff", *options, f"refs/tags/{was}", f"refs/tags/{now}", "--", "files/")
            work = tmp_path / f"{was}-{now}"
            subprocess.run(["cp", "-r", "--no-preserve=mode", kata / "events" / str(was), work], check=True)
            git(work, "apply", "--allow-empty", "--whitespace=nowarn", stdin=ours)
            subprocess.run(["diff", "-r", work / "files", kata / "events" / str(now) / "files"], check=True)


def test_a_hostile_manifest_names_nothing_outside(mount: MakeMount, store: Path) -> None:
    path = make_kata(store, "AbCdEf", exercise="../../etc/passwd\n" + "x" * 500)
    assert path.is_dir()
    download = mount(store).kata("AbCdEf") / "download"
    assert sorted(os.listdir(download)) == [
        f"cyber-dojo-2026-02-03-AbCdEf-etc-passwd-{'x' * 69}",
        f"cyber-dojo-2026-02-03-AbCdEf-etc-passwd-{'x' * 69}.tgz",
    ]
