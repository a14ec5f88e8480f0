"""Whether a step of the clock is noticed."""

from __future__ import annotations

import pytest

from amqpworker.scheduler.clock_steps import ClockSteps
from amqpworker.scheduler.scheduler_actions import WriteLog
from tests.unit.scheduler.election_scene import HOUR, NOW


@pytest.mark.parametrize(("step", "effect"), [(HOUR, "the ticks between are a gap"), (-HOUR, "nothing is sent until")])
def test_each_step_is_reported_once(step: int, effect: str) -> None:
    steps = ClockSteps(NOW, 100.0)
    assert not steps.check(NOW + 1000, 101.0)
    (line,) = steps.check(NOW + 2000 + step, 102.0)
    assert isinstance(line, WriteLog)
    assert line.event == "clock_stepped"
    assert line.fields["seconds"] == step / 1000
    assert line.fields["effect"].startswith(effect)
    assert not steps.check(NOW + 3000 + step, 103.0)


def test_a_correction_of_the_clock_is_not_a_step() -> None:
    steps = ClockSteps(NOW, 100.0)
    assert not steps.check(NOW + 4900, 100.0)
    assert not steps.check(NOW + 100, 100.1)
