"""Times at a fixed distance, and the start and the end of a schedule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.schedules.cron import Cron
from amqpworker.schedules.definition import Timing
from amqpworker.schedules.interval import Interval
from amqpworker.schedules.window import Window
from tests.unit.schedules.times import DAY, HOUR, MINUTE, times, utc

START, END = utc("2026-03-01T10:00"), utc("2026-03-01T12:00")

moments = st.integers(-(10**15), 10**15)
intervals = st.builds(Interval, st.integers(1000, 10**10), moments)


def test_an_interval_counts_from_the_epoch() -> None:
    assert Interval(5 * MINUTE).after(utc("2026-03-01T10:01")) == utc("2026-03-01T10:05")
    assert Interval(7000).after(0) == 7000
    assert Interval(7000).latest(6999) == 0


@given(intervals, moments)
def test_no_time_is_between_one_and_the_next(timing: Interval, moment: int) -> None:
    first = timing.after(moment)
    assert moment < first <= moment + timing.every
    assert timing.latest(first) == first
    assert timing.after(first - 1) == first
    assert timing.latest(first - 1) == first - timing.every <= moment
    assert (first - timing.base) % timing.every == 0


@given(intervals, moments, st.integers(0, 10**12))
def test_times_are_counted_in_no_time(timing: Interval, moment: int, length: int) -> None:
    count = timing.count(moment, moment + length)
    assert timing.latest(moment + length) == timing.latest(moment) + count * timing.every
    assert timing.count(moment, moment - length) == 0


@pytest.mark.parametrize(
    ("every", "text"),
    [
        (1000, "every 1 s"),
        (1500, "every 1.5 s"),
        (90_000, "every 90 s"),
        (5 * MINUTE, "every 5 min"),
        (90 * MINUTE, "every 90 min"),
        (6 * HOUR, "every 6 h"),
        (7 * DAY, "every 7 d"),
        (1_000_000_001, "every 1000000.001 s"),
    ],
)
def test_an_interval_is_written_in_its_largest_whole_unit(every: int, text: str) -> None:
    assert str(Interval(every)) == text


@pytest.mark.parametrize("timing", [Interval(30 * MINUTE, START), Cron("*/30 * * * *")])
def test_start_and_end_are_both_included(timing: Timing) -> None:
    window = Window(timing, START, END)
    every = [START + half * 30 * MINUTE for half in range(5)]
    assert list(times(window, 0, END + DAY)) == every
    assert window.after(START - 1) == window.latest(START) == START
    assert window.after(END - 1) == window.latest(END) == window.latest(END + DAY) == END
    assert window.after(END) is None
    assert window.latest(START - 1) is None
    assert window.count(0, END + DAY) == window.count(START - 1, END) == 5
    assert window.count(START, END - 1) == 3
    assert window.count(END, END + DAY) == window.count(0, START - 1) == 0


def test_a_start_between_two_times_of_an_expression_is_not_one_of_them() -> None:
    window = Window(Cron("0 * * * *"), START + 1)
    assert window.after(0) == START + HOUR
    assert window.latest(START + HOUR - 1) is None


def test_an_interval_with_a_start_begins_with_it() -> None:
    start = START + 123
    assert Window(Interval(7000, start), start).after(0) == start


def test_a_window_is_written_with_its_ends() -> None:
    text = "every 30 min from 2026-03-01T10:00:00.000Z until 2026-03-01T12:00:00.000Z"
    assert str(Window(Interval(30 * MINUTE), START, END)) == text
    assert str(Window(Cron("0 * * * *"), None, END)) == "0 * * * * UTC until 2026-03-01T12:00:00.000Z"


@given(intervals, moments, st.integers(0, 10**11), moments)
def test_a_window_has_the_times_of_its_timing_that_are_in_it(
    timing: Interval, start: int, length: int, moment: int
) -> None:
    window = Window(timing, start, start + length)
    after, latest = window.after(moment), window.latest(moment)
    assert after is None or (after > moment and start <= after <= start + length and timing.latest(after) == after)
    assert latest is None or (
        latest <= moment and start <= latest <= start + length and timing.latest(latest) == latest
    )
    assert (after is None) == (window.count(moment, 10**18) == 0)
    assert (latest is None) == (window.count(-(10**18), moment) == 0)
