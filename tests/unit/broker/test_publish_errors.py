"""What becomes of a publication that was not confirmed: "it did not arrive" is reported only if that is certain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.broker.channel_errors import max_message_size
from amqpworker.broker.connection import ChannelClosedByBroker
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publish_errors import (
    MAX_NACK_PAUSE,
    ResendDecision,
    decide_after_close,
    nacked,
    not_confirmed,
    not_connected,
    not_written,
    pause_after_nacks,
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


def pending(
    exchange: str = "tasks", requirements: tuple[Requirement, ...] = (), resend: bool = True, body: bytes = b"{}"
) -> PendingPublish:
    publication = Publication(exchange, "work", Properties(), body)
    return PendingPublish(publication, 10.0, requirements, resend=resend)


def decisions(
    told: AmqpWorkerError, exchange: str | None, in_flight: list[PendingPublish], most: int = UNBOUNDED
) -> list[ResendDecision]:
    decided = decide_after_close(told, exchange, most, in_flight)
    assert [one for one, _ in decided.decisions] == in_flight
    return [decision for _, decision in decided.decisions]


def test_a_missing_exchange_is_the_end_of_all_that_named_it_and_of_nothing_else() -> None:
    in_flight = [pending(), pending("due"), pending(), pending("")]
    told = Unroutable("gone")
    assert decisions(told, "tasks", in_flight) == [
        ResendDecision.FAIL,
        ResendDecision.RESEND,
        ResendDecision.FAIL,
        ResendDecision.RESEND,
    ]
    assert decide_after_close(told, "tasks", UNBOUNDED, in_flight).quarantined == "tasks"


def test_an_exchange_that_was_declared_here_is_declared_again_and_published_to_again() -> None:
    two = [pending(requirements=(WORK,)), pending(requirements=(WORK,))]
    assert decisions(Unroutable("gone"), "tasks", two) == [ResendDecision.RESEND, ResendDecision.RESEND]
    assert decide_after_close(Unroutable("gone"), "tasks", UNBOUNDED, two).quarantined is None


def bounded(declare: bool, delayed: bool = False) -> tuple[Requirement, ...]:
    plan = Plan("amqpworker", declare=True)
    plan.add_queue("work", max_length=10, declare=declare)
    return plan.requirements("work", delayed)


@pytest.mark.parametrize("declare", [True, False])
def test_only_new_work_meets_the_bound_of_its_queue(declare: bool) -> None:
    assert pending("amqpworker.tasks", bounded(declare)).is_bounded
    assert not pending("amqpworker.due", bounded(declare)).is_bounded
    assert not pending("amqpworker.delay.03", bounded(declare, delayed=True)).is_bounded
    assert not pending("amqpworker.tasks", (WORK,)).is_bounded


def test_a_missing_exchange_is_not_waited_for_by_an_app_that_only_knows_a_bound() -> None:
    two = [pending(requirements=bounded(declare=False)), pending(requirements=bounded(declare=False))]
    assert decisions(Unroutable("gone"), "tasks", two) == [ResendDecision.FAIL, ResendDecision.FAIL]
    declared = [pending(requirements=bounded(declare=True)) for _ in range(2)]
    assert decisions(Unroutable("gone"), "tasks", declared) == [ResendDecision.RESEND, ResendDecision.RESEND]


def test_a_call_is_asked_again_only_where_it_certainly_did_not_arrive() -> None:
    requirements = (WORK,)
    alone = [pending(requirements=requirements, resend=False)]
    assert decisions(Unroutable("gone"), "tasks", alone) == [ResendDecision.RESEND]
    two = [pending(requirements=requirements, resend=False), pending(requirements=requirements, resend=False)]
    assert decisions(Unroutable("gone"), "tasks", two) == [ResendDecision.UNKNOWN, ResendDecision.UNKNOWN]


def test_a_missing_permission_was_missing_all_the_time() -> None:
    in_flight = [pending(requirements=(WORK,)), pending(), pending("due")]
    assert decisions(AccessRefused("no"), "tasks", in_flight) == [
        ResendDecision.FAIL,
        ResendDecision.FAIL,
        ResendDecision.RESEND,
    ]


def test_a_message_above_the_brokers_limit_fails_alone() -> None:
    in_flight = [pending(), pending(body=b"x" * 17), pending(resend=False)]
    told = ConfigError("message size 17 is larger than configured max size 16")
    assert decisions(told, None, in_flight, most=16) == [
        ResendDecision.RESEND,
        ResendDecision.FAIL,
        ResendDecision.UNKNOWN,
    ]
    assert type(decide_after_close(told, None, 16, in_flight).error) is InvalidArguments


@pytest.mark.parametrize(
    "text",
    [
        "PRECONDITION_FAILED - message size 200 larger than max size 100",
        "PRECONDITION_FAILED - message size 200 is larger than configured max size 100",
    ],
)
def test_the_limit_is_read_from_the_texts_of_brokers(text: str) -> None:
    assert max_message_size(ChannelClosedByBroker(406, text)) == 100
    assert max_message_size(Exception("another")) is None


def test_if_the_broker_names_none_each_goes_out_alone_and_the_one_that_was_alone_fails() -> None:
    in_flight = [pending(), pending(resend=False)]
    assert decisions(ConfigError("odd"), None, in_flight) == [ResendDecision.RESEND_ALONE, ResendDecision.UNKNOWN]
    assert decisions(ConfigError("odd"), None, [pending()]) == [ResendDecision.FAIL]


@given(st.integers(1, 10_000))
def test_pauses_after_refusals_begin_with_none_and_grow_to_a_bound(nacks: int) -> None:
    assert pause_after_nacks(1) == 0
    assert pause_after_nacks(nacks) <= pause_after_nacks(nacks + 1) <= MAX_NACK_PAUSE


def test_the_error_contains_what_is_known() -> None:
    assert type(not_written(blocked=True, timeout=5)) is type(not_confirmed(blocked=True)) is ConnectionBlocked
    assert type(not_written(blocked=False, timeout=5)) is NotConnected
    assert type(not_confirmed(blocked=False)) is Unconfirmed
    assert str(not_connected(None, "host:1", 5)).endswith("within 5 s: still connecting to host:1.")
    refused = ConnectionProblem("Connection refused by host:1.", "unreachable", "host:1")
    assert (
        str(not_connected(refused, "host:1", 0.5))
        == "Could not connect to RabbitMQ within 0.5 s: connection refused by host:1."
    )
    named = ConnectionProblem("RabbitMQ at host:1 sent no heartbeat in time.", "unreachable", "host:1")
    assert "within 5 s: RabbitMQ at" in str(not_connected(named, "host:1", 5))
    assert type(nacked(pending(), bounded=True)) is QueueFull
    assert type(nacked(pending(), bounded=False)) is QueueUnavailable
    assert type(unroutable(pending())) is Unroutable
    assert "'work'" in str(unroutable(pending()))


def test_what_is_refused_may_have_arrived_if_an_earlier_confirm_of_it_was_lost() -> None:
    again = pending()
    again.lost_reason = "The connection broke."
    for error in (unroutable(again), nacked(again, bounded=True), nacked(again, bounded=False)):
        assert type(error) is Unconfirmed
        assert "The connection broke." in str(error)


def test_a_message_that_may_have_arrived_before_is_unknown_though_it_is_refused_now() -> None:
    lost, alone, fresh = pending(), pending(), pending()
    lost.lost_reason = "The connection was lost."
    alone.lost_reason, alone.may_have_closed_channel = "RabbitMQ closed the channel.", True
    told = AccessRefused("no")
    assert decisions(told, "tasks", [lost, alone, fresh]) == [
        ResendDecision.UNKNOWN,
        ResendDecision.FAIL,
        ResendDecision.FAIL,
    ]
    assert decisions(ConfigError("odd"), None, [lost]) == [ResendDecision.UNKNOWN]
