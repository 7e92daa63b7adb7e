"""How long the event loop is held at a time: what nobody else is answered meanwhile."""

from __future__ import annotations

from time import perf_counter

import trio

from katafs.tree.counters import Counters


class Steps(trio.abc.Instrument):
    """Tells of each step of a task, which may answer several requests one after the other."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._began = perf_counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._counters.held(perf_counter() - self._began)
