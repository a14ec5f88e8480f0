"""Which ticks are sent after a gap, and how many are missed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.message import Message
from amqpworker.schedules.cron import Cron
from amqpworker.schedules.definition import Misfire, Schedule, Timing
from amqpworker.schedules.gap import MAX_MADE_UP, DueTicks, due_ticks
from amqpworker.schedules.interval import Interval
from amqpworker.schedules.window import Window
from tests.unit.schedules.times import DAY, MINUTE, times, utc

NOW = utc("2026-03-01T10:00")
EACH_10_S = Interval(10_000)


def schedule(timing: Timing, misfire: Misfire = "once", grace: float = 60.0) -> Schedule:
    return Schedule("s", Message("t", "q", b"{}", "1"), timing, misfire=misfire, grace=grace)


@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
def test_each_tick_of_a_gap_within_the_grace_is_sent(misfire: Misfire) -> None:
    due = due_ticks(schedule(EACH_10_S, misfire), NOW - 70_000, NOW)
    assert due == DueTicks(tuple(range(NOW - 60_000, NOW + 1, 10_000)), 0, None, NOW)


@pytest.mark.parametrize(
    ("misfire", "ticks", "missed", "last_missed"),
    [
        ("once", (NOW,), 7, NOW - 10_000),
        ("skip", (), 8, NOW),
        ("all", tuple(range(NOW - 70_000, NOW + 1, 10_000)), 0, None),
    ],
)
def test_after_a_longer_gap_the_misfire_option_decides(
    misfire: Misfire, ticks: tuple[int, ...], missed: int, last_missed: int | None
) -> None:
    assert due_ticks(schedule(EACH_10_S, misfire), NOW - 80_000, NOW) == DueTicks(ticks, missed, last_missed, NOW)


def test_the_gap_begins_with_its_first_tick_not_with_the_one_before() -> None:
    daily = schedule(Cron("0 10 * * *"), "skip")
    assert due_ticks(daily, NOW - DAY, NOW + MINUTE).ticks == (NOW,)
    assert due_ticks(daily, NOW - DAY, NOW + MINUTE + 1) == DueTicks((), 1, NOW, NOW + MINUTE + 1)


def test_without_a_grace_only_a_tick_of_this_millisecond_is_on_time() -> None:
    strict = schedule(EACH_10_S, "skip", grace=0)
    assert due_ticks(strict, NOW - 1, NOW).ticks == (NOW,)
    assert due_ticks(strict, NOW - 1, NOW + 1).missed == 1


def test_nothing_is_due_before_the_next_time_or_if_the_clock_was_set_back() -> None:
    assert due_ticks(schedule(EACH_10_S), NOW, NOW + 9_999) == DueTicks((), 0, None, NOW + 9_999)
    assert due_ticks(schedule(EACH_10_S), NOW, NOW) == DueTicks((), 0, None, NOW)
    assert due_ticks(schedule(EACH_10_S), NOW, NOW - DAY) == DueTicks((), 0, None, NOW)


def test_nothing_is_due_after_the_end() -> None:
    ended = schedule(Window(EACH_10_S, None, NOW))
    assert due_ticks(ended, NOW, NOW + DAY) == DueTicks((), 0, None, NOW + DAY)
    assert due_ticks(ended, NOW - 10_000, NOW + DAY) == DueTicks((NOW,), 0, None, NOW + DAY)


def test_after_years_at_most_the_last_thousand_ticks_are_made_up() -> None:
    for timing in (Interval(1000), Cron("* * * * *", "Europe/Paris")):
        due = due_ticks(schedule(timing, "all"), utc("2020-01-01T00:00"), NOW)
        assert len(due.ticks) == MAX_MADE_UP
        assert due.ticks[-1] == due.position == NOW
        assert due.last_missed == timing.latest(due.ticks[0] - 1)
        assert due.missed == timing.count(utc("2020-01-01T00:00"), NOW) - MAX_MADE_UP


def test_more_ticks_within_a_long_grace_are_due_part_by_part() -> None:
    patient = schedule(Interval(1000), "skip", grace=86_400)
    position, found = NOW - 2_500_000, []
    while position < NOW:
        due = due_ticks(patient, position, NOW)
        assert (due.missed, len(due.ticks) <= MAX_MADE_UP) == (0, True)
        found.extend(due.ticks)
        position = due.position
    assert found == list(range(NOW - 2_499_000, NOW + 1, 1000))


@given(
    st.sampled_from(["once", "skip", "all"]),
    st.sampled_from([Interval(7000), Cron("*/3 * * * *"), Window(Interval(9000, NOW), NOW, NOW + 9_000_000)]),
    st.integers(0, 2_000_000),
    st.integers(0, 2_000_000),
    st.sampled_from([0.0, 60.0, 600.0]),
)
def test_each_time_is_either_sent_or_missed(
    misfire: Misfire, timing: Timing, since: int, length: int, grace: float
) -> None:
    position, now = NOW + since, NOW + since + length
    due = due_ticks(schedule(timing, misfire, grace), position, now)
    every = list(times(timing, position, now))
    assert list(due.ticks) == (every[-len(due.ticks) :] if due.ticks else [])
    assert due.missed == len(every) - len(due.ticks)
    assert due.last_missed == (every[due.missed - 1] if due.missed else None)
    assert due.position == now
    again = due_ticks(schedule(timing, misfire, grace), due.position, now)
    assert again == replace(due, ticks=(), missed=0, last_missed=None)
