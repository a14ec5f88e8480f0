"""What pika's errors of a connection mean: pika wraps them, and takes some for others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import Address
from amqpworker.broker.connection_causes import (
    CLOSED_BY_OTHER_SIDE,
    BlockedTooLong,
    Cause,
    ClosedByBroker,
    ClosedWhileOpening,
    ClosedWithoutResponse,
    LoginRefused,
    Lost,
    NoHeartbeat,
    NoResponse,
    NotAMQP,
    explain,
)
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.errors import AmqpWorkerError

GUESSES = (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)
# pika closes what it is opening only when `connect_timeout` is over.
OPENING_TIMEOUTS = (workflow.AMQPConnectorStackTimeout, exceptions.ConnectionOpenAborted)
CAUSES: tuple[tuple[tuple[type[BaseException], ...], type[Cause]], ...] = (
    ((exceptions.AuthenticationError,), LoginRefused),
    ((exceptions.IncompatibleProtocolError, exceptions.ProtocolSyntaxError), NotAMQP),
    ((exceptions.AMQPHeartbeatTimeout,), NoHeartbeat),
    ((exceptions.ConnectionBlockedTimeout,), BlockedTooLong),
    (OPENING_TIMEOUTS, NoResponse),
)


def problem_of(
    error: BaseException | None, address: Address, was_open: bool = False, has_received: bool = True
) -> ConnectionProblem:
    """Return what an error of a connection, or of an attempt to connect, means; `has_received` is whether any byte arrived."""
    causes = (
        [error] if isinstance(error, AmqpWorkerError) else [_translated(one, has_received) for one in _chain(error)]
    )
    return explain(causes, address, was_open)


def _translated(error: BaseException, has_received: bool) -> BaseException:
    """Return an error as one that belongs to no library, or as it is."""
    if isinstance(error, exceptions.ConnectionClosedByBroker):
        return ClosedByBroker(error.reply_code, error.reply_text)
    if isinstance(error, GUESSES):
        # pika turns the broker's close into text if it takes it for a refusal, which it does at any code. Without a close it
        # guesses from the moment alone: the broker sent no reason.
        text = str(error.args[0]) if error.args else ""
        found = re.search(r"ConnectionClosedByBroker: \((\d+)\)(?: (['\"])(.*)\2)?", text)
        return ClosedByBroker(int(found[1]), found[3] or "") if found else ClosedWhileOpening(str(error))
    if not has_received and isinstance(error, exceptions.IncompatibleProtocolError):
        # pika reports another protocol, but a proxy in front of an unreachable RabbitMQ does the same.
        return ClosedWithoutResponse(str(error))
    if isinstance(error, exceptions.StreamLostError):
        return Lost(_reason_of_loss(str(error)))
    for types, cause in CAUSES:
        if isinstance(error, types):
            return cause(str(error))
    return error


def _reason_of_loss(text: str) -> str:
    """Return why the stream was lost, in the same words as for aio-pika; pika's text contains the repr of the error."""
    if text == "Transport indicated EOF":
        return CLOSED_BY_OTHER_SIDE
    found = re.fullmatch(r"Stream connection lost: (?!SSL)\w+\((\d+), (['\"])(.*)\2\)", text)
    return f"[Errno {found[1]}] {found[3]}" if found else text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the errors that an error of pika's workflow wraps, innermost first."""
    if error is None:
        return
    inner: list[Any] = []
    if isinstance(error, workflow.AMQPConnectionWorkflowFailed):
        inner = list(reversed(error.exceptions))
    elif isinstance(error, workflow.AMQPConnectorPhaseErrorBase):
        inner = [error.exception]
    else:
        inner = [part for part in error.args if isinstance(part, BaseException)]
        inner += [part for part in (error.__cause__, error.__context__) if part is not None]
    for part in inner:
        yield from _chain(part)
    yield error
