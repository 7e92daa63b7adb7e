"""How a line of the log is written: nothing in a kata can write one of its own, or reach the terminal of who reads."""

from __future__ import annotations

import logging
from typing import Any

from katafs.text import visible

#: of syslog(3), which the journal knows by as well
PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


class LineFormatter(logging.Formatter):
    """One line a message, whatever names and texts of a kata are in it; those of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - as the library has it
        return visible(super().formatMessage(record), kept="\t")

    def formatException(self, ei: Any) -> str:  # noqa: N802 - as the library has it
        return visible(super().formatException(ei)).replace("\n", "\n  ")


class JournalFormatter(LineFormatter):
    """Each line with its priority, such as ``<3>`` (sd-daemon(3)); the journal has the time and the process itself."""

    def format(self, record: logging.LogRecord) -> str:
        mark = f"<{PRIORITIES.get(record.levelno, 5)}>"
        # to the journal each line is a message of its own
        return mark + super().format(record).replace("\n", f"\n{mark}")
