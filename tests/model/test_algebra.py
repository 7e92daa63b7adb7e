"""The whole event algebra against a small model of it, without a mount."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import KataMachine

LONG = int(os.environ.get("KATAFS_MODEL_STEPS", "10000"))


def run(steps_each: int, runs: int) -> None:
    checks = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example)
    run_state_machine_as_test(
        KataMachine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps_each,
            deadline=None,
            suppress_health_check=checks,
            # explaining a failure traces every line: minutes, for what the steps already tell
            phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        ),
    )


def test_some_steps() -> None:
    run(30, 12)


@pytest.mark.slow
def test_ten_thousand_steps(record_property: Callable[[str, object], None]) -> None:
    KataMachine.steps = 0
    while KataMachine.steps < LONG:
        run(50, 100)
    record_property("steps", KataMachine.steps)
