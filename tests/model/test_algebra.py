"""The whole event algebra against a small model of it, without a mount."""

from __future__ import annotations

import os

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import KataMachine, settings_of

LONG = int(os.environ.get("KATAFS_MODEL_STEPS", "10000"))


def test_some_steps() -> None:
    run_state_machine_as_test(KataMachine, settings=settings_of(30, 12))


@pytest.mark.slow
def test_ten_thousand_steps() -> None:
    KataMachine.steps = 0
    while KataMachine.steps < LONG:
        run_state_machine_as_test(KataMachine, settings=settings_of(50, 100))
