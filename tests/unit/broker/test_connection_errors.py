"""What the end of a connection or a channel means: one sentence, and whether it helps to wait."""

from __future__ import annotations

import socket
import ssl

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import addresses
from amqpworker.broker.amqp.decode import FrameError
from amqpworker.broker.connection_errors import (
    DECLARED_ELSEWHERE,
    channel_error,
    does_not_exist,
    exchange_of,
    explain_mismatch,
    problem_of,
    too_old,
)
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected, SendError, Unroutable

(ADDRESS,) = addresses("amqp://me:sesame@broker.example/shop")

CASES: list[tuple[BaseException | None, str, str]] = [
    (ConnectionRefusedError(111, "Connection refused"), "unreachable", "Connection refused by broker.example:5672"),
    (socket.gaierror(-2, "Name or service not known"), "unreachable", "'broker.example', cannot be resolved"),
    (TimeoutError(), "unreachable", "No response from broker.example:5672"),
    (workflow.AMQPConnectorStackTimeout(), "unreachable", "No response from broker.example:5672"),
    (exceptions.ConnectionOpenAborted(320, "Timeout"), "unreachable", "No response from broker.example:5672"),
    (exceptions.StreamLostError("Stream connection lost"), "unreachable", "was lost"),
    (ConnectionResetError(104, "Connection reset by peer"), "unreachable", "was lost"),
    (
        exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED - shutdown"),
        "unreachable",
        "CONNECTION_FORCED - shutdown (320)",
    ),
    (exceptions.ConnectionClosedByBroker(541, "INTERNAL_ERROR - vhost 'shop' is down"), "unreachable", "is down"),
    (exceptions.ConnectionClosedByBroker(530, "NOT_ALLOWED - vhost shop not found"), "denied", "virtual host 'shop'"),
    (exceptions.ConnectionClosedByBroker(403, "ACCESS_REFUSED - Login was refused"), "denied", "login of user 'me'"),
    (exceptions.IncompatibleProtocolError("HTTP"), "incompatible", "does not speak AMQP 0-9-1"),
    (FrameError("what?"), "incompatible", "does not speak AMQP 0-9-1"),
    (
        ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
        "incompatible",
        "broker.example:5672 does not speak TLS",
    ),
    (ConfigError("The file is missing."), "incompatible", "The file is missing."),
    (RuntimeError("odd"), "unreachable", "odd"),
    (None, "unreachable", "ended"),
]


@pytest.mark.parametrize(("error", "kind", "told"), CASES)
def test_the_end_of_a_connection_is_one_sentence(error: BaseException | None, kind: str, told: str) -> None:
    wrapped: list[BaseException | None] = [error]
    if isinstance(error, Exception) and not isinstance(error, ConfigError):
        wrapped.append(workflow.AMQPConnectionWorkflowFailed([workflow.AMQPConnectorSocketConnectError(error)]))
    for each in wrapped:
        problem = problem_of(each, ADDRESS)
        assert (problem.kind, problem.broker) == (kind, "broker.example:5672")
        assert told in problem.text
        assert "sesame" not in problem.text
        assert problem.text.endswith((".", "?"))


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (ConnectionRefusedError(), NotConnected),
        (exceptions.ProbableAuthenticationError("ConnectionClosedByBroker: (403)"), AccessRefused),
        (exceptions.IncompatibleProtocolError("HTTP"), ConfigError),
    ],
)
def test_each_kind_is_an_error_of_its_own(error: BaseException, wanted: type[AmqpWorkerError]) -> None:
    assert type(problem_of(error, ADDRESS).error()) is wanted
    assert problem_of(error, ADDRESS).error() is not problem_of(error, ADDRESS).error()


def test_silence_is_not_taken_for_another_protocol() -> None:
    error = exceptions.IncompatibleProtocolError("StreamLostError")
    failed = workflow.AMQPConnectionWorkflowFailed([workflow.AMQPConnectorAMQPHandshakeError(error)])
    assert problem_of(failed, ADDRESS, has_received=True).kind == "incompatible"
    silent = problem_of(failed, ADDRESS, has_received=False)
    assert silent.kind == "unreachable"
    assert "closed the connection without a response" in silent.text


