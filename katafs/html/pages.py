"""The pages: what is known of a kata, handed to the templates. The same events give the same bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from katafs.errors import DamagedError, NotFoundError
from katafs.html.chart import WIDTH, Chart
from katafs.html.code import load_languages
from katafs.html.file_blocks import shown_files
from katafs.kata.model.kinds import BY_TYPE, Kind
from katafs.kata.model.steps import LIGHTS, Step
from katafs.kata.reader import Past
from katafs.kata.views.changes import changed_names, file_changes
from katafs.text import span, visible, without_colours

_MAX_OUTPUT = 128 << 10  # bytes of an output that are shown
_OPEN_LINES = 60  # an output of more lines is folded
# How many lights stand on each side of the own one on the page of a step
_AROUND = 5
_OTHERS = 500  # how many events before it a step can be compared with from its page
_LOOKED_UP = 5_000  # the newest events whose files are in the list: at 10,000 it takes longer than a page may
_NAMED, _CUT = 12, 4  # how many files, and files that were cut short, an event has in the list
_LONGEST_NAME = 200  # characters

_SIGNS = {"red": "✗", "amber": "!", "green": "✓", "timed_out": "…", "faulty": "?", "pulling": "↓"}
# the sign of an outage is as high as the others
_EVENT_SIGNS = {"created": "★", "outage": "\u00a0", **{name: kind.facts.sign for name, kind in BY_TYPE.items()}}


@dataclass
class Event:
    """A row in the list of all events."""

    step: Step
    gap: str  # the time since the event before, in words
    cut: str = ""  # the names of what the runner cut short
    #: what became of files, and their names; empty where the headline says it
    names: list[tuple[str, str]] = field(default_factory=list)
    more: str = ""  # how many have no room there
    headline: str = field(init=False)

    def __post_init__(self) -> None:
        self.headline = self.step.headline

    def look_up(self, past: Past) -> None:
        """Find what is not in the row."""
        index = self.step.index
        try:
            was, now = (past.snapshot(at).files_tree for at in (index - 1, index))
            names = changed_names(past.repo, was, now)
        except (DamagedError, NotFoundError):
            return
        cut = past.cut(index)
        self.cut = visible(", ".join(name[:_LONGEST_NAME] for name in cut[:_CUT]) + ", …" * (len(cut) > _CUT), kept="")
        if names is None:
            self.more = "many files"
        elif len(names) != 1 or not self.step.file_names:
            self.names = names[:_NAMED]
            self.more = f"and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            if self.step.type == Kind.FILE_EDIT.type and names:
                # the row names one
                self.headline = f"edited {len(names)} files"


@cache
def _templates() -> Environment:
    return environment(asset("style.css"), asset("page.js"))


def prepare() -> Iterator[None]:
    """Load what most pages need, in small steps: first what a page of a step in the usual language does."""
    languages = load_languages()
    _templates().get_template("step.html")
    next(languages)
    yield
    _templates().get_template("index.html")
    yield from languages


def index(past: Past, end: int, *, highlight: bool) -> bytes:
    """``index.html``: the history up to an event; without what takes long, the files of each event, if not
    ``highlight``. Raises `DamagedError`."""
    steps = past.counted_steps(end)
    events = [Event(step, gap) for step, gap in zip(steps, _gaps(steps), strict=True)]
    if highlight:
        for event in events[1:][-_LOOKED_UP:]:
            event.look_up(past)
    return _page("index.html", past, events=events, steps=steps, chart=Chart(steps), width=WIDTH, totals=_totals(steps))


def step(past: Past, was: int, now: int, end: int, *, highlight: bool) -> bytes:
    """``W..N.html``. Raises `DamagedError`, `NotFoundError`."""
    changes = file_changes(past.repo, past.snapshot(was).files_tree, past.snapshot(now).files_tree)
    cut = frozenset(past.cut(now))
    files, left_out = shown_files(changes, cut, highlight=highlight)
    steps = past.steps
    is_step = now == was + 1 or was == now == 0

    def to(step: Step) -> str:
        """The page of another event; from a comparison, with the same event again."""
        return page_of(step) if is_step else f"{step.index if was == now else was}..{step.index}.html"

    return _page(
        "step.html",
        past,
        was=steps[was],
        step=steps[now],
        is_step=is_step,
        to=to,
        around=steps[max(now - _AROUND, 0) : min(now + _AROUND, max(end, now)) + 1],
        earlier=steps[now - 1] if now else None,
        later=steps[now + 1] if now < end else None,
        bases=_bases(steps, now),
        others=steps[max(now - _OTHERS, 0) : now],
        files=[file for file in files if file.kind != "unchanged" and not file.is_only_renamed],
        folded=[file for file in files if file.kind == "unchanged" or file.is_only_renamed],
        left_out=left_out,
        outputs=_outputs(past, now, cut),
        status=visible(past.output(now, b"status", 20)[0].strip(), kept=""),
    )


def _page(template: str, past: Past, **values: Any) -> bytes:
    found = _templates().get_template(template)
    return found.render(kata_id=past.kata_id, **words(past.manifest()), **values).encode()


def environment(style: str, script: str = "") -> Environment:
    """The templates, with what they call; the content security policy of a page allows this style and script alone."""
    found = Environment(
        loader=PackageLoader("katafs.html", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    policy = f"default-src 'none'; style-src '{_hash(style)}'"
    policy += f"; script-src '{_hash(script)}'" if script else ""
    found.globals.update(
        style=Markup(style),  # noqa: S704 - ours
        script=Markup(script),  # noqa: S704 - ours
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        **{function.__name__: function for function in (page_of, label, sign, marks, clock, span)},
    )
    return found


def words(manifest: dict[str, Any]) -> dict[str, str]:
    """What is worked on, for the templates; empty where nobody can tell."""
    found = {key: manifest.get(key) for key in ("exercise", "display_name")}
    return {key: visible(word[:_LONGEST_NAME], kept="") if isinstance(word, str) else "" for key, word in found.items()}


def asset(name: str) -> str:
    return resources.files("katafs.html").joinpath("templates", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The source of a content security policy that allows this very text inline."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _outputs(past: Past, index: int, cut: Set[str]) -> list[dict[str, Any]]:
    outputs = []
    for name in ("stdout", "stderr"):
        text, size = past.output(index, name.encode(), _MAX_OUTPUT)
        text = visible(without_colours(text))
        more = size - _MAX_OUTPUT
        shown = {"name": name, "text": text, "more": max(more, 0), "is_cut": name in cut}
        outputs.append({**shown, "is_open": text.count("\n") <= _OPEN_LINES})
    return outputs


def _bases(steps: Sequence[Step], now: int) -> dict[int, str]:
    """The events that an event is compared with most, and what they are called."""
    if not now:
        return {}
    lights = [step for step in steps[:now] if step.light]
    greens = [step for step in lights if step.light == "green"]
    found = {now - 1: f"event {now - 1}"}
    for name, some in (("last light", lights), ("last green", greens)):
        if some:
            found.setdefault(some[-1].index, f"{name}, {some[-1].index}")
    found.setdefault(0, "the start")
    return found | {now: "all files"}


def _gaps(steps: Sequence[Step]) -> list[str]:
    """For each step the time since the one before, in words."""
    gaps, last = [], None
    for step in steps:
        gaps.append(span((step.time - last).total_seconds()) if step.time and last else "")
        last = step.time or last
    return gaps


def _totals(steps: Sequence[Step]) -> dict[str, Any]:
    times = [step.time for step in steps if step.time]
    guesses = [step.is_right for step in steps if step.is_right is not None]
    return {
        "lights": [(light, count) for light in LIGHTS if (count := sum(step.light == light for step in steps))],
        "all": len(steps),
        "others": sum(step.light in LIGHTS[3:] for step in steps),
        "quiet": sum(step.light not in LIGHTS for step in steps),
        "began": times[0] if times else None,
        "span": span((max(times) - min(times)).total_seconds()) if len(times) > 1 else "",
        "guesses": len(guesses),
        "right": sum(guesses),
    }


# -- for the templates


def page_of(step: Step) -> str:
    return f"{max(step.index - 1, 0)}..{step.index}.html"


def label(step: Step) -> str:
    """What a light is called: it has to tell as much as its colour."""
    light = f", {step.light.replace('_', ' ')}" if step.light else ""
    guess = f", predicted {step.prediction}" if step.prediction else ""
    return f"Event {step.index}: {step.headline}{light}{guess}"


def sign(step: Step) -> str:
    """The sign in a light, for those who do not see its colour."""
    return _SIGNS.get(step.light) or _EVENT_SIGNS.get(step.type, "•")


def marks(step: Step) -> str:
    """What there is to know of a light, as CSS classes."""
    light = step.light if step.light in LIGHTS else "outage" if step.type == "outage" else "event"
    guess = {None: "", True: " right", False: " wrong"}[step.is_right]
    return f"{light}{guess}"


def clock(moment: datetime | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    return moment.strftime(form) if moment else ""
