"""katafs as any other file system: mount(8), fstab(5), umount(8), findmnt(8), on a machine of its own."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import UsageError

from katafs.cli.mounts import mount, split, to_arguments
from tests.mounts import AS_OTHER, OTHER, wait_until
from tests.system import System, system

MESSAGE = '{"summary": {"colour": "red"}}'
KATA = "/mnt/katas/Ab/Cd/Ef"


@pytest.fixture
def machine(fuse: None, one_kata: Path) -> Iterator[System]:
    """A machine on which katafs is installed, with the kata AbCdEf in ``/srv/katas`` and an empty ``/mnt/katas``."""
    with system() as started:
        shutil.copytree(one_kata, started.directory / "katas")
        started.done(f"cp -a {started.directory}/katas /srv; mkdir /mnt/katas; katafs install --quiet")
        yield started


def shown(machine: System, target: str = "/mnt/katas") -> dict[str, str]:
    """What findmnt says of a mount: source, type, options."""
    found = json.loads(machine.done(f"findmnt --json -o SOURCE,FSTYPE,OPTIONS {target}"))
    return dict(found["filesystems"][0])


def test_a_line_of_fstab(machine: System) -> None:
    """Generic options go with it, those of katafs too; a second ``mount -a`` mounts nothing twice."""
    options = (
        "allow_other,gid=7,log_level=debug,log-file=/srv/log,noauto,nofail,_netdev,x-systemd.automount,user,nosuid"
    )
    machine.done(f"echo '/srv/katas /mnt/katas fuse.katafs {options.replace('noauto', 'auto')} 0 0' >> /etc/fstab")
    assert machine.run("mount -a; mount -a") == (0, "")
    assert machine.done("findmnt -rn -o TARGET | grep -c ^/mnt/katas") == "1\n"
    found = shown(machine)
    assert (found["source"], found["fstype"]) == ("/srv/katas", "fuse.katafs")
    assert {"rw", "nosuid", "nodev", "noexec", "noatime", "allow_other"} <= set(found["options"].split(","))
    assert machine.done(f"cat {KATA}/files/cyber-dojo.sh; stat -c %g {KATA}") == "pytest\n7\n"
    assert "mode: fast" in machine.done("cat /srv/log")
    assert machine.run("umount /mnt/katas") == (0, "")
    machine.done(
        "sed -i s/auto,nofail/noauto,nofail/ /etc/fstab; mount -a; ! mountpoint -q /mnt/katas; mount /mnt/katas"
    )


def test_mount_by_either_type_and_at_boot(machine: System) -> None:
    """Without any environment too: no PATH, no HOME, no locale."""
    for how in ("mount -t fuse.katafs", "mount -t katafs", "env -i /bin/mount -t katafs", "env -i /sbin/mount.katafs"):
        assert machine.run(f"{how} /srv/katas /mnt/katas -o ro") == (0, "")
        assert shown(machine)["options"].startswith("ro,")
        status, said = machine.run(f"echo '{MESSAGE}' > {KATA}/ran_tests")
        assert (status, "Read-only file system" in said) == (1, True)
        assert machine.run("umount /mnt/katas") == (0, "")


def test_a_line_with_user_is_for_users(machine: System) -> None:
    """Whoever may read the store mounts it, and unmounts it, without root."""
    as_other = shlex.join(AS_OTHER)
    # by a shell, since setpriv itself may still read everything
    if machine.run(f"{as_other} sh -c 'exec {sys.executable} -c \"import katafs\"'")[0]:
        pytest.skip("other users cannot read this Python")
    machine.done("mknod -m 666 /srv/fuse c 10 229; mount --bind /srv/fuse /dev/fuse")
    machine.done(f"chown -R {OTHER}:{OTHER} /srv/katas /mnt/katas")
    machine.done("echo '/srv/katas /mnt/katas fuse.katafs user,noauto 0 0' >> /etc/fstab")
    assert machine.run(f"{as_other} mount /mnt/katas") == (0, "")
    assert f"user_id={OTHER}" in shown(machine)["options"].split(",")
    machine.done(f"echo '{MESSAGE}' > /srv/message")
    machine.done(f"{as_other} cp /srv/message {KATA}/ran_tests")
    assert machine.done(f"{as_other} readlink {KATA}/events/latest") == "1\n"
    assert machine.run(f"{as_other} umount /mnt/katas") == (0, "")
    assert machine.run(f"{as_other} mountpoint -q /mnt/katas")[0]


def test_what_mount_is_told_to_do_otherwise(machine: System) -> None:
    mount_it = "mount -t fuse.katafs /srv/katas /mnt/katas"
    assert machine.run(f"{mount_it} -f") == (0, "")
    assert machine.run("mountpoint -q /mnt/katas")[0] != 0
    assert machine.done(f"{mount_it} -n -v") == "/srv/katas is mounted on /mnt/katas\n"
    machine.done("umount /mnt/katas")
    assert machine.run(f"{mount_it} -s -o nix,ro")[0] == 0
    assert shown(machine)["options"].startswith("ro,")


def test_remount(machine: System) -> None:
    machine.done("mount -t fuse.katafs -o allow_other /srv/katas /mnt/katas")
    machine.done("mount -o remount,ro /mnt/katas")
    status, said = machine.run(f"echo '{MESSAGE}' > {KATA}/ran_tests")
    assert (status, "Read-only file system" in said) == (1, True)
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= set(shown(machine)["options"].split(","))
    machine.done(f"mount -o remount,rw /mnt/katas; exec 9> {KATA}/ran_tests")
    assert machine.run("mount -o remount,ro /mnt/katas") == (
        32,
        "katafs: /mnt/katas cannot be made read-only: a file of it is open for writing\n",
    )
    machine.done(f"echo '{MESSAGE}' >&9; exec 9>&-; test -d {KATA}/events/1")


REFUSED = {
    "-o alow_other /srv/katas /mnt/katas": "There is no mount option 'alow_other'. Did you mean 'allow_other'?",
    "-o zzz=1 /srv/katas /mnt/katas": "There is no mount option 'zzz'. man katafs lists them.",
    "-o log_level /srv/katas /mnt/katas": "Invalid value for '--log-level': '' is not one of 'debug', 'info', "
    "'warning', 'error'.",
    "-o allow_other=yes /srv/katas /mnt/katas": "Option '--allow-other' does not take a value.",
    "-o log_level=x /srv/katas /mnt/katas": "Invalid value for '--log-level': 'x' is not one of 'debug', 'info', "
    "'warning', 'error'.",
}
FAILED = {
    "/srv/nix /mnt/katas": (32, "store /srv/nix does not exist"),
    "/srv/katas /srv/katas": (1, "store /srv/katas and mount point /srv/katas must not contain one another"),
}


def test_what_is_refused(machine: System) -> None:
    """In one sentence, with an exit status of mount(8)'s."""
    for arguments, said in REFUSED.items():
        assert machine.run(f"mount -t fuse.katafs {arguments}") == (1, f"mount.fuse.katafs: {said}\n")
    for arguments, (status, said) in FAILED.items():
        assert machine.run(f"mount -t katafs {arguments}") == (status, f"katafs: {said}\n")
    assert machine.run("mountpoint -q /mnt/katas")[0] != 0


