"""The command line: mounting in the background and in the foreground, unmounting, and what is said when it fails."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from katafs import __version__
from katafs.cli import main
from katafs.mount.mounting import MountError, MountOptions, check
from tests.conftest import unavailable
from tests.katas import git, make_kata
from tests.mount.test_bounds import children as all_children
from tests.mounts import DEADLINE, OTHER, WEAK_ROOT, CommandLine, command_line, daemon_of, patience, wait_until

PR_SET_CHILD_SUBREAPER = 36
LAZY = "umount --lazy takes it away all the same"
NO_DEVICE = "mount -t tmpfs tmpfs /dev; mknod /dev/null c 1 3; mknod /dev/urandom c 1 9"


@pytest.fixture
def cli(fuse: None, one_kata: Path) -> Iterator[CommandLine]:
    """The command line in a directory with the kata AbCdEf in ``store`` and an empty ``mnt``."""
    if os.geteuid() != 0:
        unavailable("these tests take other users' parts: only root can")
    with command_line() as started:
        shutil.copytree(one_kata, started.directory / "store", dirs_exist_ok=True)
        (started.directory / "store").chmod(0o755)
        yield started


def check_kata(mnt: Path) -> None:
    """The kata can be read in a mount."""
    assert (mnt / "Ab/Cd/Ef/files/cyber-dojo.sh").read_text() == "pytest\n"


# -- katafs mount


def test_mount_returns_when_the_tree_is_ready_and_leaves_a_daemon(cli: CommandLine) -> None:
    pid = cli.mount("store", "mnt")
    check_kata(cli.directory / "mnt")
    session, terminal = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3:5]
    assert (session, terminal) == (str(pid), "0")
    assert [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert cli.done("umount", "mnt") == ""
    wait_until(lambda: not cli.daemons(), "the end of the daemon")
    assert os.listdir(cli.directory / "mnt") == []


def test_the_daemon_keeps_nothing_open_that_is_its_callers(cli: CommandLine) -> None:
    """No pipe, so that whoever reads it comes to its end; and no lock."""
    result = cli.shell('exec 9>lock; flock 9; printf "[%s]" "$(katafs mount store mnt)" | cat')
    assert (result.stdout, result.stderr) == ("[]", "")
    check_kata(cli.directory / "mnt")
    subprocess.run(["flock", "--nonblock", cli.directory / "lock", "true"], check=True)


def test_the_daemon_outlives_its_terminal(cli: CommandLine) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cli.directory)
        os.execve(sys.executable, cli.command("mount", "store", "mnt"), cli.environment)
    assert os.waitpid(child, 0)[1] == 0
    os.close(terminal)  # SIGHUP to all that belong to it
    check_kata(cli.directory / "mnt")
    assert len(cli.daemons()) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_end_the_foreground_with_status_0(cli: CommandLine, name: str) -> None:
    with cli.foreground("store", "mnt") as daemon:
        check_kata(cli.directory / "mnt")
        assert daemon.poll() is None
        daemon.send_signal(signal.Signals[name])
        out, err = daemon.communicate(timeout=patience(DEADLINE))
    assert (daemon.returncode, out) == (0, b"")
    assert err.endswith(b" is unmounted\n"), err
    assert cli.mounts() == []


def test_a_signal_that_comes_too_early_leaves_no_mount(cli: CommandLine) -> None:
    """Between the mount and the moment when the daemon can act on the signal: it waits."""
    mnt = str(cli.directory / "mnt")
    with subprocess.Popen(
        cli.command("mount", "-f", "store", "mnt"), cwd=cli.directory, env=cli.environment, stderr=subprocess.DEVNULL
    ) as daemon:
        try:
            wait_until(lambda: mnt in Path("/proc/self/mountinfo").read_text(), "the mount")
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(patience(DEADLINE)) == 0
        finally:
            daemon.kill()
    assert cli.mounts() == []


def test_a_signal_ends_the_background_with_status_0_even_when_busy(cli: CommandLine) -> None:
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)  # the daemon, an orphan, becomes a child of ours
    try:
        pid = cli.mount("store", "mnt")
        with subprocess.Popen(["sleep", "60"], cwd=cli.directory / "mnt/Ab/Cd/Ef/events") as busy:
            os.kill(pid, signal.SIGTERM)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            busy.kill()
        assert cli.mounts() == []
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


def test_read_only(cli: CommandLine) -> None:
    cli.mount("--read-only", "store", "mnt")
    result = cli.shell('echo \'{"summary": {"colour": "red"}}\' > mnt/Ab/Cd/Ef/ran_tests')
    assert "Read-only file system" in result.stderr
    assert git(cli.directory / "store/Ab/Cd/Ef", "tag") == b"0\n"


def test_others_can_look_and_write_with_allow_other_as_owners_and_modes_say(cli: CommandLine) -> None:
    theirs = make_kata(cli.directory / "store", "AbCdEg")
    for path in (theirs, *theirs.rglob("*")):
        os.chown(path, OTHER, OTHER)
    cli.mount("store", "mnt")
    assert "Permission denied" in cli.as_other("ls", "mnt").stderr
    cli.done("umount", "mnt")
    cli.mount("--allow-other", "store", "mnt")
    assert cli.as_other("cat", "mnt/Ab/Cd/Ef/files/cyber-dojo.sh").stdout == "pytest\n"
    script = 'echo \'{"summary": {"colour": "red"}}\' > "mnt/Ab/Cd/$0/ran_tests"'
    assert "Permission denied" in cli.as_other("sh", "-c", script, "Ef").stderr
    assert cli.as_other("sh", "-c", script, "Eg").returncode == 0
    assert git(theirs, "tag") == b"0\n1\n"
    assert {path.lstat().st_uid for path in theirs.rglob("*")} == {OTHER}


def test_uid_and_gid_are_shown_for_everything(cli: CommandLine) -> None:
    cli.mount("--uid=1234", "--gid=5678", "store", "mnt")
    for name in (".", ".katafs", "Ab/Cd", "Ab/Cd/Ef/ran_tests", "Ab/Cd/Ef/events/0/stdout"):
        status = (cli.directory / "mnt" / name).stat()
        assert (status.st_uid, status.st_gid) == (1234, 5678), name


def test_log_level(cli: CommandLine) -> None:
    cli.mount("--log-level=warning", "--log-file=log", "store", "mnt")
    cli.done("umount", "mnt")
    wait_until(lambda: not cli.daemons(), "the end of the daemon")
    assert (cli.directory / "log").read_text() == ""


def test_without_a_log_file_the_background_logs_to_syslog_if_there_is_one(cli: CommandLine) -> None:
    cli.within_namespace(f'{NO_DEVICE}; mknod /dev/fuse c 10 229; ln -s "$1/syslog" /dev/log')
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.settimeout(patience(DEADLINE))
        syslog.bind(str(cli.directory / "syslog"))
        pid = cli.mount("store", "mnt")
        said = syslog.recv(4096).decode()
    assert re.match(rf"<30>katafs\[{daemon_of(pid)}\]: INFO .* is mounted on .*; mode: ", said), said
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not cli.daemons(), "the end of the daemon")
    # now nobody listens any more
    os.kill(cli.mount("store", "mnt"), signal.SIGTERM)


@pytest.mark.parametrize(
    "streams", ["<&-", ">&-", "2>&- --log-file=log", "<&- >&- 2>&-", "<&- >&- 2>&- --log-file=log"]
)
def test_standard_streams_may_be_closed(cli: CommandLine, streams: str) -> None:
    result = cli.shell(f"katafs mount store mnt {streams}")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    check_kata(cli.directory / "mnt")
    (pid,) = cli.daemons()
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {"/dev/null"}


@pytest.mark.parametrize("command", ["compact store", "migrate store", "fsck store", "status mnt", "status --json mnt"])
def test_commands_from_where_streams_are_closed(cli: CommandLine, command: str) -> None:
    """As services and some cron jobs start them."""
    cli.mount("store", "mnt")
    for streams in (">&-", "2>&-", "<&- >&- 2>&-"):
        assert cli.shell(f"katafs {command} {streams}").returncode == 0, streams


def test_umask_and_working_directory_of_the_caller_do_not_matter(cli: CommandLine) -> None:
    store, mnt = cli.directory / "store", cli.directory / "mnt"
    result = cli.shell(f"umask 077; cd /proc; katafs mount {store} {mnt}")
    assert (result.returncode, result.stderr) == (0, "")
    kata = mnt / "Ab/Cd/Ef"
    modes = {name: stat.S_IMODE((kata / name).stat().st_mode) for name in (".", "events", "stdout", "ran_tests")}
    assert modes == {".": 0o755, "events": 0o555, "stdout": 0o444, "ran_tests": 0o644}
    before = set(store.rglob("*"))
    (kata / "ran_tests").write_text('{"summary": {"colour": "red"}}')
    written = {stat.filemode(path.lstat().st_mode) for path in set(store.rglob("*")) - before}
    assert written == {"-r--r--r--", "-rw-r--r--"}
    # nor to those who record when much comes at once
    (keeper,) = cli.daemons()
    wait_until(lambda: [umask(pid) for pid in all_children(daemon_of(keeper))] == ["0022"], "a fork server like this")


def umask(pid: int) -> str:
    """That of a process, or nothing when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/status").read_text().partition("\nUmask:\t")[2][:4]
    return ""


