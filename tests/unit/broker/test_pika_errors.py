"""What the end of a connection means: one sentence, and whether it helps to wait."""

from __future__ import annotations

import socket
import ssl

import pytest
from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import addresses
from amqpworker.broker.amqp.decode import FrameError
from amqpworker.broker.connection_problem import too_old
from amqpworker.broker.pika_errors import problem_of
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected
from amqpworker.settings import broker_url

(ADDRESS,) = addresses("amqp://me:sesame@broker.example/shop")

CASES: list[tuple[BaseException | None, str, str]] = [
    (ConnectionRefusedError(111, "Connection refused"), "unreachable", "Connection refused by broker.example:5672"),
    (socket.gaierror(-2, "Name or service not known"), "unreachable", "'broker.example', cannot be resolved"),
    (TimeoutError(), "unreachable", "No response from broker.example:5672"),
    (workflow.AMQPConnectorStackTimeout(), "unreachable", "No response from broker.example:5672"),
    (exceptions.ConnectionOpenAborted(320, "Timeout"), "unreachable", "No response from broker.example:5672"),
    (exceptions.StreamLostError("Stream connection lost"), "unreachable", "was lost"),
    (
        exceptions.StreamLostError(f"Stream connection lost: {BrokenPipeError(32, 'Broken pipe')!r}"),
        "unreachable",
        "to broker.example:5672 was lost: [Errno 32] Broken pipe.",
    ),
    (
        exceptions.StreamLostError("Transport indicated EOF"),
        "unreachable",
        "to broker.example:5672 was lost: the other side closed it.",
    ),
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


def test_a_broker_that_is_not_named_is_called_the_default_and_one_at_the_same_place_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    monkeypatch.delenv("AMQPWORKER_URL", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (named,), (default,) = addresses("amqp://guest:guest@localhost:5672/"), addresses(broker_url(None))
    assert problem_of(refused, named, was_open=False).text == "Connection refused by localhost:5672."
    text = problem_of(refused, default, was_open=False).text
    assert text == "Connection refused by localhost:5672, the default address: AMQPWORKER_URL is not set."
