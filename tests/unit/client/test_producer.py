"""The producer without a broker: a publisher that confirms at once, and a clock that is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.client.producer import Producer
from amqpworker.errors import AmqpWorkerError, QueueFull
from amqpworker.model.message import Message, Publication
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings

NOW = 1_790_000_000.0


class Confirming:
    """A publisher whose lane ends every publication at once, with `error`."""

    def __init__(self, error: AmqpWorkerError | None = None) -> None:
        self.is_over = False
        self.error = error
        self.sends = self.keeper = self
        self.owner: str | None = None
        self.published: list[tuple[Publication, tuple[Any, ...]]] = []

    def publish(self, publication: Publication, requirements: tuple[Any, ...], *_: object) -> PendingPublish:
        self.published.append((publication, requirements))
        pending = PendingPublish(publication, 5.0)
        pending.finish(self.error)
        return pending

    def retire(self) -> None:
        self.is_over = True


@pytest.fixture
def plan() -> Plan:
    plan = Plan("amqpworker", declare=True)
    plan.add_queue("emails")
    return plan


def producer_with(plan: Plan, make: Callable[..., Any]) -> Producer:
    return Producer(plan, Settings(), make, lambda: NOW)


def test_a_message_is_published_with_the_time_of_the_clock_and_what_its_queue_requires(plan: Plan) -> None:
    publisher = Confirming()
    producer_with(plan, lambda _: publisher).send(Message("shop.welcome", "emails", b"{}", "m-1"))
    ((publication, requirements),) = publisher.published
    assert publication.properties.timestamp == int(NOW)
    assert publication.routing_key == "emails"
    assert requirements == plan.requirements("emails", delayed=False)
    assert [one.name for one in requirements] == ["queue emails"]


def test_the_error_of_a_message_carries_the_message(plan: Plan) -> None:
    publisher = Confirming(QueueFull("It is full."))
    message = Message("shop.welcome", "emails", b"{}", "m-1")
    with pytest.raises(QueueFull) as failed:
        producer_with(plan, lambda _: publisher).send(message)
    assert failed.value.message is message


def test_a_publisher_that_was_closed_is_replaced_at_the_next_message(plan: Plan) -> None:
    made: list[Confirming] = []

    def make(_: object) -> Confirming:
        made.append(Confirming())
        return made[-1]

    producer = producer_with(plan, make)
    for number in range(3):
        producer.send(Message("shop.welcome", "emails", b"{}", f"m-{number}"))
        made[0].is_over = True
    assert [len(one.published) for one in made] == [1, 2]
