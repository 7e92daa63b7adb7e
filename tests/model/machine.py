"""A kata in both layouts under any sequence of events, options, foreign commits and ``git gc``, beside its model."""

from __future__ import annotations

import copy
import errno
import shutil
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from katafs.errors import KataError
from katafs.kata.model.ids import kata_path
from katafs.kata.model.kinds import Kind
from katafs.kata.record.commit import record, set_option
from katafs.kata.record.message import parse_act
from tests.katas import START, git, make_kata
from tests.model.algebra import Files, Json, Model, RefusedError
from tests.model.stored import Stored, assert_clean, commit_as_another, new_saver_kata
from tests.model.strategies import CONTENT, FLAWS, LAPTOPS, RECIPES, Recipe, encoded
from tests.scratch import fast_directory

FIRST_FILES = {"hiker.py": "def answer():\n    return 6 * 9\n", "cyber-dojo.sh": "pytest\n", "a/b": "one\ntwo\n"}
MANIFEST = b'{\n  "display_name": "Python, pytest",\n  "version": 2,\n  "id": "AbCdEf"\n}'
VALUES = ("light", "dark", "on", "off", "ON", "maybe")
STEPS = st.sampled_from((0, 1, 1, 60, 3600, 86_400, -7))


def new_model(kata_id: str, layout: str, fixed: dict[str, bytes]) -> Model:
    """The model of a kata that is about to be created."""
    content = {name: text.encode() for name, text in FIRST_FILES.items()}
    return Model(kata_id, layout, fixed, Files(content, dict.fromkeys(content, False)))


