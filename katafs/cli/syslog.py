"""The log of a daemon in the background: syslog's, where there is one."""

from __future__ import annotations

import logging
import time
from logging.handlers import SysLogHandler

# seconds; to find out that nobody listens takes as long as some requests
_PAUSE = 5.0


class SysLog(SysLogHandler):
    """Sends to the socket at ``address``. While nobody listens there, messages are lost, without a word: the standard
    handler would write a traceback for each of them, which took a tenth of the time of a commit."""

    def __init__(self, address: str = "/dev/log", pause: float = _PAUSE) -> None:
        super().__init__(address, self.LOG_DAEMON)
        self._pause, self._silent_until = pause, 0.0
        self.setFormatter(logging.Formatter("katafs[%(process)d]: %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if time.monotonic() >= self._silent_until:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - as the library has it
        self._silent_until = time.monotonic() + self._pause
