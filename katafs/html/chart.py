"""The lights in time, as the numbers of a drawing: lines of a fixed width, one below the other, as in a text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from math import ceil
from statistics import median
from typing import NamedTuple

from katafs.kata.model.steps import Step

WIDTH = 1200
_LEFT, _RIGHT = 70, 30
_LANES = {"green": 0, "amber": 1, "red": 2}
_LANE, _TOP, _BOTTOM = 25, 26, 44  # heights: of a lane; above the first, and below the last, where times stand
LINE_HEIGHT = _TOP + 3 * _LANE + _BOTTOM
_USUAL, _WIDEST = 26, 90  # widths: of the usual pause, of any
_LONGEST_PAUSE = 8  # times the usual one: a longer one is drawn as a break
_NEAR, _NEAREST = 22, 14  # between two lights, and where one of two events has none
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
# what is between two ticks, in seconds
_TICKS = [*(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)), *(n * _HOUR for n in (1, 2, 3, 6, 12)), _DAY, 7 * _DAY]
_TICK_WIDTH, _MOST_TICKS = 90, 200  # between two events
_LETTER = 7  # width


class Dot(NamedTuple):
    """A light, where it stands."""

    step: Step
    x: float
    y: float


class Break(NamedTuple):
    """A long pause, where it is drawn, and the seconds it took."""

    x: float
    seconds: float


class Tick(NamedTuple):
    """A time, where it stands; a date with it where that is another one than before."""

    x: float
    text: str


@dataclass
class Line:
    """A line of the drawing, from ``top`` on: lanes for green, amber and red, and one below for what has no light."""

    top: int
    dots: list[Dot] = field(default_factory=list)
    breaks: list[Break] = field(default_factory=list)
    ticks: list[Tick] = field(default_factory=list)

    @property
    def lanes(self) -> list[tuple[str, int]]:
        return [(name, self._y(lane)) for name, lane in _LANES.items()]

    @property
    def path(self) -> str:
        """From light to light."""
        return " ".join(f"{dot.x:g},{dot.y:g}" for dot in self.dots if dot.step.light in _LANES)

    @property
    def bottom(self) -> int:
        return self.top + LINE_HEIGHT - 14

    def add(self, step: Step, x: float) -> None:
        self.dots.append(Dot(step, round(x, 1), self._y(_LANES.get(step.light, 3))))

    def _y(self, lane: int) -> int:
        return self.top + _TOP + _LANE * lane


class Chart:
    """The time goes to the right, in long histories over several lines. Times are UTC."""

    def __init__(self, steps: Sequence[Step]) -> None:
        timed = [(step, step.time) for step in steps if step.time is not None]
        pauses = [max((after - before).total_seconds(), 0.0) for (_, before), (_, after) in pairwise(timed)]
        usual = max(median(pauses), 1.0) if pauses else 1.0
        widths = [
            _width(pause / usual, before, after)
            for pause, ((before, _), (after, _)) in zip(pauses, pairwise(timed), strict=True)
        ]
        inner, length = WIDTH - _LEFT - _RIGHT, sum(widths) or 1.0
        # so that the last line is filled, too
        scale = inner * ceil(length / inner) / length
        self.lines = [Line(0)]
        self._every = _TICKS[min(bisect_left(_TICKS, usual / _USUAL / scale * _TICK_WIDTH), len(_TICKS) - 1)]
        self._free, self._date = 0.0, ""
        x, last = float(_LEFT), None
        for (step, time), pause, width in zip(timed, [0.0, *pauses], [0.0, *widths], strict=False):
            before, x = x, x + width * scale
            if x > WIDTH - _RIGHT + 1:
                self.lines.append(Line(self.lines[-1].top + LINE_HEIGHT))
                x, last = float(_LEFT), None
            line = self.lines[-1]
            if last is None:
                self._free = 0.0
                self._tick(line, x, time)
            elif pause > usual * _LONGEST_PAUSE:
                line.breaks.append(Break(round((before + x) / 2, 1), pause))
                self._tick(line, x, time)
            else:
                self._ticks(line, (before, last), (x, time))
            line.add(step, x)
            last = time
        self.dots = [dot for line in self.lines for dot in line.dots]
        self.height = len(self.lines) * LINE_HEIGHT

    def _ticks(self, line: Line, start: tuple[float, datetime], end: tuple[float, datetime]) -> None:
        """The round times between two events."""
        (x, first), (end_x, last) = start, end
        seconds = (last - first).total_seconds()
        at = first.timestamp() // self._every * self._every + self._every
        # two times may lie thousands of years apart
        while at <= last.timestamp() and 0 < seconds < _MOST_TICKS * self._every:
            place = x + (end_x - x) * (at - first.timestamp()) / seconds
            self._tick(line, place, datetime.fromtimestamp(at, UTC))
            at += self._every

    def _tick(self, line: Line, x: float, time: datetime) -> None:
        date = f"{time:%Y-%m-%d}"
        text = f"{time:%H:%M}" if date == self._date else f"{date} {time:%H:%M}"
        if self._free <= x <= WIDTH - _LETTER * (len(text) + 1):
            line.ticks.append(Tick(round(x, 1), text))
            self._free, self._date = x + _LETTER * (len(text) + 2), date


def _width(pause: float, before: Step, after: Step) -> float:
    """What a pause takes, which is given in usual ones. Numbers in lights can be read, so they never touch."""
    nearest = _NEAR if before.light and after.light else _NEAREST
    return max(min(pause * _USUAL, _WIDEST), nearest)
