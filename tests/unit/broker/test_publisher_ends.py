"""The ends of a publisher: what waits is seen at every moment, and what was closed stays closed."""

from __future__ import annotations

import sys
import threading
import time

from amqpworker.broker.publish_channel import MAX_BYTES_IN_FLIGHT, MAX_IN_FLIGHT
from amqpworker.broker.publisher import Publisher
from amqpworker.client.calls import Calls
from amqpworker.errors import NotConnected, Unconfirmed
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings
from tests.unit.broker.publishing import ADDRESSES, Publishing, publication

LADDER = (Plan("amqpworker", declare=True).ladder,)


def test_what_waits_for_its_queue_is_under_way_while_the_connection_is_lost() -> None:
    """It waits for the next connection: a `close` meanwhile has to wait for it."""
    scene = Publishing()
    waiting = scene.publisher.sends.publish(publication(), LADDER)
    scene.write()
    assert not scene.publisher.is_idle
    scene.lose()
    assert scene.wire.written == 0
    assert not scene.publisher.is_idle
    assert not waiting.done


def test_what_was_in_flight_waits_for_the_next_connection_and_is_unconfirmed_if_there_is_none() -> None:
    scene = Publishing()
    sent = scene.publisher.sends.publish(publication())
    scene.write()
    assert scene.wire.written == 1
    scene.lose()
    assert not sent.done
    assert not scene.publisher.is_idle
    scene.thread.end()
    assert isinstance(sent.error, Unconfirmed)
    assert scene.publisher.is_idle


def test_what_was_in_flight_is_written_again_on_the_next_connection_and_confirmed_there() -> None:
    scene = Publishing()
    first, second = (scene.publisher.sends.publish(publication()) for _ in range(2))
    scene.write()
    scene.wire.confirm(1)
    scene.reconnect()
    assert scene.wire.written == 1
    scene.wire.confirm(1)
    assert (first.done, second.done, second.error) == (True, True, None)
    assert scene.publisher.is_idle


def test_a_message_that_was_in_flight_once_is_unconfirmed_when_its_time_is_over() -> None:
    scene = Publishing()
    sent = scene.publisher.sends.publish(publication(), timeout=10)
    scene.write()
    never_left = scene.publisher.sends.publish(publication(), timeout=10)
    scene.lose()
    scene.publisher.sends.on_tick(time.monotonic() + 11)
    assert isinstance(sent.error, Unconfirmed)
    assert isinstance(never_left.error, NotConnected)


def test_a_call_that_was_in_flight_is_unconfirmed_at_once() -> None:
    scene = Publishing()
    call = scene.publisher.calls.publish(publication())
    scene.write()
    scene.lose()
    assert isinstance(call.error, Unconfirmed)


def test_a_publisher_that_was_closed_before_its_first_message_never_connects() -> None:
    publisher = Publisher(ADDRESSES, Settings(), Calls())
    assert publisher.close(1)
    publisher.start()
    assert publisher.keeper.join(10)
    assert "amqpworker-publisher" not in [thread.name for thread in threading.enumerate()]


def test_what_is_published_after_the_last_check_of_the_inbox_fails_at_once() -> None:
    scene = Publishing(connected=False)
    scene.thread.end()
    assert scene.publisher.broken
    sent = scene.publisher.sends.publish(publication())
    assert isinstance(sent.error, NotConnected)


def test_what_is_published_while_it_closes_is_left_to_the_thread_that_may_be_writing_it() -> None:
    """Else it may arrive, and its sender would learn that it never left."""
    scene = Publishing()
    scene.publisher.close(0)
    sent = scene.publisher.sends.publish(publication())
    assert not sent.done
    scene.thread.end()
    assert isinstance(sent.error, NotConnected)


def test_copies_that_are_not_confirmed_for_long_keep_no_room_from_those_for_other_queues() -> None:
    scene = Publishing()
    copies = scene.publisher.copies
    large = publication(b"x" * (MAX_BYTES_IN_FLIGHT // 4))
    first, *_ = [copies.publish(large, timeout=10) for _ in range(4)]
    scene.write()
    for _ in range(2):
        copies.on_tick(first.deadline + 1)
    for _ in range(5):
        copies.publish(large)
    scene.write()
    assert scene.wire.written == 4 + 4
    assert not first.done
    scene.wire.confirm(1)
    assert (first.done, first.error) == (True, None)
    scene.write()
    assert scene.wire.written == 4 + 4, "its size is not counted twice"


def test_what_is_not_wanted_any_more_is_never_written() -> None:
    scene = Publishing()
    dropped = scene.publisher.copies.make_pending(publication())
    dropped.wanted = lambda: False
    scene.publisher.copies.submit(dropped)
    scene.write()
    assert scene.wire.written == 0
    assert isinstance(dropped.error, NotConnected)
    assert scene.publisher.is_idle


def test_a_confirm_of_what_was_late_harms_nothing() -> None:
    scene = Publishing()
    late = scene.publisher.sends.publish(publication())
    scene.write()
    scene.publisher.sends.on_tick(late.deadline + 1)
    assert isinstance(late.error, Unconfirmed)
    assert scene.publisher.is_idle
    scene.wire.confirm(1)
    scene.lose()
    assert isinstance(late.error, Unconfirmed)
    assert scene.publisher.is_idle


def test_a_channel_has_room_however_many_were_late_on_it() -> None:
    """A queue without a majority confirms nothing for hours, and other queues' messages go by the same channel."""
    scene = Publishing()
    sends = scene.publisher.sends
    for count in (1, 2, 3):
        last = [sends.publish(publication()) for _ in range(MAX_IN_FLIGHT + 1)][-1]
        scene.write()
        assert scene.wire.written == count * MAX_IN_FLIGHT
        sends.on_tick(last.deadline + 1)


def test_a_callback_that_raises_keeps_no_other_from_the_confirm_of_both() -> None:
    def fail(_: object) -> None:
        raise LookupError("a mistake")

    scene = Publishing()
    first = scene.publisher.sends.publish(publication(), on_done=fail)
    second = scene.publisher.sends.publish(publication())
    scene.write()
    scene.wire.confirm(2, multiple=True)
    assert first.done
    assert second.done


def test_what_is_overdue_is_counted_while_the_thread_of_the_connection_continues() -> None:
    """The main thread of a worker counts, and ends with whatever is raised there."""
    scene = Publishing()
    copies = scene.publisher.copies
    first, *_ = [copies.publish(publication(), timeout=10) for _ in range(1000)]
    scene.write()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            copies.publish(publication(), timeout=10)
            scene.publisher.on_wake()
            scene.wire.confirm(scene.wire.written)

    thread = threading.Thread(target=work)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(1000):
            assert copies.overdue(first.deadline - 1) == 0
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
