"""Schedulers through faults of all kinds, in simulated time: no tick missed, no command forgotten, none stuck."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from amqpworker.scheduler import election
from amqpworker.scheduler.ticks import Ticks
from tests.unit.scheduler.simulated_story import run_story, stories


@settings(max_examples=40)
@given(**stories)
def test_no_fault_loses_a_tick_or_a_command(seed: int, offsets: list[int], steps: list[tuple[Any, ...]]) -> None:
    run_story(seed, offsets, steps)


# What once went wrong, and is not found in a few examples: it takes a command or fault within some milliseconds.
@pytest.mark.parametrize(
    ("seed", "offsets", "steps"),
    [
        pytest.param(
            53,
            [-700, 120_000],
            [("wait", 6495), ("delete",), ("command", "pause", "single")],
            id="a late token of a leader whose clock was ahead",
        ),
        pytest.param(
            139,
            [-120_000],
            [
                ("start", 120_000, 0),
                ("start", 120_000, 0),
                ("wait", 6635),
                ("delete",),
                ("command", "pause", "all"),
                ("start", -120_000, 0),
                ("step", 3, -3_600_000),
            ],
            id="a token of a standby whose clock was ahead",
        ),
        pytest.param(
            70127,
            [0, -700, -700, 120_000],
            [
                ("lose", 0),
                ("wait", 37647),
                ("junk", b'{"until": 1e3}'),
                ("wait", 55811),
                ("silence", 12004),
                ("wait", 6832),
                ("command", "pause", "quick"),
                ("wait", 7484),
                ("kill", 1),
            ],
            id="a token that was not confirmed, and is later than those that are",
        ),
    ],
)
def test_what_once_lost_a_command_does_not_any_more(
    seed: int, offsets: list[int], steps: list[tuple[Any, ...]]
) -> None:
    run_story(seed, offsets, steps)


def test_the_simulation_notices_a_scheduler_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "latest_of", lambda _: None)
    monkeypatch.setattr(Ticks, "adopt", lambda *_: None)
    with pytest.raises(AssertionError, match="missed"):
        run_story(1, [0], [("wait", 20_000), ("kill", 0), ("wait", 20_000)])
