"""Which deliveries are requeued because they were not started, and where a redelivered message runs."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.errors import Unconfirmed
from amqpworker.model.clock import Clock
from amqpworker.model.headers import time_of
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Done
from amqpworker.worker import copies
from amqpworker.worker.isolation import suspects as inquiry
from amqpworker.worker.receiver import DeliveryReceiver
from tests.unit.worker.settling import RETRY, Bench


class MovedClock:
    """A monotonic clock that a test moves, beside the system's."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.both = Clock(monotonic=lambda: self.now)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


class Scene:
    def __init__(self, clock: MovedClock, ack_timeout: float = 1800.0, supervised: bool = True) -> None:
        self.clock = clock
        self.dropped_at: list[float] = []
        self.running: list[tuple[Delivery, float]] = []
        self.put_there: list[int] = []
        self.put_apart: list[int] = []
        self.asked: list[str] = []
        self.bench = Bench(clock=clock.both)
        self.settle = self.bench.settle
        self.wakes = 0
        self.receiver = DeliveryReceiver(
            self, self.bench.settler, ack_timeout, self.ask if supervised else None, self.wake, clock.both
        )
        self.receiver.on_channel_opening(self.bench.channel)

    def put(self, delivery: Delivery) -> None:
        """Take what a runner thread or the event loop would."""
        self.put_there.append(delivery.tag)

    def put_isolated(self, delivery: Delivery) -> None:
        """Take what a runner thread would."""
        assert delivery.is_suspect
        self.put_apart.append(delivery.tag)

    def ask(self, keys: tuple[str, ...]) -> bool:
        self.asked += keys
        return True

    def wake(self) -> None:
        self.wakes += 1

    def receive(self, redelivered: bool, **headers: Any) -> Delivery:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        delivery = self.bench.delivery(headers=named or None)
        delivery.redelivered = redelivered
        self.receiver.on_delivery(delivery)
        return delivery

    def running_on(self, channel: ConsumerChannel) -> list[tuple[Delivery, float]]:
        return [(delivery, seconds) for delivery, seconds in self.running if delivery.channel is channel]

    def drop_requeued(self) -> None:
        self.dropped_at.append(self.clock.now)

    def tick(self) -> list[int]:
        """Run one tick of the I/O thread, and return the tags that were requeued."""
        self.receiver.on_tick()
        return [step[1] for step in self.bench.flush() if step[0] == "nack"]

    def deliver(self) -> int:
        return self.bench.delivery().tag


def test_a_delivery_that_was_not_started_within_half_of_the_ack_timeout_is_requeued(clock: MovedClock) -> None:
    scene = Scene(clock, ack_timeout=100.0)
    tag = scene.deliver()
    assert scene.tick() == []
    clock.now += 49
    assert scene.tick() == []
    clock.now += 1.5
    assert scene.tick() == [tag]
    assert scene.tick() == []


def test_runners_drop_requeued_deliveries_and_those_of_a_lost_channel(clock: MovedClock) -> None:
    scene = Scene(clock, ack_timeout=100.0)
    scene.deliver()
    scene.tick()
    assert scene.dropped_at == []
    clock.now += 51
    scene.tick()
    scene.tick()
    assert scene.dropped_at == [clock.now]
    clock.now += 1
    scene.receiver.on_channel_lost(scene.bench.channel)
    assert scene.dropped_at[1:] == [clock.now]


def test_deliveries_behind_long_tasks_are_requeued_once_if_the_queue_is_left_to_other_processes(
    clock: MovedClock,
) -> None:
    scene = Scene(clock)
    first = scene.deliver()
    scene.receive(redelivered=True)
    clock.now += 6
    assert scene.tick() == [], "no other process is idle"
    second = scene.deliver()
    scene.bench.channel.suspended_since = clock.now
    clock.now += 0.9
    assert scene.tick() == [], "others that are as busy leave the queue, too, meanwhile"
    clock.now += 1.1
    assert scene.tick() == [first], "what was delivered before stays"
    clock.now += 3.1
    assert scene.tick() == [second]
    assert len(scene.dropped_at) == 2
    scene.bench.channel.suspended_since = 0.0
    scene.deliver()
    clock.now += 60
    assert scene.tick() == []


