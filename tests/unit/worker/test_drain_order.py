"""A drain sees every delivery at every moment: waiting, running, or on its way to be settled; never as nothing at all."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from amqpworker.broker.address import addresses
from amqpworker.broker.consumer import Consumer
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Done, Requeue
from amqpworker.settings import Settings
from amqpworker.worker.stop_request import StopRequest
from amqpworker.worker.threads import Concurrency, RunnerThreads
from tests.support import wait_until
from tests.unit.worker.settling import RETRY, Bench, IgnoringReceiver, registered


class Watched(dict[int, Delivery]):
    """Deliveries that are not started; `at_claim` is called when one is claimed."""

    def __init__(self, at_claim: Callable[[], None]) -> None:
        super().__init__()
        self.at_claim = at_claim

    def pop(self, *arguments: Any) -> Any:
        self.at_claim()
        return super().pop(*arguments)


def plain() -> None:
    """Do nothing."""


async def asynchronous() -> None:
    """Do nothing."""


@pytest.mark.parametrize("function", [plain, asynchronous])
def test_a_delivery_counts_as_running_before_it_is_claimed(function: Callable[..., Any]) -> None:
    bench = Bench(stores=False, tasks={"example": registered(function)})
    runners = RunnerThreads(bench.pipeline, Concurrency(1, 1))
    idle: list[bool] = []
    bench.channel.unclaimed = Watched(lambda: idle.append(runners.is_idle))
    runners.start()
    runners.put(bench.delivery())
    wait_until(lambda: idle and runners.is_idle, 10)
    runners.stop()
    assert idle == [False]
    assert bench.flush() == [("ack", 1, False)]


def test_deliveries_that_were_not_started_are_requeued_before_the_consumer_is_drained() -> None:
    """A delivery may have arrived right before the broker confirmed the end of the subscription."""
    steps: list[str] = []

    class Notes(IgnoringReceiver):
        def on_wake(self) -> None:
            steps.append("settled")

    consumer = Consumer(addresses("amqp://localhost"), Settings(), [], Notes())
    consumer.drain(lambda: steps.append("drained"))
    consumer.on_wake()
    assert steps[:2] == ["settled", "drained"]


def test_a_copy_that_is_confirmed_during_the_check_does_not_make_the_settler_idle() -> None:
    bench = Bench()
    delivery = bench.delivery()
    bench.settler.settle(delivery, RETRY, bench.started(delivery))

    class Slow(set[Delivery]):
        def __len__(self) -> int:
            if bench.publisher.underway:
                bench.publisher.confirm()
            return super().__len__()

    bench.settler._replying = Slow()
    assert not bench.settler.is_idle


def test_deliveries_can_be_requeued_while_others_are_settled() -> None:
    """By runner threads, at any moment: the acknowledgements of other queues must leave all the same."""
    bench = Bench()
    acknowledged, requeued = bench.delivery(), bench.delivery()

    class Meanwhile:
        """A delivery during whose settling another thread requeues one."""

        tag = bench.delivery().tag

        @property
        def channel(self) -> Any:
            if all(settled.delivery is not requeued for settled in bench.settler._requeues):
                bench.settler.settle(requeued, Requeue())
            return bench.channel

    bench.settler.settle(acknowledged, Done())
    bench.settler.settle(Meanwhile(), Requeue())  # type: ignore[arg-type]
    assert ("ack", 1, False) in bench.flush()


def test_a_signal_can_arrive_at_any_moment_of_the_wait_for_it() -> None:
    """The handler runs in the thread that waits, between any two of its steps: it must not wait for a lock there."""
    wish = StopRequest()

    def interrupt(_frame: FrameType, _event: str, _argument: object) -> Any:
        wish.set()
        return interrupt

    def wait() -> None:
        sys.settrace(interrupt)
        wish.wait(0.01)
        sys.settrace(None)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(5)
    assert not waiting.is_alive()
    assert wish.is_set()
    assert wish.wait(0)
