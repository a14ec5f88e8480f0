"""What the end of a channel means: one sentence, and which error."""

from __future__ import annotations

import pytest

from amqpworker.broker.channel_errors import (
    DECLARED_ELSEWHERE,
    channel_error,
    does_not_exist,
    exchange_of,
    explain_mismatch,
)
from amqpworker.broker.connection import ChannelClosedByBroker, ConnectionEnded, NoChannelLeft
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected, SendError, Unroutable


@pytest.mark.parametrize(
    ("code", "text", "wanted", "told"),
    [
        (
            403,
            "ACCESS_REFUSED - access to exchange 'amqpworker.tasks' in vhost '/' refused",
            AccessRefused,
            "amqpworker.tasks",
        ),
        (404, "NOT_FOUND - no exchange 'amqpworker.tasks' in vhost '/'", Unroutable, "amqpworker.tasks"),
        (
            406,
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'work' in vhost '/': received the value "
                "'200' of type 'signedint' but current is the value '5' of type 'signedint'"
            ),
            ConfigError,
            "'work' in vhost '/' exists with x-delivery-limit = '5', but amqpworker declares '200'",
        ),
        (406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out", ConfigError, "timed out"),
        (405, "RESOURCE_LOCKED - cannot obtain exclusive access", SendError, "exclusive"),
        (403, "ACCESS_REFUSED - queue 'a' in vhost '/' in exclusive use", SendError, "exclusive use"),
        (506, "RESOURCE_ERROR - no more of it", SendError, "no more of it"),
    ],
)
def test_the_end_of_a_channel_is_an_error_with_the_reason(
    code: int, text: str, wanted: type[AmqpWorkerError], told: str
) -> None:
    error = channel_error(ChannelClosedByBroker(code, text), "declaring queue work", "configure")
    assert type(error) is wanted
    assert told in str(error)


@pytest.mark.parametrize(
    ("what", "right"), [("publishing", "write"), ("consuming from queue 'a'", "read"), ("declaring", "configure")]
)
def test_only_an_app_that_declares_is_advised_to_leave_that_to_another(what: str, right: str) -> None:
    text = "ACCESS_REFUSED - access to exchange 'a' in vhost '/' refused for user 'op'"
    closed = ChannelClosedByBroker(403, text)
    assert "DECLARE" not in str(channel_error(closed, what, right))
    assert "AMQPWORKER_DECLARE=0" in str(channel_error(closed, what, right, DECLARED_ELSEWHERE))


def test_a_connection_without_a_channel_left_is_an_error_with_the_number_that_is_needed() -> None:
    error = channel_error(NoChannelLeft(3), "consuming from queue 'a'", "read")
    assert type(error) is ConfigError
    assert "allows 3 per connection (channel_max)" in str(error)
    assert "one for each of its queues, two if the queue is bounded, and 2 more" in str(error)


