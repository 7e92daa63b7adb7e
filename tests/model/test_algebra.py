"""The whole event algebra against a small model of it, without a mount."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import KataMachine, settings_of


def test_some_steps() -> None:
    run_state_machine_as_test(KataMachine, settings=settings_of(25, 10))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_ten_thousand_steps(part: int) -> None:
    """Other steps in each part: the long tests are not the same every time."""
    KataMachine.steps = 0
    while KataMachine.steps < 1_000:
        run_state_machine_as_test(KataMachine, settings=settings_of(50, 25))
