"""What pika's errors of a connection mean, in one sentence each, and whether another attempt may succeed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple

from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import Address
from amqpworker.broker.amqp.decode import FrameError
from amqpworker.broker.channel_errors import ACCESS_REFUSED
from amqpworker.broker.connection_problem import ConnectionProblem, Kind
from amqpworker.broker.tls import tls_failure
from amqpworker.errors import AmqpWorkerError, ConfigError

NOT_ALLOWED = 530


def problem_of(
    error: BaseException | None, address: Address, was_open: bool = False, has_received: bool = True
) -> ConnectionProblem:
    """Return what an error of a connection, or of an attempt to connect, means; `has_received` is whether any byte arrived."""
    text, kind = _explained(error, address, was_open, has_received)
    return ConnectionProblem(text, kind, str(address), was_open)


REFUSED_LOGIN = "RabbitMQ at {address} refused the login of user {user!r}."
REFUSED_CERTIFICATE = (
    "RabbitMQ at {address} refused the login by our certificate (the setting tls_cert): it belongs to no user. "
    "ssl_cert_login_from in rabbitmq.conf selects the part of the certificate that is the user name."
)
NO_VIRTUAL_HOST = "RabbitMQ at {address} has no virtual host {virtual_host!r}."
NO_ACCESS = "User {user!r} has no access to virtual host {virtual_host!r} at {address}, or it does not exist."
CLOSED = "RabbitMQ at {address} closed the connection: {text} ({code})."
NO_RESPONSE = "The server at {address} closed the connection without a response: is RabbitMQ running behind it?"
NO_RESPONSE_BY_TLS = (
    "The server at {address} closed the connection without a response after the TLS handshake: is RabbitMQ running behind "
    "it, and does it require a client certificate (the settings tls_cert and tls_key)?"
)

# The first row that matches the first cause, innermost cause first.
MEANINGS: tuple[tuple[tuple[type[BaseException], ...], str, Kind], ...] = (
    ((exceptions.AuthenticationError,), REFUSED_LOGIN, "denied"),
    (
        (exceptions.IncompatibleProtocolError, exceptions.ProtocolSyntaxError, FrameError),
        "The server at {address} does not speak AMQP 0-9-1: check the port.",
        "incompatible",
    ),
    ((socket.gaierror,), "The host name of the broker, {host!r}, cannot be resolved: {cause.strerror}.", "unreachable"),
    ((UnicodeError,), "The host name of the broker, {host!r}, is not valid.", "incompatible"),
    ((ConnectionRefusedError,), "Connection refused by {address}.", "unreachable"),
    ((exceptions.AMQPHeartbeatTimeout,), "RabbitMQ at {address} sent no heartbeat in time.", "unreachable"),
    (
        (exceptions.ConnectionBlockedTimeout,),
        "RabbitMQ at {address} blocked the connection for too long (memory or disk alarm).",
        "unreachable",
    ),
    # pika closes what it is opening only when `connect_timeout` is over.
    (
        (workflow.AMQPConnectorStackTimeout, exceptions.ConnectionOpenAborted, TimeoutError),
        "No response from {address} in time.",
        "unreachable",
    ),
    ((exceptions.StreamLostError, OSError), "The connection to {address} was lost: {cause}.", "unreachable"),
)
GUESSES = (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)


def _explained(error: BaseException | None, address: Address, was_open: bool, has_received: bool) -> tuple[str, Kind]:
    facts = {"address": address, "host": address.host, "user": address.user, "virtual_host": address.virtual_host}
    if isinstance(error, AmqpWorkerError):
        return str(error), "incompatible" if isinstance(error, ConfigError) else "unreachable"
    for cause in _causes(error):
        if (close := _close_of(cause)) is not None:
            sentence, kind = (None, "unreachable") if was_open else _denial(close)
            details = {**facts, "user": close.user or address.user, "text": close.text, "code": close.code}
            return (sentence or CLOSED).format(**details), kind
        if not was_open and (failure := tls_failure(cause, address)) is not None:
            return failure.text, "unreachable" if failure.is_temporary else "incompatible"
        if not has_received and isinstance(cause, exceptions.IncompatibleProtocolError):
            # pika reports another protocol, but a proxy in front of an unreachable RabbitMQ does the same.
            return (NO_RESPONSE_BY_TLS if address.tls else NO_RESPONSE).format(**facts), "unreachable"
        if isinstance(cause, GUESSES):
            # pika guessed from the moment alone: the broker sent no reason.
            return f"The connection to {address} was lost while it was being opened: {cause}.", "unreachable"
        for types, sentence, kind in MEANINGS:
            if isinstance(cause, types):
                if kind == "incompatible" and was_open:
                    return f"The stream from {address} is corrupt: {cause}.", "unreachable"
                return sentence.format(cause=cause, **facts), kind
    return (
        f"The connection to {address} ended: {error!r}." if error else f"The connection to {address} ended.",
        "unreachable",
    )


class Close(NamedTuple):
    """The reply code and text with which the broker closed a connection."""

    code: int
    text: str

    @property
    def user(self) -> str | None:
        """The user that it names: only the broker knows the user of a certificate."""
        found = re.search(r"refused for user '(.*?)'", self.text)
        return found and found[1]


def _close_of(cause: BaseException) -> Close | None:
    """Return the broker's close; pika turns it into text if it takes it for a refusal, which it does at any code."""
    if isinstance(cause, exceptions.ConnectionClosedByBroker):
        return Close(cause.reply_code, cause.reply_text)
    if isinstance(cause, GUESSES):
        found = re.search(
            r"ConnectionClosedByBroker: \((\d+)\)(?: (['\"])(.*)\2)?", str(cause.args[0]) if cause.args else ""
        )
        return found and Close(int(found[1]), found[3] or "")
    return None


def _denial(close: Close) -> tuple[str | None, Kind]:
    """
    Return the sentence and the kind for a connection that the broker closed instead of opening it.

    Anything but a denied login or virtual host may be temporary: the broker stops or starts, or has reached a limit.
    """
    if close.code not in {NOT_ALLOWED, ACCESS_REFUSED} or "limit" in close.text:
        return None, "unreachable"
    if "mechanism EXTERNAL" in close.text:
        return REFUSED_CERTIFICATE, "denied"
    if close.code == NOT_ALLOWED or "vhost" in close.text:
        return NO_VIRTUAL_HOST if "not found" in close.text else NO_ACCESS, "denied"
    return REFUSED_LOGIN, "denied"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
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
        yield from _causes(part)
    yield error