@pytest.mark.parametrize(("named", "right"), [("", "read"), ("configure ", "configure")])
def test_a_missing_permission_is_named_if_its_name_is_asked_for(named: str, right: str) -> None:
    text = f"ACCESS_REFUSED - {named}access to queue 'a.dead' in vhost '/' refused for user 'op'"
    error = channel_error(ChannelClosedByBroker(403, text), "looking into queue 'a.dead'", "read")
    assert type(error) is AccessRefused
    assert f"user 'op' lacks the permission `{right}` on queue 'a.dead' in virtual host '/'" in str(error)
    assert "topology declare" not in str(error)


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (
            (
                "'x-delivery-limit' for queue 'emails' in vhost '/': received the value '200' of type 'signedint' "
                "but current is none"
            ),
            (
                "queue 'emails' in vhost '/' exists with x-delivery-limit = none, but amqpworker declares '200': "
                "empty and delete the queue, or use another queue name."
            ),
        ),
        (
            (
                "'x-max-length' for queue 'it's' in vhost 'shop': received none but current is the value '10' "
                "of type 'long'"
            ),
            (
                "queue \"it's\" in vhost 'shop' exists with max_length=10, but this app declares none: RabbitMQ cannot change "
                'that. Either use it as it is, by app.queue("it\'s", max_length=10), or with declare=False; or send to a queue '
                "with a new name, let workers empty the old one, and delete that (docs/topology.md: bounded queues)."
            ),
        ),
        (
            (
                "'x-max-length' for queue 'emails' in vhost '/': received the value '10' of type 'signedint' but current is "
                "none"
            ),
            (
                "queue 'emails' in vhost '/' exists without a bound, but this app declares max_length=10: RabbitMQ cannot "
                "change that. Either use it as it is, by app.queue('emails'), or with declare=False; or send to a queue with a "
                "new name, let workers empty the old one, and delete that (docs/topology.md: bounded queues)."
            ),
        ),
        (
            "'x-max-length' for queue 'emails' in vhost '/': received '7' but current is '10'",
            (
                "queue 'emails' in vhost '/' exists with max_length=10, but this app declares max_length=7: RabbitMQ cannot "
                "change that. Either use it as it is, by app.queue('emails', max_length=10), or with declare=False; or send to "
                "a queue with a new name, let workers empty the old one, and delete that (docs/topology.md: bounded queues)."
            ),
        ),
        (
            "'x-max-length' for queue 'emails' in vhost '/': received the value '10' of type 'signedint' but current is the v",
            (
                "queue 'emails' in vhost '/' exists with x-max-length = the v, but amqpworker declares '10': "
                "empty and delete the queue, or use another queue name."
            ),
        ),
        (
            "'type' for exchange 'amqpworker.due' in vhost '/': received 'direct' but current is 'fanout'",
            (
                "exchange 'amqpworker.due' in vhost '/' exists with type = 'fanout', but amqpworker declares 'direct': "
                "delete the exchange, or use another namespace."
            ),
        ),
    ],
)
def test_a_mismatch_is_reported_with_the_argument_and_both_values(refused: str, told: str) -> None:
    assert explain_mismatch(f"PRECONDITION_FAILED - inequivalent arg {refused}") == f"The {told}"


def test_a_mismatch_that_the_broker_cut_short_is_reported_as_far_as_it_is_known() -> None:
    text = (
        "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'emails' in vhost '/': "
        "received the value 'quorum' of type 'longstr' but current is the val..."
    )
    assert "x-queue-type = the val..., but amqpworker declares 'quorum'" in explain_mismatch(text)


def test_another_refusal_is_reported_as_it_is() -> None:
    text = "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'emails' in vhost '/'"
    assert explain_mismatch(text) == f"The broker refused a declaration: {text}"


@pytest.mark.parametrize(
    ("code", "text", "missing"),
    [
        (404, "NOT_FOUND - no queue 'a' in vhost '/'", True),
        (404, "NOT_FOUND - no exchange 'a' in vhost '/'", False),
        (404, "NOT_FOUND - queue 'a' in vhost '/' process is stopped by supervisor", False),
        (404, "NOT_FOUND - failed to perform operation on queue 'a' in vhost '/' due to timeout", False),
        (403, "ACCESS_REFUSED - access to queue 'no queue ' in vhost '/' refused for user 'x'", False),
    ],
)
def test_a_queue_that_is_down_is_distinguished_from_one_that_is_not_there(code: int, text: str, missing: bool) -> None:
    assert does_not_exist(ChannelClosedByBroker(code, text), "queue") is missing
    assert not does_not_exist(None, "queue")


def test_what_differs_is_reported_without_what_was_being_done() -> None:
    text = "PRECONDITION_FAILED - inequivalent arg 'x-a' for queue 'q' in vhost '/': received '1' but current is '2'"
    error = channel_error(ChannelClosedByBroker(406, text), "checking the topology", "read")
    assert str(error).startswith("The queue 'q' in vhost '/' exists with")


def test_a_channel_that_ends_with_its_connection_is_not_connected() -> None:
    error = channel_error(ConnectionEnded("CONNECTION_FORCED"), "publishing", "write")
    assert type(error) is NotConnected


def test_the_exchange_that_a_close_names_is_read() -> None:
    def named(text: str) -> str | None:
        return exchange_of(ChannelClosedByBroker(404, text))

    assert named("NOT_FOUND - no exchange 'a.b' in vhost '/'") == "a.b"
    assert named("ACCESS_REFUSED - access to exchange 'a' in vhost '/' refused for user 'x'") == "a"
    # What publications name as "", the broker calls by another name.
    assert named("ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'x'") == ""
    assert named("PRECONDITION_FAILED - fast reply consumer does not exist") is None
    assert exchange_of(RuntimeError()) is None
