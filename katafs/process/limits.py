"""What one piece of work may take."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one process may take: bytes of address space, of a file, seconds of processor time, seconds in all; and how
    far it stands back behind the daemon (nice(2))."""

    memory: int = 1 << 30
    file: int = 1 << 30
    processor_seconds: int = 30
    seconds: float = 60.0
    nice: int = 5

    def impose(self) -> None:
        """On the process that calls this. More of the file is EFBIG, more processor time SIGXCPU: SIGKILL would look
        like that of somebody else."""
        os.nice(self.nice)
        limit_memory(self.memory)
        # not a limit that the daemon itself has to be under, lowered
        for kind, value in (
            (resource.RLIMIT_FSIZE, self.file),
            (resource.RLIMIT_CPU, self.processor_seconds),
            (resource.RLIMIT_CORE, 0),
        ):
            _lower(kind, value)


def limit_memory(size: int) -> None:
    """Have this process take no more address space than so many bytes: more is a MemoryError."""
    _lower(resource.RLIMIT_AS, size)


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
    has_room = kind == resource.RLIMIT_CPU and lowest != hard
    resource.setrlimit(kind, (lowest, lowest + has_room))
