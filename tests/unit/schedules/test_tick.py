"""The message of a tick: the same on each host, and with the headers of its schedule."""

from __future__ import annotations

import uuid
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.headers import time_text
from amqpworker.model.message import Message
from amqpworker.schedules.definition import Schedule, fingerprint
from amqpworker.schedules.interval import Interval
from amqpworker.schedules.tick import run_now_message, tick_id, tick_message
from tests.unit.schedules.times import utc

NOMINAL = utc("2026-11-30T02:30")
TEMPLATE = Message("shop.report", "reports", b'{"day":5}', "unused", {"tenant": "acme"}, expires=50.0, resend=False)
NIGHTLY = Schedule("nightly", TEMPLATE, Interval(300_000))


def test_the_id_of_a_tick_is_a_uuid5_that_other_programs_can_calculate() -> None:
    expected = uuid.uuid5(uuid.NAMESPACE_URL, "amqpworker:main:nightly:2026-11-30T02:30:00.000Z")
    assert tick_id("amqpworker", "main", "nightly", NOMINAL) == str(expected)
    assert str(expected) == "67eb4289-e1b6-5de2-8bef-a612497ed638"


@given(st.text(min_size=1), st.text(min_size=1), st.integers(-(10**14), 10**15))
def test_any_id_of_a_tick_is_the_uuid5_of_its_names_and_time(scheduler: str, schedule: str, nominal: int) -> None:
    expected = uuid.uuid5(uuid.NAMESPACE_URL, f"amqpworker:{scheduler}:{schedule}:{time_text(nominal)}")
    assert tick_id("amqpworker", scheduler, schedule, nominal) == str(expected)


def test_a_tick_is_the_message_of_its_schedule_with_its_own_id_and_headers() -> None:
    tick = tick_message(NIGHTLY, "amqpworker", "main", NOMINAL)
    headers = {"tenant": "acme", "aw-schedule": "nightly", "aw-nominal": "2026-11-30T02:30:00.000Z"}
    assert tick == replace(TEMPLATE, id=tick_id("amqpworker", "main", "nightly", NOMINAL), headers=headers)
    assert tick_message(NIGHTLY, "amqpworker", "main", NOMINAL) == tick


@given(st.floats(0.001, 3600), st.integers(0, 10**12))
def test_the_jitter_of_a_tick_is_the_same_on_each_host_and_at_most_what_was_given(jitter: float, nominal: int) -> None:
    schedule = replace(NIGHTLY, jitter=jitter)
    tick = tick_message(schedule, "amqpworker", "main", nominal)
    assert tick == tick_message(schedule, "amqpworker", "main", nominal)
    assert tick.delay is None or 0 < tick.delay <= jitter


def test_the_jitter_is_spread_over_the_whole_of_its_range() -> None:
    schedule = replace(NIGHTLY, jitter=10.0)
    delays = [tick_message(schedule, "amqpworker", "main", NOMINAL + 1000 * n).delay or 0.0 for n in range(1000)]
    assert {int(delay) for delay in delays} == set(range(10))


def test_a_run_that_was_asked_for_has_an_id_of_its_own_and_no_jitter() -> None:
    schedule = replace(NIGHTLY, jitter=10.0)
    one, other = run_now_message(schedule, NOMINAL), run_now_message(schedule, NOMINAL)
    assert one.id != other.id
    assert uuid.UUID(one.id).version == 7
    assert one.delay is None
    assert one.headers == tick_message(schedule, "amqpworker", "main", NOMINAL).headers


def test_the_fingerprint_is_that_of_the_definitions_in_any_order() -> None:
    hourly = Schedule("hourly", TEMPLATE, Interval(3_600_000))
    known = fingerprint([NIGHTLY, hourly])
    assert known == fingerprint([hourly, replace(NIGHTLY, message=replace(TEMPLATE, id="other"))])
    assert (len(known), int(known, 16) >= 0) == (12, True)
    others = [
        [],
        [hourly],
        *(
            [hourly, replace(NIGHTLY, **change)]
            for change in (
                {"name": "n"},
                {"timing": Interval(300_001)},
                {"jitter": 1.0},
                {"overlap": "skip"},
                {"misfire": "all"},
                {"grace": 61.0},
                {"message": replace(TEMPLATE, body=b"{}")},
                {"message": replace(TEMPLATE, queue="other")},
                {"message": replace(TEMPLATE, task="other")},
                {"message": replace(TEMPLATE, headers={})},
                {"message": replace(TEMPLATE, expires=None)},
            )
        ),
    ]
    assert len({known, *map(fingerprint, others)}) == len(others) + 1
