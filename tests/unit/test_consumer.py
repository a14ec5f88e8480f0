"""The consuming side of a process, as far as it needs no broker."""

from __future__ import annotations

from amqpworker.broker.address import addresses
from amqpworker.broker.consumer import Consumer, Intake, Subscription
from amqpworker.message import Delivery, Properties
from amqpworker.plan import Plan
from amqpworker.settings import Settings
from tests.unit.settling import Nobody

WORK = Subscription("work", 10)


def delivery(tag: int) -> Delivery:
    return Delivery(tag, False, "amqpworker.tasks", "another key", Properties(), b"{}")


class Taking(Nobody):
    """A receiver that keeps what it is given."""

    def __init__(self) -> None:
        self.taken: list[Delivery] = []

    def receive(self, delivery: Delivery) -> None:
        self.taken.append(delivery)


def test_a_delivery_belongs_to_the_channel_and_the_queue_that_it_came_by() -> None:
    receiver = Taking()
    intake = Intake(WORK, receiver, lambda: None)
    one = delivery(1)
    intake.on_delivery(one)
    assert receiver.taken == [one]
    assert one.channel is intake
    assert one.queue == "work"
    assert list(intake.unstarted) == [1]


def test_the_first_delivery_that_waits_has_the_deadlines_looked_at() -> None:
    watched: list[int] = []
    intake = Intake(WORK, Taking(), lambda: watched.append(1))
    intake.on_delivery(delivery(1))
    intake.on_delivery(delivery(2))
    assert len(watched) == 1
    intake.unstarted.clear()
    intake.on_delivery(delivery(3))
    assert len(watched) == 2


def test_a_channel_that_is_void_takes_nothing_any_more() -> None:
    """What the broker had sent before it heard of the end comes again on the next channel."""
    receiver = Taking()
    intake = Intake(WORK, receiver, lambda: None)
    intake.is_open = False
    intake.on_delivery(delivery(1))
    assert receiver.taken == []
    assert intake.unstarted == {}


def test_without_a_connection_there_is_nothing_left_to_drain() -> None:
    plan = Plan("amqpworker", declare=False)
    consumer = Consumer(addresses("amqp://127.0.0.1:1"), Settings(), plan.topology_of, [WORK], Nobody())
    drained: list[bool] = []
    consumer.drain(lambda: drained.append(True))
    assert drained == []
    consumer.tick()
    assert drained == [True]
    consumer.tick()
    assert drained == [True], "told once"
