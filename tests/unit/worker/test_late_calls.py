"""When the log reports that all calls of a sender are discarded: once per minute, and not if one of them runs."""

from __future__ import annotations

from amqpworker.worker.late_calls import MAX_SENDERS, LateCalls


def test_discarded_calls_are_reported_after_a_minute_and_once_per_minute() -> None:
    calls = LateCalls()
    assert [calls.on_discarded("shop", now) for now in (0.0, 1.0, 59.9)] == [0, 0, 0]
    assert calls.on_discarded("shop", 60.0) == 4
    assert calls.on_discarded("shop", 119.0) == 0
    assert calls.on_discarded("shop", 121.0) == 6


def test_one_call_that_runs_prevents_a_report_for_the_next_minute() -> None:
    calls = LateCalls()
    calls.on_run("shop")
    calls.on_discarded("shop", 0.0)
    calls.on_run("shop")
    assert [calls.on_discarded("shop", now) for now in (61.0, 62.0, 120.0)] == [0, 0, 0]
    assert calls.on_discarded("shop", 121.0) == 4


def test_each_sender_is_counted_separately() -> None:
    calls = LateCalls()
    calls.on_discarded("shop", 0.0)
    calls.on_discarded("blog", 30.0)
    calls.on_run("blog")
    assert calls.on_discarded("shop", 61.0) == 2


def test_the_number_of_senders_that_are_remembered_is_bounded() -> None:
    calls = LateCalls()
    for number in range(MAX_SENDERS + 1):
        calls.on_discarded(str(number), 0.0)
    assert calls.on_discarded(str(MAX_SENDERS - 1), 61.0) == 2
    assert calls.on_discarded(str(MAX_SENDERS), 61.0) == 0
