"""Where the log of a daemon goes, and how a line of it is written: nothing in a kata can write one of its own, or reach
the terminal of who reads."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from katafs.cli.common import LineFormatter

#: of syslog(3), which the journal knows by as well
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
LEVELS = ("debug", "info", "warning", "error")


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
            from katafs.cli.syslog import SysLog

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