class KataMachine(RuleBasedStateMachine):
    """Every step is one call, whose answer and whose traces in the repository are those of the model."""

    #: how many steps all runs have taken
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.store, self.kata_id = self.place()
        self.path = kata_path(self.store, self.kata_id)
        self.now = START
        self.last: tuple[str, Json] | None = None

    def place(self) -> tuple[Path, str]:
        """A store, and the id of a kata that is not in it."""
        return Path(tempfile.mkdtemp(prefix="katafs-model-", dir=fast_directory())), "AbCdEf"

    def teardown(self) -> None:
        try:
            if hasattr(self, "stored"):
                assert_clean(self.path)
        finally:
            self.remove()

    def remove(self) -> None:
        shutil.rmtree(self.store)

    @initialize(layout=st.sampled_from(("native", "saver")))
    def create(self, layout: str) -> None:
        if layout == "native":
            make_kata(self.store, self.kata_id, FIRST_FILES)
            self.model = new_model(
                self.kata_id, layout, {"manifest.json": git(self.path, "show", "main:manifest.json")}
            )
            self.model.create(START)
        else:
            self.model = new_model(self.kata_id, layout, {"manifest.json": MANIFEST, "README.md": b"README"})
            new_saver_kata(self.path, self.model, START)
        self.stored = Stored(self.path, self.kata_id)
        self.stored.compare(self.model)

    # -- steps

    @rule(recipe=RECIPES, pause=STEPS, ascii_only=st.booleans())
    def event(self, recipe: Recipe, pause: int, ascii_only: bool) -> None:
        message = recipe.message(self.model.files, len(self.model.rows))
        self._send(recipe.kind, message, pause, ascii_only=ascii_only)

    @rule(recipe=RECIPES, laptop=st.sampled_from(LAPTOPS), tab_seq=st.integers(100, 10**9), pause=STEPS)
    def event_and_repetition(self, recipe: Recipe, laptop: str, tab_seq: int, pause: int) -> None:
        """A client that did not hear the answer sends its message again."""
        who = {"laptop_id": laptop, "tab_seq": tab_seq}
        message = recipe._replace(who=who).message(self.model.files, len(self.model.rows))
        self._send(recipe.kind, message, pause)
        self._send(recipe.kind, message, pause)

    @rule(pause=STEPS)
    def repetition(self, pause: int) -> None:
        """The message before the others is delivered once more."""
        if self.last is not None:
            self._send(*self.last, pause)

    @rule(recipe=RECIPES, flaw=st.sampled_from(sorted(FLAWS)))
    def malformed(self, recipe: Recipe, flaw: str) -> None:
        message = recipe.message(self.model.files, len(self.model.rows))
        FLAWS[flaw](message)
        note(f"{recipe.kind} {message}")
        data = encoded(message, ascii_only=True)
        self._expect(lambda: self.send(recipe.kind, data, self.now), lambda: refuse(errno.EINVAL))

    @rule(name=st.sampled_from((*sorted(Model("", "", {}, Files()).options), "Theme")), value=st.sampled_from(VALUES))
    def option(self, name: str, value: str) -> None:
        self._expect(
            lambda: self.send_option(name, value, self.now), lambda: self.model.set_option(name, value, self.now)
        )

    @rule(content=CONTENT, tagged=st.booleans(), pause=STEPS)
    def foreign(self, content: str, tagged: bool, pause: int) -> None:
        """Another service records an event; it may die before its tag."""
        self.now += timedelta(seconds=pause, microseconds=1)
        index = len(self.model.rows)
        self.model.foreign(content.encode(), self.now)
        self.model.commits[-1] = self.model.commits[-1]._replace(ours=False)
        commit_as_another(self.path, self.model.commits[-1], [index] if tagged else [])
        self.stored.untagged |= set() if tagged else {index}
        self._compare()

    @rule(command=st.sampled_from((("gc", "-q", "--prune=now"), ("pack-refs", "--all"), ("repack", "-q"))))
    def maintenance(self, command: tuple[str, ...]) -> None:
        git(self.path, *command)
        self._compare()

    # -- what a step is

    def _send(self, kind: str, message: Json, pause: int, *, ascii_only: bool = False) -> None:
        self.now += timedelta(seconds=pause, microseconds=pause)
        note(f"{kind} {message}")
        self.last = (kind, copy.deepcopy(message))
        data = encoded(message, ascii_only=ascii_only)
        self._expect(lambda: self.send(kind, data, self.now), lambda: self.model.record(kind, message, self.now))

    def _expect(self, real: Callable[[], Any], modelled: Callable[[], Any]) -> None:
        """Do it for real and in the model: the same answer, the same traces; none, if it was refused."""
        objects, before = self.stored.objects(), len(self.model.commits)
        answer = outcome(real)
        expected = outcome(modelled)
        assert answer == expected, f"{answer!r}, not {expected!r}"
        self._compare()
        if len(self.model.commits) == before:
            assert self.stored.objects() == objects

    def _compare(self) -> None:
        type(self).steps += 1
        self.stored.compare(self.model)

    # -- how it is done

    def send(self, kind: str, data: bytes, now: datetime) -> int:
        """Record an event: its index."""
        committed = record(self.path, self.kata_id, parse_act(Kind(kind), data), now)
        assert git_tag(self.path, committed.index) == committed.commit.hex()
        return committed.index

    def send_option(self, name: str, value: str, now: datetime) -> bool:
        """Set an option: whether it was another value."""
        return set_option(self.path, self.kata_id, name, value, now) is not None


def git_tag(path: Path, index: int) -> str:
    """What a tag points to."""
    loose = path / ".git" / "refs" / "tags" / str(index)
    if loose.exists():
        return loose.read_text().strip()
    packed = (path / ".git" / "packed-refs").read_text().splitlines()
    return next(line for line in packed if line.endswith(f" refs/tags/{index}")).split(" ")[0]


def refuse(number: int) -> None:
    raise RefusedError(number)


def outcome(action: Callable[[], Any]) -> Any:
    """What an action returns, or the name of the errno that it fails with."""
    try:
        return action()
    except (KataError, OSError, RefusedError) as error:
        return errno.errorcode[error.errno or 0]


def settings_of(steps_each: int, runs: int) -> settings:
    """So many runs of at most so many steps; a failure is shortened, but not explained: that would take minutes, and
    the steps tell."""
    return settings(
        max_examples=runs,
        stateful_step_count=steps_each,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example),
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    )
