"""What aio-pika's and aiormq's errors of a connection mean."""

from __future__ import annotations

from collections.abc import Iterator

from aiormq import exceptions

from amqpworker.broker.address import Address
from amqpworker.broker.connection_causes import (
    CLOSED_BY_OTHER_SIDE,
    ClosedByBroker,
    ClosedWithoutResponse,
    Lost,
    NotAMQP,
    explain,
)
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.login import PLAIN, mechanism_missing
from amqpworker.errors import AmqpWorkerError


def problem_of(
    error: BaseException | None,
    address: Address,
    was_open: bool = False,
    has_received: bool = True,
    close: tuple[int, str] | None = None,
    mechanism: str = PLAIN,
) -> ConnectionProblem:
    """
    Return what an error of a connection, or of an attempt to connect, means.

    `has_received` is whether any byte arrived, `close` the code and text with which the broker closed it, `mechanism` the one
    of the login.
    """
    if close is not None:
        return explain([ClosedByBroker(*close)], address, was_open)
    if isinstance(error, AmqpWorkerError):
        return explain([error], address, was_open)
    causes = [_translated(one, has_received, mechanism) for one in _chain(error)]
    if not causes:
        causes = [Lost(CLOSED_BY_OTHER_SIDE) if has_received else ClosedWithoutResponse()]
    return explain(causes, address, was_open)


def was_reset(error: BaseException | None) -> bool:
    """Return whether the other side reset the connection, without any reason that has arrived."""
    return any(isinstance(one, ConnectionResetError | BrokenPipeError) for one in _chain(error))


def _translated(error: BaseException, has_received: bool, mechanism: str) -> BaseException:
    """Return an error as one that belongs to no library, or as it is."""
    match error:
        case exceptions.AuthenticationError(args=(str(offered), *_)):
            return mechanism_missing(mechanism, offered)
        case exceptions.IncompatibleProtocolError() | exceptions.ProtocolSyntaxError() | exceptions.InvalidFrameError():
            return NotAMQP(str(error))
        case exceptions.AMQPConnectionError():
            return Lost(str(error)) if has_received else ClosedWithoutResponse(str(error))
        case _:
            return error


def _chain(error: BaseException | None, seen: frozenset[int] = frozenset()) -> Iterator[BaseException]:
    """Yield an error and those that led to it, innermost first; aiormq makes circles of them."""
    if error is None or id(error) in seen:
        return
    inner = [part for part in error.args if isinstance(part, BaseException)]
    context = None if error.__suppress_context__ else error.__context__
    for part in (*inner, error.__cause__, context):
        yield from _chain(part, seen | {id(error)})
    yield error
