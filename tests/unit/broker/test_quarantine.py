"""Publications that go out alone: each once, none beside its time, and none in the way of the end of their publisher."""

from __future__ import annotations

import time
from types import SimpleNamespace

from pika.exceptions import NoFreeChannels

from amqpworker.broker.address import addresses
from amqpworker.broker.connection_errors import ConnectionProblem
from amqpworker.broker.lane import Lane
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_channel import PublishChannel
from amqpworker.broker.publisher import Publisher
from amqpworker.client.calls import Calls
from amqpworker.errors import ConfigError, NotConnected, Unconfirmed
from amqpworker.model.message import Properties, Publication
from amqpworker.settings import Settings

GONE = ConnectionProblem("gone.", "unreachable", "localhost:1")


def new_publisher() -> Publisher:
    return Publisher(addresses("amqp://localhost:1"), Settings(), Calls())


def pending(resend: bool = True) -> PendingPublish:
    one = PendingPublish(Publication("e", "k", Properties(), b""), time.monotonic() + 10, resend=resend)
    one.encode(1, 4096)
    return one


def alone(lane: Lane, one: PendingPublish, written: bool = True) -> PublishChannel:
    """Have a publication go out alone, on a channel that is open if it is `written`."""
    channel = PublishChannel(lane, lane._quarantine)
    lane._quarantine._channels[channel] = one
    if written:
        channel.add(one)
    return channel


def test_what_was_in_flight_alone_is_published_again_once() -> None:
    publisher = new_publisher()
    alone(publisher.sends, one := pending())
    publisher.on_lost(GONE)
    assert list(publisher.sends._inbox) == [one]


def test_what_was_in_flight_alone_and_must_not_run_twice_is_not_published_again() -> None:
    publisher = new_publisher()
    alone(publisher.copies, one := pending(resend=False))
    publisher.on_lost(GONE)
    assert isinstance(one.error, Unconfirmed)
    assert not publisher.copies._inbox


def test_what_waited_for_its_channel_waits_for_the_next_connection() -> None:
    publisher = new_publisher()
    alone(publisher.copies, one := pending(resend=False), written=False)
    publisher.on_lost(GONE)
    assert not one.done
    assert list(publisher.copies._inbox) == [one]


def test_what_was_alone_and_not_confirmed_in_time_takes_the_place_of_no_other() -> None:
    publisher = new_publisher()
    alone(publisher.sends, one := pending())
    publisher.sends.on_tick(one.deadline + 1)
    assert isinstance(one.error, Unconfirmed)
    assert not publisher.sends._quarantine.channels
    assert publisher.is_idle


def test_what_is_not_wanted_any_more_is_not_written_alone() -> None:
    lane = new_publisher().copies
    channel = alone(lane, one := pending(resend=False), written=False)
    one.wanted = lambda: False
    channel._channel = SimpleNamespace(number=1, close=lambda: None)  # type: ignore[assignment]
    lane._quarantine.on_ready(channel)
    assert isinstance(one.error, NotConnected)
    assert lane.is_idle


def test_many_that_find_no_channel_all_end() -> None:
    publisher = new_publisher()

    def take_channel_number() -> int:
        raise NoFreeChannels(5)

    connection = SimpleNamespace(is_open=True, take_channel_number=take_channel_number, channel=lambda **_: None)
    publisher.session.connection = connection  # type: ignore[assignment]
    many = [pending() for _ in range(2000)]
    for one in many:
        publisher.sends._quarantine.add(one)
    publisher.sends._quarantine.start()
    assert all(isinstance(one.error, ConfigError) for one in many)
    assert publisher.is_idle
