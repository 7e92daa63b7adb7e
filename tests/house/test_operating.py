"""What the page on operating says works: its recipes are run on a machine of its own, its containers as namespaces."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import katafs as package
from tests.mounts import MakeMount, wait_until
from tests.system import System, have, system

DOCS = Path(__file__).resolve().parents[2] / "katafs/docs"
PAGE = (DOCS / "operating.md").read_text()
RECIPES = dict(re.findall(r"^<!-- recipe: (\w+) -->\n```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
#: what docker gives a container, beside what compose.yml adds
GIVEN = "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod setfcap"
RED = """echo '{"summary": {"colour": "red"}}' >"""
OWNER = "setpriv --reuid=19663 --regid=65533 --clear-groups"
#: with the katas of saver's user, while somebody writes, makes katas, and packs them
BUSY = rf"""
while [ -e /srv/busy ]; do
    for kata in Py/Fz/Bz Ba/sh/Wc; do {RED} /mnt/katas/$kata/ran_tests; done
    echo '{{"visible_files": {{"a": {{"content": ""}}}}}}' | katafs create /srv/katas
    {OWNER} git -C /srv/katas/Py/Fz/Bz gc -q
    katafs compact -q /srv/katas BashWc
done
"""


@pytest.fixture
def machine(fuse: None) -> Iterator[System]:
    """With a store, its mount, and a line for it in fstab."""
    with set_up() as started:
        yield started


@pytest.fixture(scope="module")
def one_machine(fuse: None) -> Iterator[System]:
    """The same, for tests that do not touch one another."""
    with set_up() as started:
        yield started


@contextlib.contextmanager
def set_up() -> Iterator[System]:
    have("rsync")
    with system() as started:
        started.done("katafs demo -q /srv/katas; chown -R 19663:65533 /srv/katas; mkdir /mnt/katas; katafs install -q")
        started.done("echo '/srv/katas /mnt/katas fuse.katafs allow_other 0 0' >> /etc/fstab; mount /mnt/katas")
        yield started


def put(machine: System, path: str, text: str) -> None:
    machine.done(f"cat > {path} <<'END-OF-IT'\n{text}END-OF-IT")


def test_all_recipes_are_run() -> None:
    assert len(RECIPES) == PAGE.count("```sh\n")
    for name in RECIPES:
        assert f'RECIPES["{name}"]' in Path(__file__).read_text(), name


# -- backup


@pytest.mark.thorough
def test_backup_and_restore(machine: System) -> None:
    """What was answered for before a backup began is in it, nothing is half in it, and a kata comes back from it."""
    machine.done("mkdir /srv/bin")
    put(machine, "/srv/backup.sh", RECIPES["backup"])
    put(machine, "/srv/busy.sh", BUSY)
    # between any two of its copies there are an event and another pack
    event = f"{RED} /mnt/katas/Js/Rm/Ns/ran_tests; {OWNER} git -C /srv/katas/Js/Rm/Ns gc -q"
    put(machine, "/srv/bin/rsync", f'#!/bin/sh\n/usr/bin/rsync "$@"; status=$?; {event}; exit $status\n')
    machine.done("chmod +x /srv/bin/rsync; touch /srv/busy; sh /srv/busy.sh >/srv/busy.log 2>&1 &")
    latest = "for kata in ??/??/??; do echo $kata $(readlink $kata/events/latest); done"
    last = ""
    for new in ("/srv/one", "/srv/backup"):
        before = machine.done(f"cd /mnt/katas; {latest}; cd").splitlines()
        said = machine.done(f"PATH=/srv/bin:$PATH sh /srv/backup.sh /srv/katas {new} {last}")
        # the order is right: of what came meanwhile references may be lacking, of what references name nothing
        assert set(re.findall(r"^\w{6} ([a-z-]+): ", said, re.MULTILINE)) <= {"tag-missing", "main-behind"}, said
        machine.done(f"mkdir /mnt/backup; katafs mount --read-only {new} /mnt/backup")
        for line in before:
            kata, index = line.split()
            machine.done(f"cat /mnt/backup/{kata}/events/{index}.json")
        machine.done("katafs umount /mnt/backup; rmdir /mnt/backup")
        last = new
    machine.done("rm /srv/busy; wait")
    assert machine.done("katafs fsck --quiet /srv/backup") == ""
    # what did not change is linked
    assert machine.done("stat -c %h /srv/backup/CP/rm/Fc/manifest.json") == "2\n"
    machine.done("rm -r /srv/katas/Py/Fz/Bz/.git/objects/pack/*")
    machine.done(RECIPES["restore"] + "cd /")
    assert machine.done("stat -c %u /srv/katas/Py/Fz/Bz/.git/objects") == "19663\n"
    recorded = machine.done("git -C /srv/backup/Py/Fz/Bz tag | sort -n | tail -n 1")
    shown = "readlink /mnt/katas/Py/Fz/Bz/events/latest"
    wait_until(lambda: machine.run(shown) == (0, recorded), "the kata as it was", 5)
    machine.done(f"{RED} /mnt/katas/Py/Fz/Bz/ran_tests")
    assert int(machine.done(shown)) == int(recorded) + 1


@pytest.mark.thorough
def test_moving(machine: System) -> None:
    inode = machine.done("stat -c %i /mnt/katas/Py/Fz/Bz/events/3/stdout")
    machine.done(RECIPES["move"])
    machine.done("echo dark > /mnt/katas/Py/Fz/Bz/config/theme")
    assert machine.done("stat -c %i /mnt/katas/Py/Fz/Bz/events/3/stdout") == inode
    assert machine.done("findmnt -no SOURCE /mnt/katas") == "/srv/other\n"
    assert machine.done("stat -c %u:%g /srv/other/Py/Fz/Bz/.git/refs/heads/main") == "19663:65533\n"


# -- containers


@pytest.mark.thorough
def test_containers(machine: System) -> None:
    """With the mount namespaces and capabilities of compose.yml: what a service sees that was there before katafs."""
    text = (DOCS / "compose.yml").read_text()
    (added,) = re.findall(r"cap_add: \[(.*)\]", text)
    assert re.findall(r"propagation: (r\w+)\}", text) == ["rshared", "rslave"]
    ((uid, gid),) = re.findall(r'user: "(\d+):(\d+)"', text)
    capabilities = ",".join(f"+{name}" for name in [*GIVEN.split(), *added.lower().split(", ")])
    machine.done("umount /mnt/katas; mkdir -p /srv/cyber-dojo/katas")
    # the host's own mount is shared
    machine.done("mount --bind /srv/cyber-dojo /srv/cyber-dojo; mount --make-rshared /srv/cyber-dojo")
    daemon = "katafs mount --foreground --allow-other /srv/katas /srv/cyber-dojo/katas"
    container = f"unshare --mount --propagation shared setpriv --bounding-set=-all,{capabilities} {daemon}"
    weak = f"setpriv --reuid={uid} --regid={gid} --clear-groups"
    service = "unshare --mount --pid --fork --kill-child --propagation slave sleep 1000"
    # unshare has something to say when its child is killed, at any moment
    machine.done(f"{service} >/srv/said 2>&1 & echo $! > /srv/service")
    child = "cat /proc/$(cat /srv/service)/task/*/children"
    inside = f"nsenter --mount --pid --target=$({child})"
    put(machine, "/srv/message", '{"summary": {"colour": "green"}}\n')

    def in_service(command: str) -> str:
        return machine.run(f"{inside} {weak} sh -c '{command}'")[1]

    kata = "/srv/cyber-dojo/katas/Py/Fz/Bz"
    healthy = "katafs status /srv/cyber-dojo/katas"
    try:
        for number in (18, 19):
            assert in_service("ls /srv/cyber-dojo/katas") == ""
            machine.done(f"{container} >/srv/log 2>&1 & echo $! > /srv/daemon")
            wait_until(lambda: machine.run(healthy)[0] == 0, "a healthy container", 20)
            assert in_service(f"cat /srv/message > {kata}/ran_tests; readlink {kata}/events/latest") == f"{number}\n"
            assert machine.done("stat -c %u /srv/katas/Py/Fz/Bz/.git/refs/heads/main") == f"{uid}\n"
            machine.done("kill $(cat /srv/daemon); wait $(cat /srv/daemon)")
    finally:
        # unshare itself ends at nothing else
        machine.run(f"kill -9 $({child})")


# -- other programs


def test_others(one_machine: System) -> None:
    put(one_machine, "/etc/updatedb.conf", 'PRUNE_BIND_MOUNTS="yes"\nPRUNEFS="NFS afs fuse.sshfs"\n')
    one_machine.done(RECIPES["updatedb"] * 2)
    assert one_machine.done("grep PRUNEFS /etc/updatedb.conf") == 'PRUNEFS="NFS afs fuse.sshfs fuse.katafs"\n'
    log = "HOME=/srv git -C /mnt/katas/Py/Fz/Bz log --oneline"
    one_machine.done("unset GIT_CONFIG_COUNT GIT_CONFIG_GLOBAL")
    assert "dubious ownership" in one_machine.run(log)[1]
    one_machine.done("export HOME=/srv; " + RECIPES["dubious"])
    assert "ran tests" in one_machine.done(log)


def test_waiting_for_what_others_commit(one_machine: System) -> None:
    put(one_machine, "/srv/wait.sh", RECIPES["wait"])
    one_machine.done("mkdir /mnt/other; katafs mount /srv/katas /mnt/other")
    one_machine.done("sh /srv/wait.sh > /srv/heard & echo $! > /srv/waits")
    asleep = "for child in $(cat /proc/$(cat /srv/waits)/task/*/children); do cat /proc/$child/comm; done"
    wait_until(lambda: "sleep" in one_machine.run(asleep)[1], "the script to wait")
    one_machine.done(f"{RED} /mnt/other/Py/Fz/Bz/ran_tests; wait $(cat /srv/waits)")
    assert one_machine.done("cat /srv/heard") == "event 18\n"


def test_a_disk_that_comes_late(one_machine: System) -> None:
    have("systemd-analyze")
    one_machine.done("mkdir -p /etc/katafs; touch /etc/katafs/katas.conf")
    one_machine.done(RECIPES["late"])
    verify = "SYSTEMD_LOG_LEVEL=debug systemd-analyze verify --man=no katafs@katas.service"
    assert "/etc/systemd/system/katafs@katas.service.d/store.conf" in one_machine.done(f"{verify} 2>&1")
    assert one_machine.done(verify.partition(" ")[2]) == ""


# -- alerts and messages


def test_alerts_are_about_what_there_is(mount: MakeMount, store: Path) -> None:
    text = (DOCS / "alerts.yml").read_text()
    stats = (mount(store).path / ".katafs/stats").read_text()
    named = set(re.findall(r"\b(?:katafs|process)_\w+", text))
    assert len(named) >= 8
    for name in named:
        assert f"# TYPE {name.removesuffix('_bucket')} " in stats, name
    if shutil.which("promtool"):
        checked = subprocess.run(["promtool", "check", "rules", DOCS / "alerts.yml"], capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr.decode()


def test_messages_are_said() -> None:
    """What stands in the table, between what differs, stands in the sources."""
    table = PAGE[PAGE.index("## What to do when it says") :]
    messages = re.findall(r"`([^`]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))
    assert len(messages) > 20
    sources = "".join(path.read_text() for path in Path(package.__file__).parent.rglob("*.py"))
    sources += (Path(package.__file__).parent.parent / "mount.sh").read_text()
    for message in messages:
        for part in re.findall(r"[^…():]{8,}", message):
            assert part.strip() in re.sub(r'"\s*f?"', "", sources), message