@pytest.mark.parametrize("name", ["ä, 'b'", "\t\\ #1 日本", os.fsdecode(b"\xff\xfe")], ids=ascii)
def test_paths_of_all_kinds(cli: CommandLine, name: str) -> None:
    """In the C locale, and relative to the working directory."""
    cli.environment |= {"LC_ALL": "C", "LANG": "C"}
    (cli.directory / "store").rename(cli.directory / f"store {name}")
    (cli.directory / "mnt").rename(cli.directory / name)
    arguments = ["mount", "--log-file", f"log {name}", f"store {name}", name]
    cli.mount(*arguments[1:])
    check_kata(cli.directory / name)
    assert "is mounted on" in (cli.directory / f"log {name}").read_text()
    assert "is mounted here already" in cli.refused(*arguments, alive=1)
    cli.done("umount", name)
    assert cli.mounts() == []
    assert "no katafs is mounted here" in cli.refused("umount", name)


# -- katafs umount


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ("alive", "link"),
        ("dead", "{}/mnt/"),
        ("dead", "links/store/../link"),
    ],
)
def test_unmounting_by_any_path(cli: CommandLine, state: str, path: str) -> None:
    (cli.directory / "link").symlink_to("mnt")
    (cli.directory / "links").symlink_to(".")
    pid = cli.mount("store", "mnt")
    if state == "dead":
        cli.kill(pid)
    cli.done("umount", path.format(cli.directory))
    assert cli.mounts() == []
    assert cli.refused("umount", "mnt") == "mnt: no katafs is mounted here"