def test_a_connection_that_was_open_is_worth_another_try_whatever_ended_it() -> None:
    for error, _, _ in CASES:
        if not isinstance(error, ConfigError):
            assert problem_of(error, ADDRESS, was_open=True).kind == "unreachable", error


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
    error = channel_error(exceptions.ChannelClosedByBroker(code, text), "declaring queue work", "configure")
    assert type(error) is wanted
    assert told in str(error)


@pytest.mark.parametrize(
    ("what", "right"), [("publishing", "write"), ("consuming from queue 'a'", "read"), ("declaring", "configure")]
)
def test_only_an_app_that_declares_is_advised_to_leave_that_to_another(what: str, right: str) -> None:
    text = "ACCESS_REFUSED - access to exchange 'a' in vhost '/' refused for user 'op'"
    closed = exceptions.ChannelClosedByBroker(403, text)
    assert "DECLARE" not in str(channel_error(closed, what, right))
    assert "AMQPWORKER_DECLARE=0" in str(channel_error(closed, what, right, DECLARED_ELSEWHERE))


def test_a_connection_without_a_channel_left_is_an_error_with_the_number_that_is_needed() -> None:
    error = channel_error(exceptions.NoFreeChannels(3), "consuming from queue 'a'", "read")
    assert type(error) is ConfigError
    assert "allows 3 per connection (channel_max)" in str(error)
    assert "one for each of its queues and 2 more" in str(error)


@pytest.mark.parametrize(("named", "right"), [("", "read"), ("configure ", "configure")])
def test_a_missing_permission_is_named_if_its_name_is_asked_for(named: str, right: str) -> None:
    text = f"ACCESS_REFUSED - {named}access to queue 'a.dead' in vhost '/' refused for user 'op'"
    error = channel_error(exceptions.ChannelClosedByBroker(403, text), "looking into queue 'a.dead'", "read")
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
                "queue \"it's\" in vhost 'shop' exists with x-max-length = '10', but amqpworker declares none: "
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
    assert does_not_exist(exceptions.ChannelClosedByBroker(code, text), "queue") is missing
    assert not does_not_exist(None, "queue")


def test_what_differs_is_reported_without_what_was_being_done() -> None:
    text = "PRECONDITION_FAILED - inequivalent arg 'x-a' for queue 'q' in vhost '/': received '1' but current is '2'"
    error = channel_error(exceptions.ChannelClosedByBroker(406, text), "checking the topology", "read")
    assert str(error).startswith("The queue 'q' in vhost '/' exists with")


def test_a_channel_that_ends_with_its_connection_is_not_connected() -> None:
    error = channel_error(exceptions.ConnectionClosedByBroker(320, "CONNECTION_FORCED"), "publishing", "write")
    assert type(error) is NotConnected


def test_the_exchange_that_a_close_names_is_read() -> None:
    def named(text: str) -> str | None:
        return exchange_of(exceptions.ChannelClosedByBroker(404, text))

    assert named("NOT_FOUND - no exchange 'a.b' in vhost '/'") == "a.b"
    assert named("ACCESS_REFUSED - access to exchange 'a' in vhost '/' refused for user 'x'") == "a"
    # What publications name as "", the broker calls by another name.
    assert named("ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'x'") == ""
    assert named("PRECONDITION_FAILED - fast reply consumer does not exist") is None
    assert exchange_of(RuntimeError()) is None


@pytest.mark.parametrize("version", ["3.10.0", "3.10.8", "3.13.7", "4.0.5", "4.3.6", "10.0"])
def test_a_broker_of_today_is_taken(version: str) -> None:
    assert too_old({"product": "RabbitMQ", "version": version}) is None


@pytest.mark.parametrize(
    "told", [{"product": "RabbitMQ", "version": "3.9.29"}, {"product": "LavinMQ", "version": "2.0"}, {}]
)
def test_an_old_or_other_broker_is_refused(told: dict[str, str]) -> None:
    text = too_old(told)
    assert text is not None
    assert "3.10" in text
