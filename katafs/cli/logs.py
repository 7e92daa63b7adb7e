"""Where the log of a daemon goes, and how a line of it is written: nothing in a kata can write one of its own, or reach
the terminal of who reads."""

from __future__ import annotations

import logging
import os
import sys
import time
from dataclasses import dataclass
from logging.handlers import SysLogHandler
from pathlib import Path

from katafs.cli.common import LineFormatter

#: of syslog(3), which the journal knows by as well
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
LEVELS = ("debug", "info", "warning", "error")
# seconds; to find out that nobody listens takes as long as some requests
_PAUSE = 5.0
# seconds; one that lives takes what is sent sooner, though its queue is short (net.unix.max_dgram_qlen)
_PATIENCE = 0.02


@dataclass(frozen=True)
class LogTo:
    path: str | Path | None
    level: str
    foreground: bool

    def start(self) -> None:
        """Raises OSError."""
        formatter: logging.Formatter = LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        handler: logging.Handler
        if self.path is not None:
            handler = logging.FileHandler(self.path, encoding="utf-8", errors="backslashreplace")
        elif self.foreground:
            handler = logging.StreamHandler()
            if _is_journal():
                formatter = JournalFormatter("%(name)s: %(message)s")
        else:
            handler = SysLog()
        if handler.formatter is None:
            handler.setFormatter(formatter)
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(self.level.upper())


def _is_journal() -> bool:
    """Whether standard error is the journal's: ``JOURNAL_STREAM`` has its device and inode (systemd.exec(5)).

    A process that we are started by may have given us another standard error, and the variable all the same.
    """
    try:
        status = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class JournalFormatter(LineFormatter):
    """Each line with its priority, such as ``<3>`` (sd-daemon(3)); the journal has the time and the process itself."""

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{PRIORITIES.get(record.levelno, 5)}>"
        # to the journal each line is a message of its own
        return mark + super().format(record).replace("\n", f"\n{mark}")


class SysLog(SysLogHandler):
    """Sends to the socket at ``address``. While nobody listens there, or takes what is sent, messages are lost, without
    a word. The standard handler would write a traceback for each of them, which took a tenth of the time of a commit;
    and wait for a syslog that hangs, and all requests with it."""

    def __init__(self, address: str = "/dev/log", pause: float = _PAUSE) -> None:
        super().__init__(address, self.LOG_DAEMON)
        self._pause, self._silent_until = pause, 0.0
        self.setFormatter(LineFormatter("katafs[%(process)d]: %(levelname)s %(name)s: %(message)s"))

    def _connect_unixsocket(self, address: str) -> None:
        # where the library makes a socket, at first and after each error
        super()._connect_unixsocket(address)  # type: ignore[misc]
        self.socket.settimeout(_PATIENCE)  # type: ignore[attr-defined]

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self._silent_until:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - as the library has it
        self._silent_until = time.monotonic() + self._pause
