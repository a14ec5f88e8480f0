"""What aiormq's errors of a connection mean: the same sentences as those of pika, and no circle is followed for ever."""

from __future__ import annotations

import socket

import pytest
from aiormq import exceptions

from amqpworker.broker import pika_errors
from amqpworker.broker.address import addresses
from amqpworker.broker.aio_errors import problem_of
from amqpworker.broker.amqp.decode import FrameError

(ADDRESS,) = addresses("amqp://me:sesame@broker.example/shop")


def test_a_circle_of_errors_as_aiormq_makes_one_is_explained() -> None:
    one, another = exceptions.AMQPConnectionError("reset"), ConnectionResetError(104, "Connection reset by peer")
    one.__context__, another.__context__ = another, one
    problem = problem_of(one, ADDRESS)
    assert problem.kind == "unreachable"
    assert "was lost" in problem.text


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(111, "Connection refused"),
        socket.gaierror(-2, "Name or service not known"),
        TimeoutError(),
        FrameError("not a frame"),
        None,
    ],
)
def test_an_error_of_the_system_means_the_same_with_both_libraries(error: BaseException | None) -> None:
    if error is None:
        assert problem_of(None, ADDRESS).kind == pika_errors.problem_of(None, ADDRESS).kind
    else:
        assert problem_of(error, ADDRESS) == pika_errors.problem_of(error, ADDRESS)


def test_another_server_is_recognized_although_aiormq_reports_that_the_connection_was_lost() -> None:
    def decode() -> None:
        try:
            raise exceptions.AMQPConnectionError("Read 0 bytes but 1 bytes expected")
        except exceptions.AMQPConnectionError:
            raise FrameError("not a frame") from None

    with pytest.raises(FrameError) as caught:
        decode()
    assert problem_of(caught.value, ADDRESS).kind == "incompatible"


@pytest.mark.parametrize(
    ("close", "kind", "told"),
    [
        ((403, "ACCESS_REFUSED - Login was refused"), "denied", "refused the login of user 'me'"),
        ((530, "NOT_ALLOWED - vhost shop not found"), "denied", "no virtual host 'shop'"),
        (
            (530, "NOT_ALLOWED - access to vhost 'shop' refused: connection limit (1) is reached"),
            "unreachable",
            "limit",
        ),
        ((320, "CONNECTION_FORCED - broker forced connection closure"), "unreachable", "CONNECTION_FORCED"),
    ],
)
def test_a_close_by_the_broker_is_explained_by_its_code_and_text(close: tuple[int, str], kind: str, told: str) -> None:
    problem = problem_of(ConnectionError("it is over"), ADDRESS, close=close)
    assert problem.kind == kind
    assert told in problem.text


def test_a_login_mechanism_that_is_not_offered_is_the_error_that_threads_get() -> None:
    error = exceptions.AuthenticationError("PLAIN AMQPLAIN", ["PLAIN", "EXTERNAL"])
    problem = problem_of(error, ADDRESS, mechanism="EXTERNAL")
    assert problem.kind == "incompatible"
    assert "does not offer the login mechanism EXTERNAL, only PLAIN AMQPLAIN" in problem.text
