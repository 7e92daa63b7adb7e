"""The process that keeps a mount alive: it holds the mount, starts the daemon, and starts it again when it dies.

It does nothing else, so that nothing in it can fail: no thread, no event loop, no git, no request is ever handled here;
it waits for signals, one after the other. All that the daemon imports is imported here, so that the next one is a fork
away (some milliseconds) and not the start of an interpreter. What passes from one daemon to the next is the descriptor
of the mount, the kernel's first request, and the memory of the `katafs.fuse.writing.journal`.

For an upgrade it executes itself again, with the new code, while the daemon goes on; then that one hands over.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from katafs.fuse import fastopen
from katafs.mount import resuming, runtime, session
from katafs.mount.child import NOBODY, Child, execute_katafs, tell_supervisor
from katafs.mount.device import Held, Kept, UnsuitableError, hold
from katafs.mount.first_look import FirstLook
from katafs.mount.mounting import MountError, MountOptions, detach, device_of
from katafs.mount.session import HANDED_OVER, NOT_WRAPPED, READY, be_daemon
from katafs.mount.watcher import watch_over_us

log = logging.getLogger(__name__)

_STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
# SIGUSR1: reload. SIGUSR2: the daemon is ready.
_SIGNALS = {*_STOP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2}
# how often to look whether a daemon is dead that cannot end, see `Child.is_dead`
_LOOK_SECONDS = 0.5
# what hands over in longer than this is ended: what it was doing is done again by the next
_HANDING_OVER_SECONDS = 2.0
# so many deaths within so many seconds, and it is given up: what kills the daemon will kill the next one too
GIVE_UP_DEATHS, GIVE_UP_SECONDS = 20, 6.0


def serve(options: MountOptions, ready: Callable[[], None], again: dict[str, Any]) -> None:
    """Mount and serve, and keep the mount alive where that is possible, until it is unmounted or a signal comes.

    ``again`` is what the command line needs after a reload. ``ready`` as in `session.serve`. Raises `MountError`.
    """
    fast = fastopen.load(wanted=options.fast_open)
    if not options.keep_alive:
        reason = "--no-keep-alive was given"
    elif fast.library is None:
        reason = f"that needs the fast mode: {fast.reason}"
    elif os.geteuid() != 0:
        reason = "that needs root"
    else:
        session.preload()
        # a signal that comes before we can act on it waits: the mount must not outlive us
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            _Keeper(options, fast, hold(options), again).run(ready)
            return
        except UnsuitableError as error:
            reason = str(error)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS - _STOP)
    _serve_alone(options, ready, fast, reason)


def _serve_alone(options: MountOptions, ready: Callable[[], None], fast: fastopen.FastOpen, reason: str) -> None:
    """Serve a mount that ends with this process; ``reason`` is why. Raises `MountError`."""
    devices: list[str] = []
    was_ready = False

    def ready_and_tell() -> None:
        nonlocal was_ready
        was_ready = True
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
    except BaseException:
        if not was_ready:
            os.kill(watcher, signal.SIGKILL)
            os.waitpid(watcher, 0)
        raise
    finally:
        for device in devices:
            runtime.withdraw(device)


def resume(state: dict[str, Any]) -> None:
    """Go on as the keeper that this process was before it executed itself. Raises `MountError`."""
    fast = fastopen.load()
    session.preload()
    held = Held(state["fd"], state["device"], bytes.fromhex(state["init"]))
    _Keeper(state["options"], fast, held, state["again"], state).run(None)


class _Keeper:
    def __init__(
        self,
        options: MountOptions,
        fast: fastopen.FastOpen,
        held: Held,
        again: dict[str, Any],
        state: dict[str, Any] | None = None,
    ) -> None:
        self._options, self._fast, self._held, self._again = options, fast, held, again
        self._journal = os.memfd_create("katafs-journal") if state is None else state["journal"]
        self._daemon = NOBODY if state is None else Child(state["daemon"])
        self._status = runtime.Status.of_us(options.mountpoint)
        if state is not None:
            for fd in (held.fd, self._journal):
                os.set_inheritable(fd, False)
            # an older katafs did not say since when
            was = {name: state["status"].get(name, 0) for name in ("daemon", "deaths", "reloads", "since")}
            self._status = replace(self._status, **was)
        # whose end is to be waited for, beside the daemon's; an older katafs did not say
        self._left = [] if state is None else [Child(pid) for pid in state.get("left", [])]
        self._first_look = FirstLook()
        self._ready: Callable[[], None] | None = None
        self._checker: Child | None = None
        self._deaths: deque[float] = deque(maxlen=GIVE_UP_DEATHS)
        self._was_ready = state is not None
        self._is_stopping = False
        # from the order to the old daemon until the new one is ready
        self._is_reloading = False
        # when the daemon that was told to hand over is ended, in monotonic seconds; 0: none was
        self._end_at = 0.0

    def run(self, ready: Callable[[], None] | None) -> None:
        """Until the mount is over. ``ready`` is None when it was called by what we were before a reload."""
        self._ready = ready
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        stop = {number for number in _STOP if signal.getsignal(number) is not signal.SIG_IGN}
        waited_for = _SIGNALS - _STOP | stop
        signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
        # what is shared with the daemons is not to be copied because their collectors look at it
        gc.freeze()
        try:
            if self._daemon is NOBODY:
                self._start()
            else:
                # the new code is here: now the daemon of the old one is to end
                self._is_reloading = True
                self._end_at = time.monotonic() + _HANDING_OVER_SECONDS
                self._daemon.send(signal.SIGUSR1)
            while self._daemon is not NOBODY:
                got = signal.sigtimedwait(waited_for, _LOOK_SECONDS)
                number = got.si_signo if got is not None else 0
                if number == signal.SIGUSR2 and self._daemon.heard().startswith(READY.encode()):
                    self._note_ready()
                elif number in stop:
                    self._stop(number)
                elif number == signal.SIGUSR1:
                    self._check_new_code()
                self._look()
        finally:
            self._unmount()

    # -- daemons

    def _start(self) -> None:
        kept = Kept(self._held, self._journal, os.getpid(), is_first=not self._was_ready)
        self._daemon = Child.fork(partial(be_daemon, self._options, self._fast, kept, {signal.SIGCHLD, signal.SIGUSR2}))
        self._status.daemon = self._daemon.pid
        if kept.is_first:
            self._first_look.begin(self._options.mountpoint)
            self._left.append(self._first_look.child)

    def _note_ready(self) -> None:
        if self._is_reloading:
            self._is_reloading = False
            self._reloaded("")
        elif self._ready is None:
            self._publish()
        self._was_ready = True

    def _say_ready(self) -> None:
        """Say that the mount is ready, when the daemon is, and nobody of us has a file open in it: who unmounts it now
        is not told that it is busy."""
        if self._ready is None or not self._was_ready or not self._first_look.is_over():
            return
        ready, self._ready = self._ready, None
        self._publish()
        try:
            ready()
        except BrokenPipeError:
            log.error("%s: whoever asked for the mount has gone", self._options.mountpoint)  # noqa: TRY400
            self._stop(signal.SIGTERM)
        tell_supervisor("READY=1")

    def _look(self) -> None:
        self._left = [child for child in self._left if not child.has_ended()]
        self._say_ready()
        if self._checker is not None and self._checker.has_ended():
            checker, self._checker = self._checker, None
            if checker.status == 0:
                self._execute()
            else:
                self._reloaded(checker.heard().decode("utf-8", "replace").strip() or checker.cause)
        if 0 < self._end_at < time.monotonic():
            self._end_at = math.inf
            self._daemon.send(signal.SIGKILL)
        if (has_ended := self._daemon.has_ended()) or self._daemon.is_dead(self._held.fd):
            self._left += [] if has_ended else [self._daemon]
            self._ended(self._daemon)

    def _ended(self, daemon: Child) -> None:
        """The daemon has ended: is there to be another?"""
        self._daemon = NOBODY
        is_over, self._end_at = self._end_at > 0, 0.0
        if daemon.status == 0 or self._is_stopping:
            return
        if not self._was_ready:
            said = daemon.heard().decode("utf-8", "surrogateescape")
            if daemon.status == NOT_WRAPPED:
                raise UnsuitableError(said)
            raise MountError(said or f"the daemon ended before it was ready ({daemon.cause})")
        if not is_over and daemon.status != HANDED_OVER:
            log.warning("the daemon has died (%s); another takes over", daemon.cause)
            self._status.deaths += 1
            self._deaths.append(time.monotonic())
            if len(self._deaths) == GIVE_UP_DEATHS and self._deaths[-1] - self._deaths[0] < GIVE_UP_SECONDS:
                raise MountError(
                    f"{self._options.mountpoint}: given up and unmounted, since the daemon has died "
                    f"{GIVE_UP_DEATHS} times within {GIVE_UP_SECONDS:.0f} seconds; the last time: {daemon.cause}"
                )
        self._start()

    # -- the end

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        tell_supervisor("STOPPING=1")
        self._daemon.send(signal.Signals(number))

    def _unmount(self) -> None:
        self._daemon.send(signal.SIGKILL)
        detach(self._options.mountpoint, self._held.device)
        # whoever still waits for an answer gets one: with the last copy of the descriptor the connection ends
        os.close(self._held.fd)
        if not self._was_ready:
            # when it is told that there is no mount, nothing is left of us
            self._first_look.child.end()
        if self._held.device:
            runtime.withdraw(self._held.device)
        if self._was_ready:
            log.info("%s is unmounted", self._options.mountpoint)

    # -- new code

    def _check_new_code(self) -> None:
        """Have the new code looked at before it is relied upon."""
        if self._checker is None and not self._is_reloading and not self._is_stopping:
            state = self._state()
            self._checker = Child.katafs("resume", "--check", str(state))
            os.close(state)

    def _state(self) -> int:
        """A memfd with all that we must know after we have executed ourselves."""
        return resuming.write_state(
            self._options,
            fd=self._held.fd,
            device=self._held.device,
            init=self._held.init.hex(),
            journal=self._journal,
            daemon=self._daemon.pid,
            left=[child.pid for child in self._left],
            status=asdict(self._status),
            again=self._again,
        )

    def _execute(self) -> None:
        state = self._state()
        log.info("reloading")
        for fd in (self._held.fd, self._journal):
            os.set_inheritable(fd, True)
        try:
            execute_katafs("resume", str(state))
        except OSError as error:
            os.close(state)
            self._reloaded(f"{sys.executable}: {error.strerror}")

    def _reloaded(self, failure: str) -> None:
        if failure:
            log.error("reloading has failed, katafs goes on as it is: %s", failure)
        self._status.reloads += 1
        self._status.failure = failure
        self._publish()

    def _publish(self) -> None:
        if self._held.device:
            runtime.publish(self._held.device, self._status)
