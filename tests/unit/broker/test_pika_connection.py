"""The connection's own rules, apart from the bytes: which number a channel gets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pika.exceptions import NoFreeChannels

from amqpworker.broker.pika_connection import PublicConnection


def connection(channel_max: int) -> PublicConnection:
    """Return a connection that was never made."""
    made = PublicConnection.__new__(PublicConnection)
    made.params = SimpleNamespace(channel_max=channel_max)
    made._numbers_in_use = set()
    made._last_number = 0
    return made


def test_numbers_begin_with_the_one_that_publications_are_marshalled_for() -> None:
    one = connection(5)
    assert [one.take_number() for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_number_is_not_given_again_at_once() -> None:
    # pika drops a channel only after it has told us that it is closed, and then by its number
    one = connection(2047)
    first = one.take_number()
    one.give_number(first)
    assert one.take_number() != first


def test_numbers_come_round_and_those_in_use_are_left_out() -> None:
    one = connection(6)
    kept = one.take_number()
    for _ in range(20):
        number = one.take_number()
        assert number != kept
        one.give_number(number)


def test_more_channels_than_there_are_numbers_is_an_error_that_open_channel_tells() -> None:
    one = connection(4)
    taken = [one.take_number() for _ in range(4)]
    with pytest.raises(NoFreeChannels):
        one.take_number()
    one.give_number(taken[1])
    assert one.take_number() == taken[1]
