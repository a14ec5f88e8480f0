"""What becomes of a publication that was not confirmed: "it did not arrive" is said only where that is certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.broker.channel import Prepared
from amqpworker.broker.connection_errors import ConnectionProblem, max_message_size
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_errors import (
    LONGEST_REFUSAL_PAUSE,
    ResendDecision,
    after_close,
    not_confirmed,
    not_connected,
    not_taken,
    not_written,
    refusal_pause,
    unroutable,
)
from amqpworker.errors import (
    AccessRefused,
    AmqpWorkerError,
    ConfigError,
    ConnectionBlocked,
    InvalidArguments,
    NotConnected,
    QueueFull,
    QueueUnavailable,
    Unconfirmed,
    Unroutable,
)
from amqpworker.model.message import Properties, Publication
from amqpworker.routing.queues import Plan, Requirement

WORK = Plan("amqpworker", declare=True).ladder

UNBOUNDED = 1_000_000


def outgoing(
    exchange: str = "tasks", requirements: tuple[Requirement, ...] = (), resend: bool = True, body: bytes = b"{}"
) -> PendingPublish:
    publication = Publication(exchange, "work", Properties(), body)
    return PendingPublish(Prepared(publication, b"frames", 131_072), 0.0, requirements, resend=resend)


def verdicts(
    told: AmqpWorkerError, exchange: str | None, in_flight: list[PendingPublish], most: int = UNBOUNDED
) -> list[ResendDecision]:
    decided = after_close(told, exchange, most, in_flight)
    assert [one for one, _ in decided.verdicts] == in_flight
    return [verdict for _, verdict in decided.verdicts]


def test_a_missing_exchange_is_the_end_of_all_that_named_it_and_of_nothing_else() -> None:
    in_flight = [outgoing(), outgoing("due"), outgoing(), outgoing("")]
    told = Unroutable("gone")
    assert verdicts(told, "tasks", in_flight) == [
        ResendDecision.FAILS,
        ResendDecision.AGAIN,
        ResendDecision.FAILS,
        ResendDecision.AGAIN,
    ]
    assert after_close(told, "tasks", UNBOUNDED, in_flight).quarantined == "tasks"


def test_an_exchange_that_was_declared_here_is_declared_again_and_published_to_again() -> None:
    two = [outgoing(requirements=(WORK,)), outgoing(requirements=(WORK,))]
    assert verdicts(Unroutable("gone"), "tasks", two) == [ResendDecision.AGAIN, ResendDecision.AGAIN]
    assert after_close(Unroutable("gone"), "tasks", UNBOUNDED, two).quarantined is None


def test_a_call_is_asked_again_only_where_it_certainly_did_not_arrive() -> None:
    requirements = (WORK,)
    alone = [outgoing(requirements=requirements, resend=False)]
    assert verdicts(Unroutable("gone"), "tasks", alone) == [ResendDecision.AGAIN]
    two = [outgoing(requirements=requirements, resend=False), outgoing(requirements=requirements, resend=False)]
    assert verdicts(Unroutable("gone"), "tasks", two) == [ResendDecision.UNKNOWN, ResendDecision.UNKNOWN]


def test_a_right_that_is_missing_was_missing_all_the_time() -> None:
    in_flight = [outgoing(requirements=(WORK,)), outgoing(), outgoing("due")]
    assert verdicts(AccessRefused("no"), "tasks", in_flight) == [
        ResendDecision.FAILS,
        ResendDecision.FAILS,
        ResendDecision.AGAIN,
    ]


def test_a_message_above_the_brokers_limit_fails_alone() -> None:
    in_flight = [outgoing(), outgoing(body=b"x" * 17), outgoing(resend=False)]
    told = ConfigError("message size 17 is larger than configured max size 16")
    assert verdicts(told, None, in_flight, most=16) == [
        ResendDecision.AGAIN,
        ResendDecision.FAILS,
        ResendDecision.UNKNOWN,
    ]
    assert type(after_close(told, None, 16, in_flight).error) is InvalidArguments


@pytest.mark.parametrize(
    "text",
    [
        "PRECONDITION_FAILED - message size 200 larger than max size 100",
        "PRECONDITION_FAILED - message size 200 is larger than configured max size 100",
    ],
)
def test_the_limit_is_read_from_what_brokers_say(text: str) -> None:
    class Closed(Exception):
        reply_text = text

    assert max_message_size(Closed()) == 100
    assert max_message_size(Exception("another")) is None


def test_where_the_broker_names_nobody_each_goes_alone_and_the_one_that_was_alone_fails() -> None:
    in_flight = [outgoing(), outgoing(resend=False)]
    assert verdicts(ConfigError("odd"), None, in_flight) == [ResendDecision.ALONE, ResendDecision.UNKNOWN]
    assert verdicts(ConfigError("odd"), None, [outgoing()]) == [ResendDecision.FAILS]


@given(st.integers(1, 10_000))
def test_pauses_after_refusals_begin_with_none_and_grow_to_a_bound(refusals: int) -> None:
    assert refusal_pause(1) == 0
    assert refusal_pause(refusals) <= refusal_pause(refusals + 1) <= LONGEST_REFUSAL_PAUSE


def test_the_error_tells_what_is_known() -> None:
    assert type(not_written(blocked=True)) is type(not_confirmed(blocked=True)) is ConnectionBlocked
    assert type(not_written(blocked=False)) is NotConnected
    assert type(not_confirmed(blocked=False)) is Unconfirmed
    assert "still connecting" in str(not_connected(None, "host:1"))
    assert "host:1" in str(not_connected(None, "host:1")), "which broker"
    assert "Nothing listens" in str(not_connected(ConnectionProblem("Nothing listens.", "away", "host:1"), "host:1"))
    assert type(not_taken(outgoing(), bounded=True)) is QueueFull
    assert type(not_taken(outgoing(), bounded=False)) is QueueUnavailable
    assert type(unroutable(outgoing())) is Unroutable
    assert "'work'" in str(unroutable(outgoing()))


def test_what_is_refused_may_have_arrived_if_an_earlier_confirm_of_it_was_lost() -> None:
    again = outgoing()
    again.lost = "The connection broke."
    for error in (unroutable(again), not_taken(again, bounded=True), not_taken(again, bounded=False)):
        assert type(error) is Unconfirmed
        assert "The connection broke." in str(error)


def test_a_message_that_may_have_arrived_before_is_unknown_though_it_is_refused_now() -> None:
    lost, alone, fresh = outgoing(), outgoing(), outgoing()
    lost.lost = "The connection was lost."
    alone.lost, alone.alone = "RabbitMQ closed the channel.", True
    told = AccessRefused("no")
    assert verdicts(told, "tasks", [lost, alone, fresh]) == [
        ResendDecision.UNKNOWN,
        ResendDecision.FAILS,
        ResendDecision.FAILS,
    ]
    assert verdicts(ConfigError("odd"), None, [lost]) == [ResendDecision.UNKNOWN]
