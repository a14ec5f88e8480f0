"""The arithmetic of the delay ladder."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amqpworker.errors import InvalidArguments
from amqpworker.routing.delay import LEVELS, MAX_DELAY, UNIT, Route, clamp, route, units
from amqpworker.routing.topology import Names

NAMES = Names("amqpworker")
NOW = 1_800_000_000.0
MICROSECOND = Fraction(1, 1_000_000)
delays = st.floats(min_value=0, max_value=MAX_DELAY) | st.integers(1, 2**LEVELS - 1).map(lambda n: n * UNIT)


def levels(way: Route) -> list[int]:
    return [int(name.removeprefix("aw-wait-")) for name in way.headers]


@pytest.mark.parametrize(
    ("delay", "expected"),
    [
        (0, 0),
        (0.125, 1),
        (0.125 * 3, 3),
        (0.1 + 0.2, 3),
        (1.0, 8),
        (1, 8),
        (0.126, 2),
        (0.125 + 2e-6, 2),
        (1.1 - 0.1, 8),
        ((NOW + 0.3) - (NOW - 0.7), 8),
        (60, 480),
        (MAX_DELAY, 2**31 - 1),
    ],
)
def test_a_delay_is_rounded_up_to_whole_units(delay: float, expected: int) -> None:
    assert units(delay) == expected


@given(delays)
@example(5e-324)
@example(1e-6)
@example(MAX_DELAY - 1e-7)
def test_the_levels_of_a_delay_wait_for_it_never_shorter_and_less_than_a_unit_longer(delay: float) -> None:
    waited = sum((Fraction(UNIT) * 2**level for level in levels(route(NAMES, delay))), Fraction(0))
    assert waited >= Fraction(delay) - MICROSECOND
    assert waited < Fraction(delay) + Fraction(UNIT)


@given(delays)
def test_a_delayed_message_enters_at_its_highest_bit_and_has_one_header_for_each_bit(delay: float) -> None:
    way = route(NAMES, delay)
    bits = units(delay)
    if bits:
        assert way.exchange == NAMES.level(max(levels(way)))
    assert set(levels(way)) == {level for level in range(LEVELS) if bits & 2**level}


def test_a_delay_of_five_seconds_reads_so_on_the_wire() -> None:
    assert route(NAMES, 5) == Route("amqpworker.delay.05", {"aw-wait-05": True, "aw-wait-03": True})


def test_without_a_delay_a_new_message_is_a_task_and_an_accepted_one_is_due() -> None:
    assert route(NAMES, 0) == Route("amqpworker.tasks", {})
    assert route(NAMES, 0, via_due=True) == Route("amqpworker.due", {})


def test_a_retry_with_a_wait_goes_through_the_ladder_as_well() -> None:
    assert route(NAMES, 1, via_due=True) == route(NAMES, 1)


@pytest.mark.parametrize("delay", [-0.001, MAX_DELAY + 0.125, float("inf"), float("nan")])
def test_no_way_is_given_for_a_delay_that_the_ladder_has_not(delay: float) -> None:
    with pytest.raises(InvalidArguments, match="a delay is from 0 to 268435456 seconds"):
        route(NAMES, delay)


@given(st.floats())
def test_a_clamped_wait_is_one_that_the_ladder_has(seconds: float) -> None:
    assert 0 <= clamp(seconds) <= MAX_DELAY
    if 0 <= seconds <= MAX_DELAY:
        assert clamp(seconds) == seconds
    route(NAMES, clamp(seconds))


def test_what_is_endless_is_clamped_to_the_longest_wait() -> None:
    assert clamp(float("inf")) == MAX_DELAY