def test_a_busy_mount_stays(cli: CommandLine) -> None:
    cli.mount("store", "mnt")
    with subprocess.Popen(["sleep", "60"], cwd=cli.directory / "mnt/Ab/Cd/Ef") as busy:
        said = cli.refused("umount", "mnt", alive=1)
        busy.kill()
    assert said == f"{cli.directory}/mnt is busy: sleep ({busy.pid}) works in it, or has a file of it open; {LAZY}"
    check_kata(cli.directory / "mnt")


def test_the_umount_program_ends_the_daemon_too(cli: CommandLine) -> None:
    cli.mount("store", "mnt")
    subprocess.run(["umount", cli.directory / "mnt"], check=True)
    wait_until(lambda: not cli.daemons(), "the end of the daemon")


def test_what_is_not_mounted_by_katafs_is_not_unmounted(cli: CommandLine) -> None:
    cli.mount("store", "mnt")
    for what in ("missing", "store", "mnt/Ab", "."):
        assert cli.refused("umount", what, alive=1) == f"{what}: no katafs is mounted here"
    # also not what lies on top of it
    cli.within_namespace('mount -t tmpfs tmpfs "$1/mnt"')
    assert cli.refused("umount", "mnt", alive=1) == "mnt: no katafs is mounted here"
    check_kata(cli.directory / "mnt")