def test_umount_while_somebody_works_in_it(machine: System) -> None:
    machine.done("mount -t katafs /srv/katas /mnt/katas")
    (first,) = json.loads(machine.done("katafs status --json /mnt/katas"))
    pid = machine.done(f"sleep 600 < {KATA}/stdout & echo $!").strip()
    wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the program of that process")
    assert machine.run("umount /mnt/katas") == (32, "umount: /mnt/katas: target is busy.\n")
    busy = "katafs: /mnt/katas is busy: sleep ({}) works in it, or has a file of it open; umount --lazy takes it away"
    assert machine.run("katafs umount /mnt/katas") == (1, f"{busy.format(pid)} all the same\n")
    shell = machine.done(f"cd {KATA}; echo $BASHPID").strip()
    status, said = machine.run("katafs umount /mnt/katas")
    assert status == 1
    assert all(name in said for name in (f"sleep ({pid})", f"bash ({shell})", " and ", "work in it, or have files"))
    # whoever is in it goes on; everybody else finds an empty directory, and may mount again
    assert machine.run("katafs umount --lazy /mnt/katas") == (0, "")
    assert machine.done("cat files/cyber-dojo.sh; ls /mnt/katas") == "pytest\n"
    machine.done("mount -t katafs /srv/katas /mnt/katas; mountpoint -q /mnt/katas; umount /mnt/katas")
    machine.done(f"cd; kill {pid}; wait")
    # the first one's daemon ends with its last user
    wait_until(lambda: not Path(f"/proc/{first['pid']}").exists(), "the end of the daemon")


def test_what_is_mounted_in_it_is_named(machine: System) -> None:
    machine.done(f"mount -t katafs /srv/katas /mnt/katas; mount -t tmpfs tmpfs {KATA}/files")
    assert machine.run("katafs umount /mnt/katas") == (
        1,
        f"katafs: /mnt/katas is busy: {KATA}/files is mounted in it\n",
    )


# -- options, without a mount


def test_each_option_of_the_command_has_a_name_for_fstab() -> None:
    given = "allow_other,no-fast-open,no_keep_alive,uid=1,gid=2,log_level=debug,ro,rw,ro"
    assert to_arguments(mount, split(given)) == [
        "--allow-other", "--no-fast-open", "--no-keep-alive", "--uid=1", "--gid=2", "--log-level=debug", "--read-only"
    ]  # fmt: skip


def test_values_with_commas_are_in_quotes() -> None:
    assert split('ro,log_file="/a,b",x-a="c d,e"') == [("ro", None), ("log_file", "/a,b"), ("x-a", "c d,e")]
    assert split("") == split(",,") == []


@pytest.mark.parametrize("text", ["foreground", "help", "read_only", "remount", "version", "options=ro", "ro=1"])
def test_what_is_no_option_of_a_mount(text: str) -> None:
    with pytest.raises(UsageError):
        to_arguments(mount, split(text))
    assert to_arguments(mount, split("x-whatever,X-mine=1,comment=a,rw")) == []
    assert to_arguments(mount, split("log_file,ro,uid")) == ["--log-file=", "--uid=", "--read-only"]
