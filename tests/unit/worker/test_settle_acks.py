"""Acknowledging by the settler: few frames, and nothing of an older channel on a newer one."""

from __future__ import annotations

import time

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Done, Requeue
from tests.unit.broker.test_ack_tracker import Ack, Broker
from tests.unit.worker.settling import DEAD, RETRY, Bench


def acks(bench: Bench) -> list[tuple[object, ...]]:
    return [step for step in bench.flush() if step[0] in {"ack", "nack"}]


def test_one_flush_acknowledges_all_settled_deliveries_in_one_frame() -> None:
    bench = Bench()
    deliveries = [bench.delivery() for _ in range(300)]
    for delivery in reversed(deliveries):
        bench.settler.settle(delivery, Done())
    assert acks(bench) == [("ack", 300, True)]


def test_one_long_task_does_not_hold_back_the_acks_of_others() -> None:
    bench = Bench()
    long, *others = [bench.delivery() for _ in range(300)]
    for delivery in others:
        bench.settler.settle(delivery, Done())
    assert acks(bench) == [("ack", tag, False) for tag in range(2, 301)]
    bench.settler.settle(long, Done())
    assert acks(bench) == [("ack", 1, False)]


def test_the_outcome_of_an_older_channel_is_dropped() -> None:
    bench = Bench()
    late = bench.delivery()
    late_requeue = bench.delivery()
    bench.channel.is_open = False
    bench.channel = bench.new_channel()
    again = bench.delivery()
    bench.settler.settle(late, Done())
    bench.settler.settle(late_requeue, Requeue())
    assert acks(bench) == [], "tag 1 of the new channel is another delivery"
    bench.settler.settle(again, Done())
    assert acks(bench) == [("ack", 1, False)]
    assert bench.settler.is_idle


def test_a_copy_that_is_confirmed_after_the_channel_is_lost_acknowledges_nothing() -> None:
    bench = Bench()
    delivery = bench.delivery()
    bench.settler.settle(delivery, RETRY, bench.started(delivery))
    bench.channel.is_open = False
    bench.channel = bench.new_channel()
    bench.delivery()
    bench.publisher.confirm()
    assert acks(bench) == []


def test_only_unclaimed_deliveries_that_arrived_before_a_time_are_waiting_since_then() -> None:
    bench = Bench()
    old = bench.delivery()
    began = bench.delivery()
    del bench.channel.unclaimed[began.tag]
    border = time.monotonic()
    new = bench.delivery()
    old.arrived, new.arrived = border - 1, border + 1
    assert bench.channel.waiting_since(border) == [old]


def test_a_delivery_that_is_settled_twice_is_acknowledged_once() -> None:
    bench = Bench()
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done())
    bench.settler.settle(delivery, Requeue())
    assert acks(bench) == [("ack", 1, False)]
    bench.settler.settle(delivery, Done())
    bench.settler.settle(delivery, Requeue())
    assert acks(bench) == []


class Settling(RuleBasedStateMachine):
    """A channel and the ones after it: what reaches the broker is right whatever happens in between."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(stores=False)
        self.broker = Broker()
        self.begun: list[Delivery] = []
        self.known: list[Delivery] = []
        self.done: set[int] = set()
        self.back: set[int] = set()

    def pick(self, data: some.DataObject, among: list[Delivery]) -> Delivery:
        return among.pop(data.draw(some.integers(0, len(among) - 1)))

    @rule(count=some.integers(1, 10))
    def deliver(self, count: int) -> None:
        for _ in range(count):
            delivery = self.bench.delivery()
            self.broker.unacked[delivery.tag] = None
            self.known.append(delivery)

    @precondition(lambda self: self.known)
    @rule(data=some.data())
    def begin(self, data: some.DataObject) -> None:
        delivery = self.pick(data, self.known)
        if delivery.channel.claim(delivery):
            self.begun.append(delivery)

    @precondition(lambda self: self.begun)
    @rule(data=some.data(), outcome=some.sampled_from([Done(), Requeue(), RETRY, DEAD]))
    def settle(self, data: some.DataObject, outcome: object) -> None:
        delivery = self.pick(data, self.begun)
        self.bench.settler.settle(delivery, outcome)  # type: ignore[arg-type]
        if delivery.channel is self.bench.channel:
            if isinstance(outcome, Done):
                self.done.add(delivery.tag)
            elif isinstance(outcome, Requeue):
                self.back.add(delivery.tag)

    @precondition(lambda self: self.bench.publisher.underway)
    @rule(data=some.data())
    def confirm(self, data: some.DataObject) -> None:
        underway = self.bench.publisher.underway
        one = underway.pop(data.draw(some.integers(0, len(underway) - 1)))
        waiting = len(self.bench.settler._acks)
        one.confirm()
        if len(self.bench.settler._acks) > waiting:
            delivery = self.bench.settler._acks[-1].delivery
            if delivery.channel is self.bench.channel:
                self.done.add(delivery.tag)

    @rule()
    def requeue_unstarted(self) -> None:
        for delivery in self.bench.channel.waiting_since(time.monotonic()):
            assert self.bench.channel.claim(delivery)
            self.bench.settler.settle(delivery, Requeue())
            self.back.add(delivery.tag)
        self.flush()

    @rule()
    def flush(self) -> None:
        acknowledged: set[int] = set()
        for kind, tag, *more in self.bench.flush():
            if kind == "ack":
                acknowledged |= self.broker.ack(Ack(tag, more[0]))
            elif kind == "nack":
                assert tag in self.back
                self.broker.nack(tag)
        assert acknowledged == self.done
        self.done.clear()
        self.back.clear()

    @rule()
    def reconnect(self) -> None:
        self.bench.channel.is_open = False
        self.bench.channel.unclaimed.clear()
        self.bench.channel = self.bench.new_channel()
        self.broker = Broker()
        self.done.clear()
        self.back.clear()

    @invariant()
    def nothing_is_forgotten(self) -> None:
        mine = {one.tag for one in self.begun if one.channel is self.bench.channel}
        unsettled = mine | set(self.bench.channel.unclaimed) | self.done | self.back
        assert unsettled <= set(self.broker.unacked)
        if not self.bench.publisher.underway:
            assert unsettled == set(self.broker.unacked)


Settling.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestSettling = Settling.TestCase