NOT_FOR_OTHERS = "fusermount3: option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf"
DEVICE_FOR_ALL = """
    mkdir "$1/dev"; mount -t tmpfs tmpfs "$1/dev"
    mknod -m 666 "$1/dev/fuse" c 10 229; mount --bind "$1/dev/fuse" /dev/fuse"""


@pytest.fixture
def users(cli: CommandLine) -> CommandLine:
    """The command line of somebody without privileges, to whom ``mnt`` belongs."""
    if not os.stat("/usr/bin/fusermount3").st_mode & stat.S_ISUID:
        unavailable("fusermount3 is not for everybody here")
    os.chown(cli.directory / "mnt", OTHER, OTHER)
    cli.within_namespace(DEVICE_FOR_ALL, user=True)
    return cli


def test_a_user_without_privileges_can_mount_where_the_system_lets_users_mount(users: CommandLine) -> None:
    result = users.shell(
        """
        katafs mount store mnt && cat mnt/Ab/Cd/Ef/files/cyber-dojo.sh
        (cd mnt/Ab; katafs umount ..) || katafs umount mnt && katafs umount mnt
        katafs mount --allow-other store mnt"""
    )
    assert result.stdout == "pytest\n"
    assert re.sub(r"\d+\)", "…)", result.stderr).splitlines() == [
        f"katafs: {users.directory}/mnt is busy: sh (…) works in it, or has a file of it open; {LAZY}",
        "katafs: mnt: no katafs is mounted here",
        f"katafs: {users.directory}/mnt cannot be mounted: {NOT_FOR_OTHERS}",
    ]


def test_a_user_is_told_as_much_as_root(users: CommandLine) -> None:
    """Of a mount of his own; and that it is root who installs."""
    result = users.shell(
        """
        katafs mount store mnt && katafs status mnt && katafs status --json mnt
        katafs reload mnt; katafs umount mnt; katafs install"""
    )
    text, _, document = result.stdout.partition("[")
    facts = dict(line.strip().split(None, 1) for line in text.splitlines()[1:])
    assert re.fullmatch(r"serving for \d+ s, since 20\d\d-\S+ \S+ UTC", facts["state"])
    assert facts["mode"] == "fast mode, read-write, ends with its daemon"
    assert facts["katafs"] == __version__
    (told,) = json.loads("[" + document)
    assert (told["mode"], told["version"], told["kept_alive"]) == ("fast", __version__, False)
    assert datetime.fromisoformat(told["since"]) <= datetime.now(UTC)
    assert told["pid"] == told["daemon_pid"] == int(facts["process"])
    not_kept, not_root = result.stderr.splitlines()
    assert not_kept == "katafs: mnt: this mount is not kept alive; unmount it, and mount it again"
    assert not_root.startswith("katafs: only root can put katafs where the system looks for it")


