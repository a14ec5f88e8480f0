"""The numbers of a connection's channels."""

from __future__ import annotations

import pytest

from amqpworker.broker.channel_numbers import MAX_CHANNELS, ChannelNumbers
from amqpworker.broker.connection import NoChannelLeft


def test_numbers_begin_with_the_one_that_publications_are_marshalled_for() -> None:
    numbers = ChannelNumbers()
    assert [numbers.take(5) for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_number_is_not_given_again_at_once() -> None:
    # pika drops a channel only after it has reported that it is closed, and then by its number
    numbers = ChannelNumbers()
    first = numbers.take(2047)
    numbers.release(first)
    assert numbers.take(2047) != first


def test_numbers_come_round_and_those_in_use_are_left_out() -> None:
    numbers = ChannelNumbers()
    kept = numbers.take(6)
    for _ in range(20):
        number = numbers.take(6)
        assert number != kept
        numbers.release(number)


def test_more_channels_than_there_are_numbers_is_an_error_that_names_the_limit() -> None:
    numbers = ChannelNumbers()
    taken = [numbers.take(4) for _ in range(4)]
    with pytest.raises(NoChannelLeft) as refused:
        numbers.take(4)
    assert refused.value.limit == 4
    numbers.release(taken[1])
    assert numbers.take(4) == taken[1]


def test_a_broker_without_a_limit_allows_as_many_as_there_are_numbers() -> None:
    numbers = ChannelNumbers()
    numbers._last = MAX_CHANNELS
    assert numbers.take(0) == 1
