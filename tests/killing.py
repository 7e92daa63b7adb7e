"""Dying at any step: a forked process calls something and ends, as by ``kill -9``, at the n-th change of the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

_STEPS = ("fsync", "rename", "unlink", "rmdir", "mkdir", "link")
_DIED = 42
_EACH = 12


def deaths(work: Callable[[], object], stride: int = 1) -> Iterator[int]:
    """Call ``work`` in processes of which each dies one step later, before that step; ends when one comes to its end.

    Yields the number of the step after each death. After the first steps only each of ``stride`` is tried.
    """
    step = 0
    while True:
        step += 1 if step < _EACH else stride
        child = os.fork()
        if not child:
            status = 1
            try:
                _die_at(step)
                work()
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return
        assert status == _DIED, f"step {step}: it failed"
        yield step


def _die_at(step: int) -> None:
    left = step

    def wrap(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal left
            left -= 1
            if not left:
                os._exit(_DIED)
            return real(*arguments, **named)

        return call

    for name in _STEPS:
        setattr(os, name, wrap(getattr(os, name)))
