"""The two commands on a bare Debian, each release that katafs is for: from debootstrap, in namespaces of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import SHARED, unavailable
from tests.system import have

ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 3_600.0
# mounts of the root's own, then what is to be done there; the end of the process is the end of all in there
_ENTER = """
    set -e
    root=$1
    shift
    mount --bind "$root" "$root"
    for name in dev sys; do mount --rbind /$name "$root/$name"; done
    mount -t proc proc "$root/proc"
    for name in run tmp; do mount -t tmpfs tmpfs "$root/$name"; done
    for path in "$@"; do mount --bind -o ro "$path" "$root$path"; done
    cd "$root"
    pivot_root . mnt
    umount -l /mnt
    exec env -i HOME=/root TERM=dumb KATAFS_CI=1 PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -euxo pipefail
"""


class Debian:
    """A bare Debian with a checkout in ``/root/src/katafs``, and the real katas beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bound: list[str] = []

    def make(self, release: str) -> None:
        """Install it. Programs there fetch packages from where those here do."""
        sources = "".join(path.read_text() for path in Path("/etc/apt").glob("sources.list*/*.sources"))
        sources += "".join(path.read_text() for path in Path("/etc/apt").glob("sources.list"))
        uris = re.findall(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+)", sources, re.MULTILINE)
        if not uris:
            unavailable("it is not known here where Debian's packages come from")
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", "--include=ca-certificates", release, self.root, uris[0]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        # its own words have addresses in them
        assert made.returncode == 0, f"debootstrap failed: {made.returncode}"
        # a directory for temporary files is closed to others, and / is not
        self.root.chmod(0o755)
        (self.root / "etc/apt/sources.list").write_text(f"deb {uris[0]} {release} main\n")
        for name in ("apt.conf.d", "auth.conf.d"):
            shutil.copytree(f"/etc/apt/{name}", self.root / "etc/apt" / name, dirs_exist_ok=True)
        for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
            if Path("/", name).exists():
                shutil.copyfile(Path("/", name), self.root / name)
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
        )
        for path in re.findall(r"(?<![\w/])(?:file://)?(/\w[^\s'\"]*)", pip.stdout):
            self._bind(path)
        subprocess.run(["git", "clone", "-q", ROOT, self.root / "root/src/katafs"], check=True)
        if SHARED.is_dir():
            shutil.copytree(SHARED, self.root / "root/src/shared/katas")

    def _bind(self, path: str) -> None:
        there = self.root / path[1:]
        if not os.path.exists(path) or there.exists():
            return
        there.parent.mkdir(parents=True, exist_ok=True)
        there.mkdir() if os.path.isdir(path) else there.touch()
        self._bound.append(path)

    def run(self, script: str) -> str:
        """Run a script as root there, in ``/root/src/katafs``; it must succeed. What it printed."""
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private"]
        done = subprocess.run(
            [*command, "sh", "-c", _ENTER, "sh", self.root, *self._bound],
            input=f"cd /root/src/katafs\n{script}", capture_output=True, text=True, check=False, timeout=_SECONDS,
        )  # fmt: skip
        # where tests have failed: from there on
        said = done.stdout[done.stdout.find("= FAILURES =") :]
        assert done.returncode == 0, f"{said[:20_000]}\n{said[-6000:]}\n{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def debian(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """A bare Debian."""
    if os.geteuid() != 0:
        unavailable("only root can have a root of its own")
    have("debootstrap")
    machine = Debian(tmp_path_factory.mktemp("debian"))
    machine.make(request.param)
    yield machine
    # what it bound is gone with its processes
    shutil.rmtree(machine.root)


_TRY = """
kata=$(find /mnt/katafs -mindepth 3 -maxdepth 3 -type d | sort | sed -n 1p)
cat "$kata/events.json" > /dev/null
tar -C "$kata" -cf - files | tar -tf - | grep files/ > /dev/null
grep -rq . "$kata/files"
echo '{"summary": {"colour": "red"}}' > "$kata/ran_tests"
grep -q '"ok": true' "$kata/ran_tests"
"""


@pytest.mark.slow
def test_the_first_command(debian: Debian) -> None:
    """As root, with an umask that closes everything, twice; a death of the daemon is not noticed."""
    said = debian.run(rf"""
        umask 077
        ./mount.sh
        {_TRY}
        .venv/bin/katafs status
        exec 3< "$kata/events.json"
        read -r -n 1 <&3
        kill -KILL $(.venv/bin/katafs status | sed -n 's/^ *process *\([0-9]*\),.*/\1/p')
        cat <&3 > /dev/null
        exec 3<&-
        {_TRY}
        time ./mount.sh
        ./mount.sh --umount
        ! mountpoint -q /mnt/katafs
    """)
    assert "fast" in said
    assert "kept alive" in said


@pytest.mark.slow
def test_the_first_command_by_sudo(debian: Debian) -> None:
    """What it says works for the person who typed it."""
    said = debian.run(f"""
        apt-get -qq -y install sudo > /dev/null 2>&1
        id person 2>/dev/null || useradd -m -s /bin/bash person
        echo 'person ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/person
        cp -r /root/src/katafs /home/person/katafs
        chown -R person: /home/person/katafs
        cat > /tmp/typed <<'END'
        set -euo pipefail
        cd ~/katafs
        sudo ./mount.sh
        sudo ./mount.sh
        {_TRY}
        katafs status
        sudo ./mount.sh --umount
END
        su - person -c 'bash /tmp/typed'
    """)
    assert "fast" in said


@pytest.mark.slow
def test_the_second_command(debian: Debian, record_property: Callable[[str, object], None]) -> None:
    """With the demo mounted beside it."""
    said = debian.run("./mount.sh; ./tests/run; ./mount.sh --umount")
    summary = [line for line in said.splitlines() if re.match(r"=+ .* in .*=+$", line)]
    record_property("summary", " ".join(summary))
    assert summary
