"""What a leader knows of the other schedulers."""

from __future__ import annotations

from amqpworker.scheduler.others import FORGET_AFTER, Identity, Others

ME = Identity("amqpworker", "main", "host:1", "mine")


def test_a_scheduler_with_other_schedules_is_reported_once_and_listed() -> None:
    others = Others(ME)
    assert others.on_seen("host:2", "other", 100.0)
    assert not others.on_seen("host:2", "other", 110.0)
    assert others.differing(110.0) == ["host:2"]


def test_a_scheduler_with_the_same_schedules_is_not() -> None:
    others = Others(ME)
    assert not others.on_seen("host:2", "mine", 100.0)
    assert not others.on_seen("host:1", "other", 100.0)
    assert not others.on_seen("", "other", 100.0)
    assert others.differing(100.0) == []


def test_a_scheduler_that_was_not_heard_of_lately_is_forgotten_and_then_news() -> None:
    others = Others(ME)
    others.on_seen("host:2", "other", 100.0)
    assert others.differing(101.0 + FORGET_AFTER) == []
    assert others.on_seen("host:2", "other", 102.0 + FORGET_AFTER)


def test_schedulers_that_have_ended_take_no_memory() -> None:
    others = Others(ME)
    for number in range(1000):
        others.on_seen(f"host:{number}", "other", 100.0 + number)
    assert len(others.differing(1100.0)) < 40
    assert len(others._seen) < 40
