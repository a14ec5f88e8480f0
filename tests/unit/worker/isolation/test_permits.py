"""The number of suspects that run at once is limited; the others wait until a permit is free, and none is forgotten."""

from __future__ import annotations

from amqpworker.model.message import Delivery
from amqpworker.worker.isolation.permits import Permits
from tests.unit.worker.settling import Bench


def deliveries(bench: Bench, count: int) -> list[Delivery]:
    return [bench.delivery() for _ in range(count)]


def test_a_released_permit_goes_to_the_delivery_that_has_waited_longest() -> None:
    permits = Permits(2)
    first, second, third, fourth = deliveries(Bench(), 4)
    assert [permits.acquire(one) for one in (first, second, third, fourth)] == [True, True, False, False]
    assert permits.waiting == 2
    assert permits.release() is third
    assert permits.acquire(third)
    assert permits.release() is fourth
    assert permits.acquire(fourth)
    assert permits.release() is None
    assert permits.waiting == 0


def test_a_delivery_that_was_requeued_while_it_waited_gets_no_permit() -> None:
    bench = Bench()
    permits = Permits(1)
    first, second, third = deliveries(bench, 3)
    assert [permits.acquire(one) for one in (first, second, third)] == [True, False, False]
    del bench.channel.unclaimed[second.tag]
    assert permits.release() is third


def test_taking_the_waiting_deliveries_leaves_out_those_that_were_requeued() -> None:
    bench = Bench()
    permits = Permits(1)
    first, second, third = deliveries(bench, 3)
    assert [permits.acquire(one) for one in (first, second, third)] == [True, False, False]
    del bench.channel.unclaimed[second.tag]
    assert permits.take_waiting() == [third]
    assert permits.waiting == 0
    assert permits.release() is None
