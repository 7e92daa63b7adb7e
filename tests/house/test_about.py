"""``.katafs/README.md`` and ``version``: what a person finds, and true of this very mount."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import katafs
from katafs.mount import runtime
from katafs.mount.mounting import device_of
from tests.katas import add_event, make_kata
from tests.mounts import MakeMount, is_keeper, wait_until
from tests.mounts import katafs as katafs_command


def commands(text: str) -> list[str]:
    """What it says to try."""
    part = text[text.index("Try, in a kata:") :]
    return re.findall(r"^    (\S.*)$", part, re.MULTILINE)


@pytest.mark.parametrize("options", [(), ("--read-only",), ("--xattr",)])
def test_the_readme_is_true(mount: MakeMount, store: Path, tmp_path: Path, options: tuple[str, ...], mode: str) -> None:
    """Every name in it is there, every command works, and what cannot be done is not mentioned."""
    add_event(make_kata(store, "AbCdEf"), 1)
    add_event(store / "Ab" / "Cd" / "Ef", 2, files={"new.py": "1\n"}, stdout={"content": "1 passed\n"})
    mounted = mount(store, mode, options)
    kata = mounted.kata("AbCdEf")
    text = (mounted.path / ".katafs" / "README.md").read_text()
    table = re.findall(r"^    (\S.*?)  +\S", text[: text.index("Try, in a kata:")], re.MULTILINE)
    assert len(table) >= 14
    for names in table:
        for name in names.split():
            path = kata / name.replace("N", "2").replace("W", "1").rstrip("/")
            assert path.exists(), name
    is_written = "--read-only" not in options
    assert ("ran_tests" in text) == is_written
    assert ("write a value" in text) == is_written
    assert ("getfattr" in text) == ("--xattr" in options)
    assert ("in the fast mode" in text) == (mode == "fast")
    assert str(store) in text
    assert katafs.__version__ in text
    for command in commands(text):
        run = command.replace("/tmp", str(tmp_path)).replace("less ", "cat ")
        done = subprocess.run(["bash", "-c", run], cwd=kata, capture_output=True, text=True, check=False)
        assert done.returncode <= run.startswith("diff"), f"{command}: {done.stderr}"
        assert done.stdout or run.startswith("tar"), command


def test_what_is_there(mount: MakeMount, store: Path, mode: str) -> None:
    mounted = mount(store, mode)
    about = mounted.path / ".katafs"
    assert sorted(os.listdir(about)) == ["README.md", "stats", "version"]
    assert (about / "version").read_text() == f"{katafs.__version__}\n"
    for name in os.listdir(about):
        assert (about / name).stat().st_size > 0
        with pytest.raises(OSError, match=r"Read-only|Permission"):
            (about / name).write_text("x")
    assert not (about / "other").exists()


def test_another_daemon_may_say_something_else(mount: MakeMount, store: Path) -> None:
    """The kernel asks again when another one serves, so that after an upgrade the old text is not shown for a month."""
    mounted = mount(store)
    version = mounted.path / ".katafs" / "version"
    first = version.stat().st_mtime_ns
    assert version.read_text()
    if not is_keeper(mounted.pid):
        pytest.skip("the mount is not kept alive here")
    before = mounted.daemon
    # who keeps it alive says so a moment after the daemon does
    device = device_of(mounted.path)
    wait_until(lambda: runtime.read(device) is not None, "what its keeper says")
    reloaded = katafs_command("reload", mounted.path, check=False)
    assert reloaded.returncode == 0, reloaded.stderr
    assert mounted.daemon != before
    wait_until(lambda: version.stat().st_mtime_ns > first, "another time", 2)
    assert version.read_text() == f"{katafs.__version__}\n"
