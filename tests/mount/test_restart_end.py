"""How a mount that is kept alive ends, and what happens where none is kept alive."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from katafs.mount.keeper import GIVE_UP_DEATHS
from tests.katas import assert_sound, make_kata
from tests.mounts import DEADLINE, MakeMount, Mount, command_line, daemon_of, katafs, patience, wait_until
from tests.restarts import EXPECTED, MESSAGE, calling, is_waiting

# -- a daemon that cannot end

SLOW = """
import os, sys, trio
from katafs.cli import main
from katafs.fuse import fastopen
load = fastopen.load

def load_and_change(**wanted):
    loaded = load(**wanted)
    from katafs.fuse.operations import Operations
    real = Operations.lookup
    async def lookup(self, parent, name, ctx):
        while name == b"slow" and os.path.exists(sys.argv[1]):
            await trio.sleep(0.01)
        return await real(self, parent, name, ctx)
    Operations.lookup = lookup
    return loaded

fastopen.load = load_and_change
main(["mount", "--log-file=log", *sys.argv[2:], "store", "mnt"])
"""


def is_telling(pid: int) -> bool:
    """Whether a thread of a process waits in write(2) or writev(2), uninterruptibly."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            if ") D " in (task / "stat").read_text() and (task / "syscall").read_text().split()[0] in ("1", "20"):
                return True
    return False


@pytest.mark.parametrize("option", ["--log-level=info", "--no-keep-alive"])
def test_a_daemon_that_cannot_end_because_the_kernel_waits_for_it(fuse: None, option: str) -> None:
    """It was telling the kernel what to forget in a directory, where a name was being looked up: the kernel waits for
    the answer to that, and the dead daemon for the kernel."""
    with command_line() as cli:
        path = make_kata(cli.directory / "store", "AbCdEf")
        slow = cli.directory / "slow"
        slow.touch()
        assert cli.python(SLOW, slow, option).returncode == 0
        (pid,) = cli.daemons()
        shown = cli.directory / "mnt/Ab/Cd/Ef"
        os.listdir(shown / "files")
        daemon = daemon_of(pid)
        with calling(partial(os.stat, shown / "files/slow")) as lookup:
            wait_until(is_waiting, "the request")
            with calling(lambda: (cli.directory / "mnt/Ab/Cd/Ef/ran_tests").write_bytes(MESSAGE)) as write:
                wait_until(lambda: is_telling(daemon), "a thread that waits for the kernel")
                # made while the kernel is told; what a death before leaves out the next writer makes
                wait_until((path / ".git/refs/tags/1").exists, "the tag")
                os.kill(daemon, signal.SIGKILL)
                if option == "--no-keep-alive":
                    for call in (lookup, write):
                        assert isinstance(call.exception(patience(DEADLINE)), OSError), "they hear of it"
                else:
                    slow.unlink()
                    assert isinstance(lookup.exception(patience(DEADLINE)), FileNotFoundError)
                    assert write.result(patience(DEADLINE)) == len(MESSAGE)
                    assert "has died (killed)" in (cli.directory / "log").read_text()
        assert assert_sound(path) == 1
        wait_until(lambda: not Path(f"/proc/{daemon}").exists(), "its end")
        cli.done("umount", "mnt")


# -- how it ends


def ended(mount: Mount) -> int:
    """The exit status of the process that was started; all that it started has ended too."""
    assert mount.process is not None
    status = mount.process.wait(patience(DEADLINE))
    assert not os.listdir(mount.path), "it is unmounted"
    return status


def test_it_is_given_up_when_the_daemon_dies_again_and_again(store: Path, mount: MakeMount) -> None:
    make_kata(store, "AbCdEf")
    mounted = mount(store)
    mounted.expected_log = f"{EXPECTED}|given up"
    assert mounted.process is not None
    while mounted.process.poll() is None:
        with suppress(ProcessLookupError):
            if daemon := mounted.daemon:
                os.kill(daemon, signal.SIGKILL)
    assert ended(mounted) == 1
    assert f"has died {GIVE_UP_DEATHS} times within 6 seconds; the last time: SIGKILL" in mounted.log_text()


@pytest.mark.parametrize("how", ["the daemon", "katafs umount", "fusermount3"])
def test_what_is_ended_on_purpose_stays_so(store: Path, mount: MakeMount, how: str) -> None:
    make_kata(store, "AbCdEf")
    mounted = mount(store)
    os.listdir(mounted.kata("AbCdEf"))
    if how == "the daemon":
        os.kill(mounted.daemon, signal.SIGTERM)
    elif how == "katafs umount":
        katafs("umount", mounted.path)
    else:
        subprocess.run(["fusermount3", "-u", mounted.path], check=True)
    assert ended(mounted) == 0
    assert "has died" not in mounted.log_text()


def test_who_keeps_it_alive_is_killed(store: Path, mount: MakeMount) -> None:
    """The daemon goes on; it unmounts when it ends."""
    path = make_kata(store, "AbCdEf")
    mounted = mount(store)
    mounted.expected_log = "keeps the mount alive has gone"
    assert mounted.process is not None
    daemon = mounted.daemon
    mounted.process.kill()
    mounted.process.wait(patience(DEADLINE))
    (mounted.kata("AbCdEf") / "ran_tests").write_bytes(MESSAGE)
    assert assert_sound(path) == 1
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: not os.path.ismount(mounted.path), "the unmount")
    assert not os.listdir(mounted.path)


def test_without_being_kept_alive(store: Path, mount: MakeMount) -> None:
    """Who waits hears of it; and mounting again is enough."""
    make_kata(store, "AbCdEf")
    mounted = mount(store, options=("--no-keep-alive",))
    assert mounted.daemon == mounted.pid
    wait_until(lambda: "will not outlive the daemon: --no-keep-alive was given" in mounted.log_text(), "the reason")
    os.kill(mounted.pid, signal.SIGSTOP)
    with calling(lambda: os.listdir(mounted.kata("AbCdEf"))) as listing:
        wait_until(is_waiting, "the request")
        mounted.kill()
        with pytest.raises(OSError, match=r"not connected|abort"):
            listing.result(patience(DEADLINE))
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mounted.path)
    mounted.log.unlink()
    again = mount(store, path=mounted.path)
    assert "events" in os.listdir(again.kata("AbCdEf"))


def test_without_the_fast_mode(store: Path, mount: MakeMount) -> None:
    mounted = mount(store, mode="slower")
    assert mounted.daemon == mounted.pid
    wait_until(lambda: "will not outlive the daemon: that needs the fast mode" in mounted.log_text(), "the reason")
