"""One time axis for many katas: when somebody worked is shown to scale, longer pauses of all of them are cut short."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

#: places on the axis: from 0 to so many
PLACES = 200
_PAUSE = 30 * 60  # seconds in which nobody did anything; from there on it is a pause
_PAUSE_WIDTH = 0.04  # of all the time that is shown
_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440, 2880, 10080, 43200)
_MOST_TICKS = 8
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEAR = 20  # places between two ticks, at least


class Tick(NamedTuple):
    """A line across, and the time there. A minor one can be done without where there is little room."""

    place: int
    time: datetime
    is_new_day: bool
    is_minor: bool
    is_after_pause: bool

    @property
    def is_late(self) -> bool:
        """Whether there is no room behind it."""
        return self.place > PLACES - _NEAR // 2


class Axis:
    """The times from the first to the last; without any it has no ticks."""

    def __init__(self, times: Iterable[datetime]) -> None:
        moments = sorted(times)
        self.first = moments[0] if moments else None
        self.last = moments[-1] if moments else None
        seconds = sorted({_seconds(time) for time in moments})
        gaps = [(before, after) for before, after in pairwise(seconds) if after - before > _PAUSE]
        # where each stretch of work begins and ends, and what is shown before it
        starts = [*seconds[:1], *(after for _, after in gaps)]
        ends = [*(before for before, _ in gaps), *seconds[-1:]]
        self._work = sum(end - start for start, end in zip(starts, ends, strict=True))
        pause = max(self._work * _PAUSE_WIDTH, 1.0)
        self._starts, self._offsets = starts, [0.0] * len(starts)
        for at in range(1, len(starts)):
            self._offsets[at] = self._offsets[at - 1] + ends[at - 1] - starts[at - 1] + pause
        self._whole = self._offsets[-1] + ends[-1] - starts[-1] if starts else 0.0
        self.ticks = self._ticks(ends)

    def place(self, time: datetime) -> int:
        """Where a time stands that is one of the axis', or between two of one stretch."""
        return self._place(_seconds(time))

    def _place(self, seconds: int) -> int:
        at = bisect_right(self._starts, seconds) - 1
        return round(PLACES * (self._offsets[at] + seconds - self._starts[at]) / (self._whole or 1.0))

    def _ticks(self, ends: list[int]) -> list[Tick]:
        """The beginning of each stretch, and round times in it, as far as there is room for them."""
        step = next((60 * one for one in _MINUTES if self._work / (60 * one) <= _MOST_TICKS), 60 * _MINUTES[-1])
        ticks: list[Tick] = []
        for at, (start, end) in enumerate(zip(self._starts, ends, strict=True)):
            for seconds in (start, *range((start // step + 1) * step, end + 1, step)):
                place, is_after_pause = self._place(seconds), bool(at) and seconds == start
                is_near = bool(ticks) and place - ticks[-1].place < _NEAR
                if is_near and is_after_pause and len(ticks) > 1 and not ticks[-1].is_after_pause:
                    # where work goes on is told rather than a round time
                    ticks.pop()
                    is_near = False
                if not is_near:
                    time = datetime.fromtimestamp(seconds, UTC)
                    is_new_day = not ticks or time.date() != ticks[-1].time.date()
                    major = max((tick.place for tick in ticks if not tick.is_minor), default=0)
                    is_minor = not is_new_day and place - major < 2 * _NEAR
                    ticks.append(Tick(place, time, is_new_day, is_minor, is_after_pause))
        return ticks


def _seconds(time: datetime) -> int:
    """Whole seconds since 1970: a float would round the last moment of the year 9999 up."""
    return (time - _EPOCH) // timedelta(seconds=1)
