"""When a subscription to a stream is stuck."""

from __future__ import annotations

from amqpworker.broker.address import addresses
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.stream_channel import StreamChannel
from amqpworker.broker.stream_follower import StreamFollower
from amqpworker.settings import Settings

URL = "amqp://127.0.0.1:1/"


def channel() -> StreamChannel:
    follower = StreamFollower(addresses(URL), Settings(), [])
    keeper: IOThread = follower.keeper
    return StreamChannel("first", False, keeper, lambda _: None)


def test_a_stream_that_grows_while_nothing_is_delivered_is_stuck_from_the_third_check_on() -> None:
    one = channel()
    assert not one.is_stuck(0)
    assert not one.is_stuck(5), "the count may be late"
    assert not one.is_stuck(5)
    assert one.is_stuck(6)


def test_a_stream_that_delivers_is_never_stuck() -> None:
    one = channel()
    for count in range(5):
        one.last_offset = count
        assert not one.is_stuck(count)


def test_a_missing_count_shows_nothing() -> None:
    one = channel()
    assert not any(one.is_stuck(count) for count in (None, None, 7, None, 7))
