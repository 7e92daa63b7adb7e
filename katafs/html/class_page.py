"""The page of a class: a strip of lights a kata, all on one time axis or by step."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from jinja2 import Template

from katafs.errors import KataError
from katafs.git.beneath import read_part
from katafs.html.class_axis import PLACES, Axis
from katafs.html.pages import asset, environment, words
from katafs.kata.groups import Group, Member, group_steps
from katafs.kata.model.steps import LIGHTS, Step
from katafs.text import span

_MANIFEST = 4 << 20  # bytes of a group's manifest
# lights of one kata that are shown: the newest
_LIGHTS = 300
# lights of one kata that overlap in time, so that they are drawn narrower
_MANY = 40
# of those whose last light that was not red is longest ago
_NAMED = 5


@dataclass
class Strip:
    """A kata: its events that have a light, as far as they are shown; why there are none."""

    member: Member
    lights: Sequence[Step] = ()
    left_out: int = 0
    trouble: str = ""
    #: when its last light was that was not red; where none was, when it began
    not_red: datetime | None = None
    is_never_not_red: bool = False
    #: of the time of the newest light
    form: str = "%H:%M"
    #: the places of the lights on the time axis
    places: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.member.index:02}"

    @property
    def link(self) -> str:
        return f"{self.name}-{self.member.kata_id}"

    @property
    def now(self) -> str:
        """The light that it shows now."""
        return self.lights[-1].light if self.lights else ""


def make(group: Group, directory: Path) -> bytes:
    """``index.html`` of the group in a directory. The same katas give the same bytes."""
    strips = _strips(group)
    axis = Axis(step.time for strip in strips for step in strip.lights if step.time is not None)
    for strip in strips:
        newest = strip.lights[-1].time if strip.lights else None
        if newest is not None and axis.last is not None and newest.date() != axis.last.date():
            strip.form = "%m-%d"
        last = 0
        for step in strip.lights:
            last = axis.place(step.time) if step.time is not None else last
            strip.places.append(last)
    ranked = sorted((strip for strip in strips if strip.not_red is not None), key=attrgetter("not_red"))
    now = Counter(strip.now for strip in strips)
    shown = template().render(
        group_id=group.group_id,
        **words(_manifest(directory)),
        strips=strips,
        axis=axis,
        is_dense=any(len(strip.lights) > _MANY for strip in strips),
        waited=lambda time: span(_whole_minutes(axis.last, time)),
        waiting=ranked[:_NAMED] if len(ranked) > 1 else [],
        green=[strip for strip in strips if strip.now == "green"],
        counts=[(light, now[light]) for light in LIGHTS if now[light]],
    )
    return shown.encode()


def _whole_minutes(last: datetime | None, time: datetime) -> float:
    """How many seconds passed, without those of the last minute."""
    seconds = (last - time).total_seconds() if last is not None else 0.0
    return seconds // 60 * 60 if seconds >= 60 else seconds


def _strips(group: Group) -> list[Strip]:
    found = {member: Strip(member, trouble="closed to others") for member in group.members}
    for member, steps in group_steps(group):
        found[member] = _strip(member, steps)
    return list(found.values())


def _strip(member: Member, steps: Sequence[Step] | KataError) -> Strip:
    if isinstance(steps, KataError):
        return Strip(member, trouble="its events cannot be read")
    lights = [step for step in steps if step.light]
    times = [step.time for step in lights if step.light != "red" and step.time]
    began = [step.time for step in steps if step.time] if lights else []
    return Strip(
        member,
        lights[-_LIGHTS:],
        max(len(lights) - _LIGHTS, 0),
        not_red=times[-1] if times else began[0] if began else None,
        is_never_not_red=not times,
    )


def _manifest(directory: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(read_part(f"{directory}/manifest.json", _MANIFEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


@cache
def template() -> Template:
    # a position in an attribute would not be allowed by the policy
    places = "".join(f".t{place}{{left:{100 * place / PLACES:g}%}}" for place in range(PLACES + 1))
    found = environment(asset("style.css") + asset("class.css") + places)
    found.globals["css"] = lambda light: light if light in LIGHTS else "event"
    return found.get_template("class.html")
