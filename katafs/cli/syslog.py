"""The log of a daemon in the background: syslog's, where there is one."""

from __future__ import annotations

import logging
import time
from logging.handlers import SysLogHandler

from katafs.cli.common import LineFormatter

# seconds; to find out that nobody listens takes as long as some requests
_PAUSE = 5.0
# seconds; one that lives takes what is sent sooner, though its queue is short (net.unix.max_dgram_qlen)
_PATIENCE = 0.02


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
