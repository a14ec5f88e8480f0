"""How long a message waits for a worker that knows its task: few rounds, each through one level, for ten minutes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from amqpworker.policies.unknown_wait import LONGEST, PATIENCE, SHORTEST, UnknownWait, next_wait
from amqpworker.routing.delay import units

NOW = 1_790_000_000.0
MILLISECONDS = int(NOW * 1000)


def rounds(latency: float = 0.05) -> list[float]:
    """Return the waits of a message that no worker ever knows."""
    now, since, found = NOW, None, []
    while len(found) < 100 and (wait := next_wait(since, now)) is not None:
        since = wait.since
        found.append(wait.delay)
        now += wait.delay + latency
    return found


def test_a_message_waits_as_long_as_it_has_waited_from_4_to_64_seconds() -> None:
    assert rounds() == [4, 4, 8, 16, 32, *[64] * 9]


def test_it_waits_at_least_ten_minutes_and_one_wait_more_at_most() -> None:
    assert PATIENCE <= sum(rounds(0.0)) < PATIENCE + LONGEST


def test_each_wait_costs_one_level_of_the_ladder() -> None:
    assert {units(delay).bit_count() for delay in rounds()} == {1}


def test_waits_never_get_shorter() -> None:
    assert all(after >= before for before, after in pairwise(rounds()))


@pytest.mark.parametrize(
    ("waited", "delay"), [(0, 4), (3.999, 4), (7.4, 4), (7.6, 8), (15.9, 16), (63.9, 64), (599.9, 64)]
)
def test_a_wait_that_ended_a_moment_early_counts_as_a_whole_one(waited: float, delay: float) -> None:
    since = MILLISECONDS - int(waited * 1000)
    assert next_wait(since, NOW) == UnknownWait(delay, since)


def test_a_message_that_has_waited_for_ten_minutes_waits_no_more() -> None:
    assert next_wait(MILLISECONDS - 600_000, NOW) is None
    assert next_wait(-(10**15), NOW) is None


@pytest.mark.parametrize("ahead", [1, 10**6, 10**15])
def test_a_clock_that_is_ahead_does_not_make_it_wait_longer(ahead: int) -> None:
    assert next_wait(MILLISECONDS + ahead, NOW) == UnknownWait(SHORTEST, MILLISECONDS)