@pytest.mark.parametrize(
    ("seconds", "named"),
    [([1.0, 1900.0, 1801.0], [1900.0, 1801.0]), ([1.0, 1799.5], [1799.5]), ([], []), ([2000.0] * 50, [2000.0] * 20)],
)
def test_an_ack_timeout_names_the_tasks_that_have_run_longer(
    clock: MovedClock, caplog: pytest.LogCaptureFixture, seconds: list[float], named: list[float]
) -> None:
    scene = Scene(clock)
    scene.running = [(scene.bench.delivery(), one) for one in seconds]
    scene.receiver.on_ack_timeout(scene.bench.channel, 1800.0, "the channel is closed")
    assert [float(one) for one in re.findall(r"ack_timeout_passed.* seconds=(\S+)", caplog.text)] == named


def test_a_started_delivery_is_never_requeued(clock: MovedClock) -> None:
    scene = Scene(clock, ack_timeout=100.0)
    tag = scene.deliver()
    del scene.bench.channel.unclaimed[tag]
    clock.now += 1000
    assert scene.tick() == []


def test_a_short_ack_timeout_is_checked_often_enough(clock: MovedClock) -> None:
    scene = Scene(clock, ack_timeout=1.0)
    tag = scene.deliver()
    waited = 0.0
    while not (back := scene.tick()):
        clock.now += 0.05
        waited += 0.05
    assert back == [tag]
    assert 0.5 <= waited <= 0.75


def test_the_receiver_asks_for_another_tick_only_while_deliveries_wait(clock: MovedClock) -> None:
    scene = Scene(clock)
    assert not scene.receiver.on_tick()
    tag = scene.deliver()
    assert scene.receiver.on_tick()
    del scene.bench.channel.unclaimed[tag]
    assert not scene.receiver.on_tick()


def test_a_drain_requeues_deliveries_that_were_not_started_and_those_that_still_arrive(clock: MovedClock) -> None:
    scene = Scene(clock)
    first, second = scene.deliver(), scene.deliver()
    del scene.bench.channel.unclaimed[first]
    scene.receiver.drain()
    scene.receiver.on_wake()
    assert [step for step in scene.bench.flush() if step[0] == "nack"] == [("nack", second)]
    late = scene.deliver()
    assert scene.receiver.on_tick(), "it continues until the worker ends"
    assert [step for step in scene.bench.flush() if step[0] == "nack"] == [("nack", late)]


def test_a_drain_settles_without_a_connection_too(clock: MovedClock) -> None:
    """Nothing wakes the I/O thread then: what ran to its end must not seem to be unsettled."""
    scene = Scene(clock)
    delivery = scene.bench.delivery()
    scene.bench.channel.is_open = False
    scene.receiver.on_channel_lost(scene.bench.channel)
    scene.bench.settler.settle(delivery, Done())
    assert not scene.bench.settler.is_idle
    scene.receiver.drain()
    scene.receiver.on_tick()
    assert scene.bench.settler.is_idle


def test_deliveries_of_a_lost_channel_are_not_requeued(clock: MovedClock) -> None:
    scene = Scene(clock, ack_timeout=2.0)
    scene.deliver()
    scene.receiver.on_channel_lost(scene.bench.channel)
    clock.now += 10
    assert scene.tick() == []
    assert not scene.receiver.on_tick()


def test_copies_that_were_not_confirmed_are_published_again_after_a_pause(clock: MovedClock) -> None:
    scene = Scene(clock)
    delivery = scene.bench.delivery()
    run = scene.bench.started(delivery)
    scene.bench.settler.settle(delivery, RETRY, run)
    scene.bench.publisher.fail(Unconfirmed("lost"))
    assert scene.receiver.on_tick(), "it asks to be called again"
    assert not scene.bench.publisher.underway
    clock.now += copies.FIRST_PAUSE
    scene.receiver.on_tick()
    assert len(scene.bench.publisher.underway) == 1
    scene.bench.publisher.confirm()
    assert scene.bench.flush()[-1] == ("ack", 1, False)


