"""Where the log goes: with the time in a file, with the priority and without the time in the journal."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from katafs.cli.logs import SysLog
from tests.mounts import DEADLINE, patience, wait_until

SCRIPT = """
import logging
from katafs.cli.logs import LogTo
LogTo(None, "debug", True).start()
log = logging.getLogger("katafs.test")
for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
    log.log(level, "said")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
"""


def logged(path: Path, stream: str) -> str:
    """What a daemon in the foreground logs to a file, when the environment says that the journal is this stream."""
    with path.open("wb") as file:
        status = os.fstat(file.fileno())
        stream = stream.format(f"{status.st_dev}:{status.st_ino}")
        environment = {**os.environ, "JOURNAL_STREAM": stream}
        subprocess.run([sys.executable, "-c", SCRIPT], stderr=file, env=environment, check=True)
    return path.read_text()


def test_the_journal_gets_priorities_and_no_times(tmp_path: Path) -> None:
    lines = logged(tmp_path / "log", "{}").splitlines()
    assert lines[:5] == [f"<{priority}>katafs.test: said" for priority in (7, 6, 4, 3, 2)]
    assert lines[5:7] == ["<3>katafs.test: failed", "<3>Traceback (most recent call last):"]
    assert all(line.startswith("<3>") for line in lines[5:])


@pytest.mark.parametrize("stream", ["", "1:2", "{}0", "nonsense"])
def test_another_standard_error_gets_times(tmp_path: Path, stream: str) -> None:
    """The variable is inherited by whoever a service starts, and they may send it elsewhere."""
    first = logged(tmp_path / "log", stream).splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} DEBUG katafs\.test: said", first)


def test_every_level_has_a_priority() -> None:
    from katafs.cli.logs import LEVELS, PRIORITIES

    assert {logging.getLevelNamesMapping()[level.upper()] for level in LEVELS} <= PRIORITIES.keys()


def test_without_syslog_nothing_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Before there is one, when it ends, and when another is there."""
    address = tmp_path / "log"
    handler = SysLog(str(address), pause=0.01)
    log = logger_of(handler)
    log.info("lost")
    for text in ("first", "second"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
            syslog.bind(str(address))
            syslog.setblocking(False)
            wait_until(lambda: heard(log, syslog, text), "what is said after a pause")  # noqa: B023
        address.unlink()
        log.info("lost")
    handler.close()
    assert capfd.readouterr() == ("", "")


def test_a_syslog_that_hangs_is_not_waited_for(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its socket is full; when it goes on, so does the log."""
    address = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(address))
        syslog.setblocking(False)
        handler = SysLog(str(address), pause=0.1)
        log = logger_of(handler)
        try:
            for number in range(5000):
                log.info("%d %s", number, "x" * 1000)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while syslog.recv(4096):
                    sent += 1
            assert 0 < sent < 5000
            wait_until(lambda: heard(log, syslog, "again"), "what is said after a pause")
        finally:
            handler.close()
    assert capfd.readouterr() == ("", "")


def test_a_burst_is_waited_for(tmp_path: Path) -> None:
    """The queue of a socket is short, and a syslog that lives empties it."""
    address = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(address))
        syslog.settimeout(patience(DEADLINE))
        handler = SysLog(str(address))
        log = logger_of(handler)
        said: list[bytes] = []
        listener = threading.Thread(target=lambda: said.extend(syslog.recv(4096) for _ in range(200)))
        listener.start()
        try:
            for number in range(200):
                log.info("%d", number)
        finally:
            listener.join()
            handler.close()
    assert [line.rstrip(b"\0").rpartition(b" ")[2] for line in said] == [b"%d" % number for number in range(200)]


def logger_of(handler: SysLog) -> logging.Logger:
    """One for this test alone."""
    log = logging.Logger("test", logging.INFO)  # noqa: LOG001
    log.addHandler(handler)
    return log


def heard(log: logging.Logger, syslog: socket.socket, text: str) -> bool:
    log.info(text)
    with contextlib.suppress(BlockingIOError):
        return syslog.recv(4096).rstrip(b"\0") == f"<30>katafs[{os.getpid()}]: INFO test: {text}".encode()
    return False


HOSTILE = "x\n2026-01-01 00:00:00,000 CRITICAL katafs: FORGED \x1b]0;title\x07\x1b[31m\x9b31m\u202ered"
HOSTILE_SCRIPT = f"""
import logging
from katafs.cli.logs import LogTo
LogTo(None, "debug", True).start()
log = logging.getLogger("katafs.test")
log.error("%s is damaged", {HOSTILE!r})
try:
    raise ValueError({HOSTILE!r})
except ValueError:
    log.exception("failed: %s", {HOSTILE!r})
"""


def test_nothing_in_a_kata_writes_a_line_or_reaches_a_terminal() -> None:
    """By a message, or by an error in a traceback."""
    run = subprocess.run([sys.executable, "-c", HOSTILE_SCRIPT], capture_output=True, check=True)
    said = run.stderr.decode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said)
    assert len([line for line in said.splitlines() if not line.startswith("  ")]) == 3, said
    assert said.count("FORGED") >= 3


def test_nothing_in_a_kata_reaches_the_terminal_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Colours that we set do."""
    import click

    from katafs.cli import main
    from katafs.cli.common import echo, fail, say

    say(HOSTILE)
    echo(click.style(HOSTILE.replace("\x1b[31m", ""), fg="red") + "\nsecond line")
    with pytest.raises(SystemExit):
        fail(HOSTILE)
    with pytest.raises(SystemExit):
        main(["log", "one", HOSTILE], prog_name="katafs")
    output, errors = capsys.readouterr()
    assert output.count("\n") == 3
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", output + errors)
