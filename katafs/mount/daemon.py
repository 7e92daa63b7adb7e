"""What a daemon does whose mount a keeper holds, from its fork to its exit status."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Callable

from katafs.fuse.fastopen import FastOpen
from katafs.mount import session
from katafs.mount.mounting import MountError, MountOptions

log = logging.getLogger(__name__)

#: exit statuses, beside 0: the mount is over
FAILED, HANDED_OVER, NOT_WRAPPED = 1, 75, 76
#: what a daemon that is ready tells its keeper, with SIGUSR2
READY = b"\n"


def be_daemon(
    options: MountOptions,
    fast: FastOpen,
    kept: session.Kept,
    keeper_signals: set[signal.Signals],
    tell: Callable[[bytes], None],
) -> int:
    """Serve until the end; the exit status. ``keeper_signals`` are blocked, and not for us."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, keeper_signals)

    def ready() -> None:
        tell(READY)
        # killed this moment: then we are the last
        with contextlib.suppress(ProcessLookupError):
            os.kill(kept.keeper, signal.SIGUSR2)

    try:
        return HANDED_OVER if session.serve(options, ready, fast, kept) else 0
    except session.NotWrappedError as error:
        tell(str(error).encode())
        return NOT_WRAPPED
    except MountError as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence for a person
        tell(str(error).encode("utf-8", "surrogateescape"))
    except Exception as error:
        log.exception("the daemon ends")
        tell(f"{options.mountpoint}: the daemon failed: {error!r}".encode("utf-8", "surrogateescape"))
    return FAILED
