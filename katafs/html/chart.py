"""The lights in time, as the numbers of a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median

from katafs.kata.model.steps import Step

_LANES = {"green": 0, "amber": 1, "red": 2}
_LANE_HEIGHT, _TOP, _LEFT, _RIGHT, _BOTTOM = 34, 26, 76, 28, 14
_LONGEST_PAUSE = 8  # times the usual one: a longer one is drawn as a break
_EACH, _LEAST = 26, 1000  # width in pixels: for an event, at least


@dataclass(frozen=True)
class Dot:
    """A light, where it stands."""

    step: Step
    x: float
    y: float


@dataclass(frozen=True)
class Break:
    """A long pause, where it is drawn, and the seconds it took."""

    x: float
    seconds: float


class Chart:
    """Lanes for green, amber and red, and one below for what has no light; the time goes to the right."""

    def __init__(self, steps: Sequence[Step]) -> None:
        timed = [(step, step.time) for step in steps if step.time is not None]
        places, pauses = _places([time for _, time in timed])
        self.width = max(_LEAST, _EACH * len(timed) + _LEFT + _RIGHT)
        #: whether it may be made as wide as the page
        self.is_short = self.width == _LEAST
        self.height = _TOP + 4 * _LANE_HEIGHT + _BOTTOM
        scale = (self.width - _LEFT - _RIGHT) / (places[-1] or 1) if places else 1
        self.dots = [Dot(step, _x(place, scale), _y(step)) for (step, _), place in zip(timed, places, strict=True)]
        self.breaks = [Break(_x(place, scale), seconds) for place, seconds in pauses]
        self.lanes = [(name, _TOP + lane * _LANE_HEIGHT) for name, lane in _LANES.items()]
        self.path = " ".join(f"{dot.x:g},{dot.y:g}" for dot in self.dots if dot.step.light in _LANES)
        self.times = [timed[0][1], timed[-1][1]] if len(timed) > 1 else []


def _x(place: float, scale: float) -> float:
    return round(_LEFT + place * scale, 1)


def _y(step: Step) -> float:
    return _TOP + _LANE_HEIGHT * _LANES.get(step.light, 3)


def _places(times: Sequence[datetime]) -> tuple[list[float], list[tuple[float, float]]]:
    """Where each time stands, and the breaks. Two events are never nearer than a third of the usual pause."""
    pauses = [max((after - before).total_seconds(), 0.0) for before, after in pairwise(times)]
    usual = median(pauses) if pauses else 1.0
    usual = max(usual, 1.0)
    places, breaks = [0.0] if times else [], []
    for pause in pauses:
        shown = min(max(pause, usual / 3), usual * _LONGEST_PAUSE / 2)
        if pause > usual * _LONGEST_PAUSE:
            breaks.append((places[-1] + shown / 2, pause))
        places.append(places[-1] + shown)
    return places, breaks
