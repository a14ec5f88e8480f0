"""Publications that go out alone: each once, none beside its time, and none in the way of the end of their publisher."""

from __future__ import annotations

import pytest

from amqpworker.broker.connection import ChannelClosedByBroker
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.errors import AccessRefused, ConfigError, NotConnected, Unconfirmed
from tests.unit.broker.publishing import Publishing, publication

UNKNOWN = ChannelClosedByBroker(406, "PRECONDITION_FAILED")
REFUSED = ChannelClosedByBroker(403, "ACCESS_REFUSED - access to exchange 'e' in vhost '/' refused")


def close_publish_channel(scene: Publishing, error: Exception) -> None:
    """Have the broker close the channel of what was written, and let the pause before the next one pass."""
    scene.write()
    scene.wire.channels[0].close(error)
    scene.wire.written = 0
    scene.thread.pass_time()


def two_sends(scene: Publishing) -> tuple[PendingPublish, PendingPublish]:
    """Publish two messages that may be resent, and have the broker close their channel: either may be the reason."""
    first, second = (scene.publisher.sends.publish(publication(), timeout=10) for _ in range(2))
    close_publish_channel(scene, UNKNOWN)
    return first, second


def copy_alone(scene: Publishing) -> PendingPublish:
    """Publish a copy for an exchange that has refused another one; it waits for its channel."""
    refused = scene.publisher.copies.publish(publication())
    close_publish_channel(scene, REFUSED)
    assert isinstance(refused.error, AccessRefused)
    copy = scene.publisher.copies.publish(publication(), timeout=10)
    scene.publisher.on_wake()
    scene.wire.answer()
    scene.publisher.on_wake()
    assert scene.wire.written == 0
    return copy


@pytest.fixture
def scene() -> Publishing:
    return Publishing()


def test_what_may_have_closed_its_channel_goes_out_alone_and_is_confirmed_there(scene: Publishing) -> None:
    both = two_sends(scene)
    scene.write()
    assert scene.wire.written == 2
    for channel in list(scene.wire.listeners):
        scene.wire.confirm(1, channel=channel)
    assert all(one.done and one.error is None for one in both)
    assert scene.publisher.is_idle


def test_what_was_in_flight_alone_is_published_again_once(scene: Publishing) -> None:
    two_sends(scene)
    scene.write()
    scene.reconnect()
    assert scene.wire.written == 2


def test_what_was_in_flight_alone_and_must_not_run_twice_is_not_published_again(scene: Publishing) -> None:
    copy = copy_alone(scene)
    scene.write()
    assert scene.wire.written == 1
    scene.reconnect()
    assert isinstance(copy.error, Unconfirmed)
    assert scene.wire.written == 0


def test_what_waited_for_its_channel_waits_for_the_next_connection(scene: Publishing) -> None:
    copy = copy_alone(scene)
    scene.lose()
    assert not copy.done
    scene.reconnect()
    assert scene.wire.written == 1


def test_what_was_alone_and_not_confirmed_in_time_takes_the_place_of_no_other(scene: Publishing) -> None:
    first, second = two_sends(scene)
    scene.write()
    scene.publisher.sends.on_tick(max(first.deadline, second.deadline) + 1)
    assert isinstance(first.error, Unconfirmed)
    assert [channel.is_open for channel in scene.wire.channels[1:]].count(True) <= 1, "only that of the lane"
    assert scene.publisher.is_idle


def test_what_is_not_wanted_any_more_is_not_written_alone(scene: Publishing) -> None:
    copy = copy_alone(scene)
    copy.wanted = lambda: False
    scene.write()
    assert scene.wire.written == 0
    assert isinstance(copy.error, NotConnected)
    assert scene.publisher.is_idle


def test_many_that_find_no_channel_all_end(scene: Publishing) -> None:
    many = [scene.publisher.sends.publish(publication()) for _ in range(2000)]
    scene.write()
    scene.wire.max_channels = 0
    scene.wire.channels[0].close(UNKNOWN)
    scene.write()
    assert all(isinstance(one.error, ConfigError) for one in many)
    assert scene.publisher.is_idle
