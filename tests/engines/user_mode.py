"""A Linux in user mode, of Debian's package, in which pytest runs: its kernel has an NFS server, as few others have.

It sees all files of this machine, but has processes, mounts, networks and devices of its own, and one processor.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import unavailable
from tests.mounts import patience

_PROGRAMS = ("linux.uml", "modprobe", "rpc.nfsd", "mount.nfs4", "ip")
_MODULES = Path("/usr/lib/uml/modules")
_ROOT = Path(__file__).resolve().parents[2]
_INIT = """#!/bin/bash
export PATH={path} HOME=/root TMPDIR=/run/disk/tmp
for type in proc:/proc sysfs:/sys tmpfs:/run tmpfs:/dev/shm devpts:/dev/pts; do
    mkdir -p "${{type#*:}}"
    mount -t "${{type%:*}}" none "${{type#*:}}"
done
ip link set lo up
modprobe -a -d {directory} fuse veth bridge nfsd nfsv4
mkdir /run/disk
mount /dev/ubda /run/disk
mkdir -m 1777 /run/disk/tmp
cd {root}
{command}
echo $? >{directory}/status
umount -a -t ext4
echo o >/proc/sysrq-trigger
sleep 60
"""


def is_user_mode() -> bool:
    """Whether we are in one."""
    return "User Mode Linux" in Path("/proc/cpuinfo").read_text()


def run_pytest(directory: Path, *arguments: str, seconds: float) -> int:
    """Run pytest in one, in the checkout: its status. It prints what is printed there."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in _PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        unavailable(f"there is no {', '.join(missing)}: tests/run --engines --slow installs that")
    (directory / "lib").mkdir()
    (directory / "lib/modules").symlink_to(_MODULES)
    command = shlex.join([sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", *arguments])
    init, disk = directory / "init", directory / "disk"
    init.write_text(_INIT.format(directory=directory, root=_ROOT, command=command, path=path))
    init.chmod(0o755)
    with disk.open("wb") as file:
        file.truncate(4 << 30)
    subprocess.run([shutil.which("mkfs.ext4", path=path) or "mkfs.ext4", "-q", disk], check=True)
    kernel = ["mem=3G", f"ubd0={disk}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", f"init={init}"]
    kernel += ["con=null", "con0=null,fd:1", "quiet", f"umid={directory.name}"]
    # its memory is a file that is removed at once
    where = {**os.environ, "TMPDIR": "/dev/shm", "PATH": path, "HOME": str(directory)}
    ending = ["setpriv", "--pdeathsig", "KILL", "linux.uml"]
    subprocess.run([*ending, *kernel], env=where, stdin=subprocess.DEVNULL, timeout=patience(seconds), check=False)
    return int((directory / "status").read_text())
