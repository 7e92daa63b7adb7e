"""A mount that no keeper keeps alive: one process serves it, and it ends with that process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from katafs.background import tell_supervisor
from katafs.fuse import fastopen
from katafs.mount import runtime, session
from katafs.mount.mounting import MountOptions, device_of
from katafs.mount.watcher import watch_over_us

log = logging.getLogger(__name__)


def serve(options: MountOptions, ready: Callable[[], None], fast: fastopen.FastOpen, reason: str) -> None:
    """Mount and serve until the end; ``reason`` is why there is no keeper. Raises `MountError`."""
    devices: list[str] = []

    def ready_and_tell() -> None:
        log.info("the mount will not outlive the daemon: %s", reason)
        # only root may write where that is said
        if os.geteuid() == 0 and (device := device_of(options.mountpoint)):
            devices.append(device)
            status = runtime.Status.of_us(options.mountpoint)
            status.daemon, status.is_kept, status.is_fast = status.pid, False, fast.is_active
            status.reason = fast.reason or reason
            runtime.publish(device, status)
        ready()
        tell_supervisor("READY=1")

    watcher = watch_over_us(options.mountpoint)
    try:
        session.serve(options, ready_and_tell, fast, watcher=watcher)
    finally:
        for device in devices:
            runtime.withdraw(device)