def test_a_message_that_is_not_redelivered_runs_at_once(clock: MovedClock) -> None:
    scene = Scene(clock)
    scene.receive(redelivered=False)
    scene.receive(redelivered=False, shop="a")
    assert (scene.put_there, scene.put_apart, scene.asked) == ([1, 2], [], [])


def test_a_redelivered_message_runs_isolated_only_if_the_supervisor_suspects_it(clock: MovedClock) -> None:
    scene = Scene(clock)
    scene.receive(redelivered=True)
    scene.receive(redelivered=True, x_delivery_count=1)
    scene.receive(redelivered=True, x_delivery_count=40)
    assert (scene.wakes, scene.asked) == (1, []), "asked about together, soon"
    scene.receiver.on_wake()
    assert (scene.put_there, scene.put_apart, scene.asked) == ([], [], ["id-1", "id-2", "id-3"])
    scene.receiver.on_suspect_answer(("id-2", "id-3"), suspect=False)
    scene.receiver.on_suspect_answer(("id-1",), suspect=True)
    assert (scene.put_there, scene.put_apart) == ([2, 3], [1])


def test_without_a_supervisor_a_message_runs_isolated_at_its_third_delivery(clock: MovedClock) -> None:
    scene = Scene(clock, supervised=False)
    scene.receive(redelivered=True)
    scene.receive(redelivered=True, x_delivery_count=1)
    scene.receive(redelivered=True, x_delivery_count=2)
    assert (scene.put_there, scene.put_apart, scene.wakes) == ([1, 2], [3], 0)


def test_a_supervisor_that_does_not_reply_delays_a_message_only_briefly(clock: MovedClock) -> None:
    scene = Scene(clock)
    scene.receive(redelivered=True)
    assert scene.receiver.on_tick()
    assert scene.put_apart == []
    clock.now += inquiry.PATIENCE
    scene.receiver.on_tick()
    assert scene.put_apart == [1]


def test_a_message_that_crashed_a_process_runs_isolated_without_asking_the_supervisor(clock: MovedClock) -> None:
    scene = Scene(clock)
    scene.receive(redelivered=False, aw_crashes=1)
    scene.receiver.on_wake()
    assert (scene.put_there, scene.put_apart, scene.asked) == ([], [1], [])


def test_a_message_close_to_the_delivery_limit_is_republished_and_does_not_run(clock: MovedClock) -> None:
    scene = Scene(clock)
    delivery = scene.receive(redelivered=True, x_delivery_count=51)
    assert (scene.put_there, scene.put_apart, scene.asked) == ([], [], [])
    assert delivery.tag not in scene.bench.channel.unclaimed
    (copy,) = scene.bench.publisher.underway
    assert copy.publication.routing_key == "work"
    copy.confirm()
    assert scene.bench.flush()[-1] == ("ack", 1, False)


def test_a_message_that_the_supervisor_is_asked_about_can_still_be_requeued(clock: MovedClock) -> None:
    scene = Scene(clock)
    scene.receive(redelivered=True)
    scene.receiver.drain()
    assert scene.tick() == [1]


def test_a_replayed_dead_letter_is_treated_as_if_it_had_never_run(clock: MovedClock) -> None:
    scene = Scene(clock)
    letter = scene.receive(False, aw_dead_reason="crashed", aw_crashes=3, aw_attempt=4, aw_expires=1, shop="a")
    assert scene.put_there == [letter.tag], "nothing that it once did condemns it"
    headers = letter.properties.headers or {}
    assert set(headers) == {"shop", "aw-replayed"}
    assert time_of(headers["aw-replayed"]) == pytest.approx(time.time() * 1000, abs=60_000)


def test_a_replayed_dead_letter_that_is_redelivered_is_a_suspect_as_any_other(
    clock: MovedClock,
) -> None:
    scene = Scene(clock)
    scene.receive(True, aw_dead_reason="crashed", aw_crashes=3)
    scene.receiver.on_wake()
    assert len(scene.asked) == 1
    assert scene.put_there == scene.put_apart == [], "nothing is decided before the answer"