def test_a_mount_that_goes_on_in_another_namespace(cli: CommandLine) -> None:
    """As in a container that was started while it was there. Whoever unmounts it hears why the daemon goes on."""
    cli.mount("store", "mnt")
    with subprocess.Popen(["unshare", "--mount", "--propagation=private", "sleep", "60"]) as other:
        ours = os.readlink("/proc/self/ns/mnt")
        wait_until(lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n", "the other namespace")
        assert os.readlink(f"/proc/{other.pid}/ns/mnt") != ours
        result = cli.run("umount", "-v", "mnt")
        namespace = os.readlink(f"/proc/{other.pid}/ns/mnt")[5:-1]
        other.kill()
    place = cli.directory / "mnt"
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{place} is unmounted here, but goes on at ")
    # it may be in those of other tests, too, that were made meanwhile
    assert f"at {place} in the mount namespace {namespace} of sleep ({other.pid})" in result.stdout
    wait_until(lambda: not cli.daemons(), "the end of the daemon")


def test_nothing_is_left_of_who_was_killed(cli: CommandLine) -> None:
    pid = cli.mount("store", "mnt")
    device = subprocess.check_output(["mountpoint", "-d", cli.directory / "mnt"], text=True).strip()
    cli.kill(pid)
    said = Path(f"/run/katafs/{device}.json")
    assert str(cli.directory) in said.read_text()
    cli.done("umount", "mnt")
    # another mount may have the number by now
    assert not said.exists() or str(cli.directory) not in said.read_text()


# -- errors

ERRORS = {
    "no store": ("", "nix mnt", "store nix does not exist"),
    "store is a file": ("touch file", "file mnt", "store file is not a directory"),
    "store below a file": ("touch file", "file/x mnt", "store file/x: Not a directory"),
    "store is a loop": ("ln -s loop loop", "loop mnt", "store loop: Too many levels of symbolic links"),
    "store unreadable": ("chmod 0 store", "store mnt", "store {}/store: no permission to read it"),
    "store out of reach": ("chmod 0 store", "store/Ab mnt", "store store/Ab: Permission denied"),
    "no mount point": ("", "store nix", "mount point nix does not exist"),
    "mount point is a file": ("touch file", "store file", "mount point file is not a directory"),
    "mount point unreadable": ("chmod 0 mnt", "store mnt", "mount point {}/mnt: Permission denied"),
    "mount point not empty": (
        "touch mnt/x",
        "store mnt",
        "mount point {}/mnt is not empty; what is in it would be hidden",
    ),
    "log: no directory": ("", "--log-file nix/log store mnt", "log file {}/nix/log: No such file or directory"),
    "log: a directory": ("", "--log-file store store mnt", "log file {}/store: Is a directory"),
    "log: not allowed": ("chmod 500 .", "--log-file log store mnt", "log file {}/log: Permission denied"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_mount(cli: CommandLine, name: str) -> None:
    script, arguments, said = ERRORS[name]
    subprocess.run(script, shell=True, cwd=cli.directory, check=True)
    cli.before = WEAK_ROOT
    assert cli.refused("mount", *arguments.split()) == said.replace("{}", str(cli.directory))
    if name.startswith("log"):
        assert cli.refused("mount", "-f", *arguments.split()) == said.replace("{}", str(cli.directory))
    assert cli.mounts() == []


@pytest.mark.parametrize(
    ("script", "user", "said"),
    [
        (NO_DEVICE, False, "there is no /dev/fuse: load the fuse module, or give the container --device /dev/fuse"),
        ('touch "$1/file"; chmod 600 "$1/file"; mount --bind "$1/file" /dev/fuse', True, "/dev/fuse: no permission"),
        ("mount --bind /dev/null /dev/fuse", False, "{}/mnt cannot be mounted: fuse: mount failed: Invalid argument"),
    ],
    ids=["missing", "forbidden", "another device"],
)
@pytest.mark.parametrize("option", ["--log-level=info", "--foreground"])
def test_mounting_without_the_device(cli: CommandLine, script: str, user: bool, said: str, option: str) -> None:
    cli.within_namespace(script, user=user)
    assert cli.refused("mount", option, "store", "mnt").startswith(said.replace("{}", str(cli.directory)))


# the command line, where the daemon of a mount that is held already cannot go on
FAILING = """
from katafs.cli import main
from katafs.mount import session
from katafs.mount.mounting import MountError

def fail(*_):
    raise MountError("this is not to be")

session._begin = fail
main()
"""


@pytest.mark.parametrize("option", ["--log-level=info", "--foreground"])
@pytest.mark.parametrize("kept", [False, True])
def test_nothing_is_left_of_a_mount_that_is_refused(cli: CommandLine, kept: bool, option: str) -> None:
    """When the command returns, all that it has begun is gone."""
    if not kept:
        cli.within_namespace("mount --bind /dev/null /dev/fuse")
    command = cli.command("mount", option, "store", "mnt")
    if kept:
        command[1:3] = ["-c", FAILING]
    null = subprocess.DEVNULL
    # nobody waits for the end of those who have a pipe
    result = subprocess.run(command, cwd=cli.directory, env=cli.environment, stdout=null, stderr=null, check=False)
    assert (result.returncode, cli.daemons(), cli.mounts()) == (1, [], [])


def test_store_and_mount_point_inside_one_another(cli: CommandLine) -> None:
    (cli.directory / "link").symlink_to("store")
    (cli.directory / "links").symlink_to(".")
    new = "store/Ab/Cd/new"
    (cli.directory / new).mkdir()
    (cli.directory / "bound").mkdir()
    pairs = [("store", "store"), ("store", new), (new, "store"), ("store", "link"), ("link/Ab", "store")]
    for names in [*pairs, ("link", f"links/{new}")]:
        store, mountpoint = (cli.directory / name for name in names)
        with pytest.raises(MountError) as refused:
            check(MountOptions(store, mountpoint))
        assert str(refused.value) == (
            f"store {store.resolve()} and mount point {mountpoint.resolve()} must not contain one another"
        )
    cli.within_namespace('mount --bind "$1/store" "$1/bound"')
    assert "must not contain one another" in cli.refused("mount", "store", "bound/Ab/Cd/new", status=2)
    assert "must not contain one another" in cli.refused("mount", "bound/Ab/Cd/new", "store", status=2)


def test_mounting_where_katafs_is_mounted_or_has_died(cli: CommandLine) -> None:
    (cli.directory / "other").mkdir()
    (cli.directory / "link").symlink_to("mnt")
    mnt = cli.directory / "mnt"
    pid = cli.mount("store", "mnt")
    for store, mountpoint in (("store", "mnt"), ("other", "link")):
        said = cli.refused("mount", store, mountpoint, alive=1)
        assert said == f"{mnt}: katafs is mounted here already; katafs umount {mnt} ends it"
    cli.kill(pid)
    dead = "mnt is a mount whose daemon has died; katafs umount mnt removes it"
    assert cli.refused("mount", "mnt", "other") == f"store {dead}"
    assert cli.refused("create", "mnt", stdin="{}") == f"store {dead}"
    assert cli.mounts() == [str(mnt)]
    again = cli.run("mount", "store", "link")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "katafs: link: what a daemon that has died had left was removed\n"
    check_kata(mnt)


BREAK = """
import sys
from katafs.cli import main
from katafs.tree.tree import Tree

def fail(*_):
    raise {error}

Tree.{method} = fail
main(["mount", *sys.argv[1:], "store", "mnt"])"""


@pytest.mark.parametrize(
    ("option", "method", "error", "said"),
    [
        ("--log-file=log", "node", "ValueError", "{}/mnt: the tree cannot be read: Input/output error"),
        ("--log-file=log", "__init__", "ValueError('no')", "{}/mnt: the daemon failed: ValueError('no')"),
        ("--foreground", "__init__", "ValueError('no')", "{}/mnt: the daemon failed: ValueError('no')"),
    ],
)
def test_bugs_are_told_in_one_sentence(cli: CommandLine, option: str, method: str, error: str, said: str) -> None:
    """And in the log, with their traceback. Nothing stays mounted."""
    script = BREAK.format(method=method, error=error)
    result = cli.python(script, option)
    said = f"katafs: {said}\n".replace("{}", str(cli.directory))
    log = cli.directory / "log"
    assert result.returncode == 1
    assert result.stderr.endswith(said) if option == "--foreground" else result.stderr == said
    assert "Traceback" in (log.read_text() if log.exists() else result.stderr)
    assert cli.mounts() == []
    wait_until(lambda: not cli.daemons(), "the end of the daemon")


# -- katafs.mount.child


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        ("ready()", None),
        ("(ready(), 1 / 0)", None),
        ("1 / 0", "division by zero"),
        ("sys.exit()", "SystemExit"),
        ("None", "the daemon ended before it was ready (exit status 0)"),
        ("os._exit(3)", "the daemon ended before it was ready (exit status 3)"),
        ("os.kill(os.getpid(), 9)", "the daemon ended before it was ready (SIGKILL)"),
    ],
)
def test_what_the_caller_hears_of_its_child(run: str, outcome: str | None) -> None:
    script = f"import os, sys; from katafs.mount import child; print(repr(child.start(lambda ready: {run})))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == (f"{outcome!r}\n", "")


def test_the_daemon_ends_when_nobody_waits_for_it_any_more(cli: CommandLine) -> None:
    """The caller was ended with Ctrl-C, say: it must not find a mount afterwards."""
    script = """
import os
from katafs.mount import child
from katafs.mount import mounting, session
from katafs.cli import main
from katafs.mount.mounting import MountOptions, check
from pathlib import Path

def run(ready):
    parent = os.getppid()
    os.kill(parent, 9)
    while os.getppid() == parent: pass
    try:
        session.serve(options, ready)
    except mounting.MountError as error:
        Path(options.store, "said").write_text(str(error))

options = check(MountOptions(Path("store"), Path("mnt")))
child.start(run)"""
    assert cli.python(script).returncode == -signal.SIGKILL
    said = cli.directory / "store/said"
    wait_until(lambda: said.exists() and not cli.daemons(), "the end of the daemon")
    assert said.read_text() == f"{cli.directory}/mnt: whoever asked for the mount has gone"
    assert cli.mounts() == []


# -- options and help


@pytest.mark.parametrize(
    "arguments",
    ["bogus", "mount", "mount store", "mount --bogus store mnt", "mount --uid=-1 store mnt", "umount", "create",
     "mount --gid=4294967295 store mnt", "mount --log-level=loud store mnt", "mount store ''", "demo a b"],
)  # fmt: skip
def test_a_wrong_command_line(arguments: str) -> None:
    result = CliRunner().invoke(main, shlex.split(arguments), prog_name="katafs")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: katafs "), result.stderr
    assert re.search(r"\nError: .+\n$", result.stderr), result.stderr


@pytest.mark.parametrize("command", ["", *(name for name, one in main.commands.items() if not one.hidden)])
def test_help(command: str) -> None:
    said = CliRunner().invoke(main, [*command.split(), "--help"], prog_name="katafs")
    assert (said.exit_code, said.stderr) == (0, "")
    assert said.stdout.startswith(f"Usage: katafs {command}".rstrip() + " ")
    assert all(len(line) <= 80 and not line.endswith("...") for line in said.stdout.splitlines()[1:])
    assert CliRunner().invoke(main, [*command.split(), "-h"], prog_name="katafs").stdout == said.stdout


def test_help_needs_no_library_but_click(cli: CommandLine) -> None:
    """They take four times as long as all the rest."""
    cli.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    result = cli.run("--help")
    assert " click\n" in result.stderr
    assert not [name for name in ("pyfuse3", "trio", "pygit2", "cachetools") if f" {name}\n" in result.stderr]


def test_quiet_and_verbose(cli: CommandLine) -> None:
    mnt, store = cli.directory / "mnt", cli.directory / "store"
    assert cli.done("mount", "--verbose", "store", "mnt") == f"{store} is mounted on {mnt}\n"
    assert cli.done("reload", "-v", "mnt") == f"mnt is served by katafs {__version__}\n"
    (pid,) = cli.daemons()
    cli.kill(pid)
    assert cli.done("mount", "--quiet", "store", "mnt") == ""
    assert cli.done("umount", "-v", "mnt") in ("mnt is unmounted\n", "")
    assert cli.done("demo", "-q", "store") == ""
    assert cli.done("fsck", "-q", "store") == ""
    plain = store / "Ab/Cd/Eh"
    plain.mkdir(parents=True)
    (plain / "manifest.json").write_text('{"id": "AbCdEh", "version": 1, "visible_files": {}}')
    (plain / "events.json").write_text('{"index":0,"time":[2020,1,2,3,4,5,6],"event":"created"}')
    (plain / "0.event.json").write_text('{"files":{},"index":0,"time":[2020,1,2,3,4,5,6],"event":"created"}')
    assert cli.done("migrate", "--quiet", "--dry-run", "store") == ""
    result = cli.run("migrate", "--verbose", "store", "AbCdEh")
    assert (result.stdout, result.stderr) == ("1 kata with 1 events migrated\n", "AbCdEh: 1 events\n")


def test_version(cli: CommandLine) -> None:
    assert cli.done("--version") == f"katafs, version {__version__}\n"


def test_no_room_for_what_is_printed(cli: CommandLine) -> None:
    assert cli.one_sentence(cli.shell("katafs --help > /dev/full")) == "No space left on device"
