"""When a consumer asks the broker for an ack timeout of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker.broker.ack_timeout import (
    ack_timeout_arguments,
    ack_timeout_that_closed,
    cancels_after_ack_timeout,
    refuses_ack_timeout,
)
from amqpworker.broker.connection import ChannelClosedByBroker, ConnectionEnded
from amqpworker.broker.pika_connection import version_of
from amqpworker.settings import Settings

TOLD = "PRECONDITION_FAILED - invalid arg 'x-consumer-timeout' for queue 'q' in vhost '/' of queue type rabbit_classic_queue"


def told(version: str | None) -> tuple[int, ...]:
    connection: Any = SimpleNamespace(server_properties={"version": version})
    return version_of(connection)


@pytest.mark.parametrize("version", ["4.3.0", "4.3.6", "4.10.1", "5.0.0-rc.1"])
def test_one_that_was_given_is_asked_for_where_the_broker_heeds_it(version: str) -> None:
    assert ack_timeout_arguments(Settings(ack_timeout=7200), told(version)) == {"x-consumer-timeout": 7_200_000}


@pytest.mark.parametrize("version", ["3.10.8", "3.13.7", "4.2.9", "", None])
def test_a_broker_that_does_not_heed_it_is_not_asked(version: str | None) -> None:
    assert ack_timeout_arguments(Settings(ack_timeout=7200), told(version)) == {}


@pytest.mark.parametrize("properties", [None, {}])
def test_a_broker_without_a_version_counts_as_the_oldest(properties: Any) -> None:
    connection: Any = SimpleNamespace(server_properties=properties)
    assert version_of(connection) == ()


def test_our_own_default_is_not_asked_for() -> None:
    assert ack_timeout_arguments(Settings(), (4, 3)) == {}


def test_one_from_the_environment_is_given_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMQPWORKER_ACK_TIMEOUT", "0.0001")
    assert ack_timeout_arguments(Settings(), (4, 3)) == {"x-consumer-timeout": 1}, "0 would cancel at once"


def test_a_refusal_is_distinguished_from_others() -> None:
    assert refuses_ack_timeout(ChannelClosedByBroker(406, TOLD))
    assert not refuses_ack_timeout(ChannelClosedByBroker(406, "PRECONDITION_FAILED - inequivalent arg"))
    assert not refuses_ack_timeout(ConnectionEnded("x-consumer-timeout"))


LATE = (
    "PRECONDITION_FAILED - delivery acknowledgement on channel 3 timed out. Timeout value used: 6000 ms. This timeout "
    "value can be configured, see consumers doc guide to learn more"
)


def test_a_channel_that_was_closed_by_the_ack_timeout_is_recognized_with_the_timeout() -> None:
    assert ack_timeout_that_closed(ChannelClosedByBroker(406, LATE), 1800.0) == 6.0
    assert ack_timeout_that_closed(ChannelClosedByBroker(406, LATE.partition(".")[0]), 1800.0) == 1800.0
    assert (
        ack_timeout_that_closed(ChannelClosedByBroker(406, "PRECONDITION_FAILED - unknown delivery tag 7"), 1800.0)
        is None
    )
    assert ack_timeout_that_closed(ConnectionEnded(LATE), 1800.0) is None
    assert [cancels_after_ack_timeout(told(version)) for version in ("3.13.7", "4.2.9", "4.3.0")] == [
        False,
        False,
        True,
    ]
