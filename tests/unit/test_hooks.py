"""Events about settled deliveries: what they show, and that a listener cannot harm a message."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from amqpworker.errors import Unconfirmed
from amqpworker.hooks import Settled
from amqpworker.model.clock import Clock
from amqpworker.model.outcome import Discarded, Done, Requeue
from tests.unit.worker.settling import DEAD, RETRY, Bench


def test_an_event_shows_the_task_the_run_and_the_outcome() -> None:
    bench = Bench(clock=Clock(now=lambda: 1002.5))
    delivery = bench.delivery(message_id="m-1")
    bench.settler.settle(delivery, RETRY, bench.started(delivery, attempt=3))
    assert bench.events == [], "the copy is not confirmed yet"
    bench.publisher.confirm()
    assert bench.events == [], "it is not acknowledged yet"
    bench.flush()
    (event,) = bench.events
    assert (event.task, event.queue, event.id, event.attempt, event.seconds) == ("example", "work", "m-1", 3, 2.5)
    assert event.outcome is RETRY


def test_an_event_of_a_task_that_was_not_started_has_the_name_and_id_in_its_message() -> None:
    bench = Bench()
    bench.settler.settle(bench.delivery(type="gone", message_id="m-1"), Discarded("why"))
    bench.flush()
    (event,) = bench.events
    assert (event.task, event.id, event.attempt, event.seconds) == ("gone", "m-1", None, None)


def test_a_delivery_is_reported_as_requeued_if_its_outcome_could_not_be_settled() -> None:
    bench = Bench(stores=False)
    requeued, dead = bench.delivery(), bench.delivery()
    bench.settler.settle(requeued, Requeue())
    bench.settler.settle(dead, DEAD, bench.started(dead))
    bench.channel.is_open = False
    bench.publisher.fail(Unconfirmed("lost"))
    bench.flush()
    assert bench.events == [], "the channel is lost, and the broker redelivers both"
    bench.channel = bench.new_channel()
    bench.store.failures = 99
    bench.settle(bench.delivery(), Requeue())
    bench.flush()
    assert [type(event.outcome) for event in bench.events] == [Requeue]


def test_a_listener_is_called_once_per_flush_with_all_that_was_settled() -> None:
    bench = Bench()
    calls: list[int] = []
    bench.settler.listeners.add(lambda events: calls.append(len(events)))
    bench.flush()
    for _ in range(3):
        bench.settler.settle(bench.delivery(), Done())
    bench.flush()
    assert calls == [3]


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3)], ids=repr)
def test_a_listener_that_raises_is_named_once_and_affects_neither_messages_nor_other_listeners(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()

    def broken(_events: Sequence[Settled]) -> None:
        raise error

    seen: list[Settled] = []
    bench.settler.listeners.add(broken)
    bench.settler.listeners.add(seen.extend)
    for tag in (1, 2):
        bench.settler.settle(bench.delivery(), Done())
        assert bench.flush() == [("ack", tag, False)]
    assert [event.delivery.tag for event in seen] == [1, 2]
    lines = [record.getMessage() for record in caplog.records if "listener_failed" in record.getMessage()]
    assert len(lines) == 1
    assert "broken" in lines[0]
