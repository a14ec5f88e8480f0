"""
What the causes of a lost or refused connection mean, in one sentence each, and whether another attempt may succeed. No I/O.

The errors of a library are translated to these where they are caught (`pika_errors`, `aio_errors`).
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable

from amqpworker.broker.address import Address
from amqpworker.broker.amqp.decode import FrameError
from amqpworker.broker.channel_errors import ACCESS_REFUSED
from amqpworker.broker.connection_problem import ConnectionProblem, Kind
from amqpworker.broker.tls import tls_failure
from amqpworker.errors import AmqpWorkerError, ConfigError

NOT_ALLOWED = 530
CLOSED_BY_OTHER_SIDE = "the other side closed it"


class Cause(Exception):
    """Why a connection was lost or refused, whichever library reports it."""


class LoginRefused(Cause):
    """The broker refused the login."""


class NotAMQP(Cause):
    """The server does not speak AMQP 0-9-1."""


class NoHeartbeat(Cause):
    """The broker sent no heartbeat in time."""


class BlockedTooLong(Cause):
    """The broker has had an alarm for too long."""


class NoResponse(Cause):
    """The server has not responded in time."""


class ClosedWithoutResponse(Cause):
    """The server closed the connection before it had sent anything."""


class ClosedWhileOpening(Cause):
    """The server closed the connection while it was being opened, without a reason."""


class Lost(Cause):
    """The connection was lost."""


class ClosedByBroker(Cause):
    """The broker closed the connection, with this code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text

    @property
    def user(self) -> str | None:
        """The user that it names: only the broker knows the user of a certificate."""
        found = re.search(r"refused for user '(.*?)'", self.text)
        return found and found[1]


LOGIN_REFUSED = "RabbitMQ at {address} refused the login of user {user!r}."
CERTIFICATE_REFUSED = (
    "RabbitMQ at {address} refused the login by our certificate (the setting tls_cert): it belongs to no user. "
    "ssl_cert_login_from in rabbitmq.conf selects the part of the certificate that is the user name."
)
NO_VIRTUAL_HOST = "RabbitMQ at {address} has no virtual host {virtual_host!r}."
NO_ACCESS = "User {user!r} has no access to virtual host {virtual_host!r} at {address}, or it does not exist."
CLOSED_BY_BROKER = "RabbitMQ at {address} closed the connection: {text} ({code})."
CLOSED_WITHOUT_RESPONSE = (
    "The server at {address} closed the connection without a response: is RabbitMQ running behind it?"
)
CLOSED_WITHOUT_RESPONSE_AFTER_TLS = (
    "The server at {address} closed the connection without a response after the TLS handshake: is RabbitMQ running behind "
    "it, and does it require a client certificate (the settings tls_cert and tls_key)?"
)
DEFAULT_REFUSED = "Connection refused by {address}, the default address: AMQPWORKER_URL is not set."

# The first row that matches decides.
MEANINGS: tuple[tuple[tuple[type[BaseException], ...], str, Kind], ...] = (
    ((LoginRefused,), LOGIN_REFUSED, "denied"),
    ((NotAMQP, FrameError), "The server at {address} does not speak AMQP 0-9-1: check the port.", "incompatible"),
    ((ClosedWhileOpening,), "The connection to {address} was lost while it was being opened: {cause}.", "unreachable"),
    ((socket.gaierror,), "The host name of the broker, {host!r}, cannot be resolved: {cause.strerror}.", "unreachable"),
    ((UnicodeError,), "The host name of the broker, {host!r}, is not valid.", "incompatible"),
    ((ConnectionRefusedError,), "Connection refused by {address}.", "unreachable"),
    ((NoHeartbeat,), "RabbitMQ at {address} sent no heartbeat in time.", "unreachable"),
    (
        (BlockedTooLong,),
        "RabbitMQ at {address} blocked the connection for too long (memory or disk alarm).",
        "unreachable",
    ),
    ((NoResponse, TimeoutError), "No response from {address} in time.", "unreachable"),
    ((Lost, OSError), "The connection to {address} was lost: {cause}.", "unreachable"),
)


def explain(causes: Iterable[BaseException], address: Address, was_open: bool) -> ConnectionProblem:
    """Return what the causes of an error mean, innermost first; `was_open` is whether the connection had been opened."""
    text = f"The connection to {address} ended."
    for cause in causes:
        if (found := _meaning(cause, address, was_open)) is not None:
            return ConnectionProblem(found[0], found[1], str(address), was_open)
        text = f"The connection to {address} ended: {cause!r}."
    return ConnectionProblem(text, "unreachable", str(address), was_open)


def _meaning(cause: BaseException, address: Address, was_open: bool) -> tuple[str, Kind] | None:
    facts = {"address": address, "host": address.host, "user": address.user, "virtual_host": address.virtual_host}
    if isinstance(cause, AmqpWorkerError):
        return str(cause), "incompatible" if isinstance(cause, ConfigError) else "unreachable"
    if isinstance(cause, ClosedByBroker):
        sentence, kind = (None, "unreachable") if was_open else _denial(cause)
        details = {**facts, "user": cause.user or address.user, "text": cause.text, "code": cause.code}
        return (sentence or CLOSED_BY_BROKER).format(**details), kind
    if not was_open and (failure := tls_failure(cause, address)) is not None:
        return failure.text, "unreachable" if failure.is_temporary else "incompatible"
    if isinstance(cause, ClosedWithoutResponse):
        return (CLOSED_WITHOUT_RESPONSE_AFTER_TLS if address.tls else CLOSED_WITHOUT_RESPONSE).format(
            **facts
        ), "unreachable"
    if address.is_default and isinstance(cause, ConnectionRefusedError):
        return DEFAULT_REFUSED.format(**facts), "unreachable"
    for types, sentence, kind in MEANINGS:
        if isinstance(cause, types):
            if kind == "incompatible" and was_open:
                return f"The stream from {address} is corrupt: {cause}.", "unreachable"
            return sentence.format(cause=cause, **facts), kind
    return None


def _denial(close: ClosedByBroker) -> tuple[str | None, Kind]:
    """
    Return the sentence and the kind for a connection that the broker closed instead of opening it.

    Anything but a denied login or virtual host may be temporary: the broker stops or starts, or has reached a limit.
    """
    if close.code not in {NOT_ALLOWED, ACCESS_REFUSED} or "limit" in close.text:
        return None, "unreachable"
    if "mechanism EXTERNAL" in close.text:
        return CERTIFICATE_REFUSED, "denied"
    if close.code == NOT_ALLOWED or "vhost" in close.text:
        return NO_VIRTUAL_HOST if "not found" in close.text else NO_ACCESS, "denied"
    return LOGIN_REFUSED, "denied"
