"""The ends of a publisher: what waits is seen at every moment, and what was closed stays closed."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

from amqpworker.broker.address import addresses
from amqpworker.broker.connection_errors import ConnectionProblem
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_channel import PublishChannel
from amqpworker.broker.publisher import Publisher
from amqpworker.client.calls import Calls
from amqpworker.errors import NotConnected, Unconfirmed
from amqpworker.model.message import Properties, Publication
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings

GONE = ConnectionProblem("gone.", "unreachable", "localhost:1")


def new_publisher() -> Publisher:
    return Publisher(addresses("amqp://localhost:1"), Settings(), Calls())


def pending(resend: bool = True) -> PendingPublish:
    one = PendingPublish(
        Publication("e", "k", Properties(), b""), 10, (Plan("amqpworker", declare=True).ladder,), resend=resend
    )
    one.encode(1, 4096)
    return one


def test_what_is_held_for_its_queue_is_under_way_while_the_connection_is_lost() -> None:
    """It waits for the next connection: whoever closes meanwhile has to wait for it."""
    publisher = new_publisher()
    held = pending()
    publisher.sends._parked.add(held)
    publisher.on_lost(GONE)
    assert not publisher.is_idle
    assert not held.done


def in_flight(publisher: Publisher, lane_name: str, one: PendingPublish) -> PendingPublish:
    lane = getattr(publisher, lane_name)
    lane._current = PublishChannel(lane, lane)
    lane._current.add(one)
    return one


def test_what_was_in_flight_waits_for_the_next_connection_and_is_unconfirmed_if_there_is_none() -> None:
    publisher = new_publisher()
    sent = in_flight(publisher, "sends", pending())
    publisher.on_lost(GONE)
    assert not sent.done
    assert not publisher.is_idle
    publisher._closed = True
    publisher.on_lost(GONE)
    assert isinstance(sent.error, Unconfirmed)
    assert publisher.is_idle


def test_a_message_that_was_in_flight_once_is_unconfirmed_when_its_time_is_over() -> None:
    publisher = new_publisher()
    sent = in_flight(publisher, "sends", pending())
    never_left = pending()
    publisher.sends._inbox.append(never_left)
    publisher.on_lost(GONE)
    publisher.sends.on_tick(time.monotonic() + 11)
    assert isinstance(sent.error, Unconfirmed)
    assert isinstance(never_left.error, NotConnected)


def test_a_call_that_was_in_flight_is_unconfirmed_at_once() -> None:
    publisher = new_publisher()
    asked = in_flight(publisher, "calls", pending(resend=False))
    publisher.on_lost(GONE)
    assert isinstance(asked.error, Unconfirmed)


def test_a_publisher_that_was_closed_before_its_first_message_never_connects() -> None:
    publisher = new_publisher()
    assert publisher.close(1)
    publisher.start()
    assert publisher.io.join(10)
    assert "amqpworker-publisher" not in [thread.name for thread in threading.enumerate()]


def test_what_is_published_after_the_last_look_into_the_inbox_fails_at_once() -> None:
    publisher = new_publisher()
    publisher._started = publisher.io.has_ended = True
    assert publisher.broken
    sent = publisher.sends.publish(Publication("e", "k", Properties(), b""))
    assert isinstance(sent.error, NotConnected)


def test_what_comes_in_while_it_closes_is_left_to_the_thread_that_may_be_writing_it() -> None:
    """Else it may arrive, and its sender be told that it never left."""
    publisher = new_publisher()
    publisher._started = publisher._closed = True
    sent = publisher.sends.publish(Publication("e", "k", Properties(), b""))
    assert not sent.done
    publisher.on_lost(GONE)
    assert isinstance(sent.error, NotConnected)


def test_copies_that_are_not_confirmed_for_long_keep_no_room_from_those_for_other_queues() -> None:
    lane = new_publisher().copies
    channel = lane._current = PublishChannel(lane, lane)
    room = channel.room()
    channel.add(one := pending(resend=False))
    assert channel.room() < room
    for _ in range(2):
        lane.on_tick(one.deadline + 1)
    assert channel.room()[1] == room[1]
    assert not one.done
    channel.on_confirm(1, False, True)
    assert one.done
    assert channel.room() == room


def test_what_is_not_wanted_any_more_is_never_written() -> None:
    publisher = new_publisher()
    publisher.session.declarer = SimpleNamespace(declared=set())  # type: ignore[assignment]
    lane = publisher.copies
    channel = PublishChannel(lane, lane)
    dropped = PendingPublish(Publication("e", "k", Properties(), b""), 10)
    dropped.wanted = lambda: False
    lane._inbox.append(dropped)
    assert lane._take_batch(channel) == []
    assert isinstance(dropped.error, NotConnected)
    assert lane.is_idle


def test_what_is_late_keeps_no_room_and_its_confirm_harms_nothing() -> None:
    lane = new_publisher().sends
    channel = PublishChannel(lane, lane)
    late = pending()
    channel.add(late)
    channel.expire(late.deadline + 1, lambda: Unconfirmed("late"))
    assert isinstance(late.error, Unconfirmed)
    assert not channel.is_busy
    channel.on_confirm(1, False, True)
    assert isinstance(late.error, Unconfirmed)
    assert channel.take_in_flight() == []


def test_a_channel_has_room_however_many_were_late_on_it() -> None:
    """A queue without a majority confirms nothing for hours, and other queues' messages go by the same channel."""
    lane = new_publisher().sends
    channel = PublishChannel(lane, lane)
    one = pending()
    room = channel.room()
    for _ in range(20):
        for _ in range(4096):
            channel.add(one)
        channel.expire(one.deadline + 1, lambda: Unconfirmed("late"))
    assert channel.room() == room


def test_who_fails_when_told_keeps_no_other_from_the_confirm_of_both() -> None:
    def fail(_: object) -> None:
        raise LookupError("a mistake")

    lane = new_publisher().sends
    channel = PublishChannel(lane, lane)
    first, second = pending(), pending()
    first.on_done = fail
    channel.add(first)
    channel.add(second)
    channel.on_confirm(2, True, True)
    assert first.done
    assert second.done


def test_what_is_overdue_is_counted_while_the_thread_of_the_connection_goes_on() -> None:
    """The main thread of a worker counts, and ends with whatever is raised there."""
    lane = new_publisher().copies
    channel = lane._current = PublishChannel(lane, lane)
    one = pending(resend=False)
    for _ in range(1000):
        channel.add(one)
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            channel.add(one)
            channel.on_confirm(channel._next_tag - 1, False, True)

    thread = threading.Thread(target=go_on)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(1000):
            assert lane.overdue(one.deadline - 1) == 0
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
