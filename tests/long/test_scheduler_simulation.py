"""Schedulers through faults of all kinds, in simulated time: more of what `tests/unit/scheduler` runs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.long.conftest import SECONDS
from tests.unit.scheduler.simulated_story import run_story, stories

EXAMPLES_PER_SECOND = 10


@pytest.mark.timeout(1200)
@settings(max_examples=int(SECONDS * EXAMPLES_PER_SECOND), deadline=None, suppress_health_check=list(HealthCheck))
@given(**stories)
def test_no_fault_loses_a_tick_or_a_command_in_many_stories(
    seed: int, offsets: list[int], steps: list[tuple[Any, ...]]
) -> None:
    run_story(seed, offsets, steps)
