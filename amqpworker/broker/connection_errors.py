"""What pika's and the broker's errors mean, in one sentence each, and whether another attempt may succeed."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import Address
from amqpworker.broker.amqp.decode import FrameError
from amqpworker.broker.pika_connection import version_in
from amqpworker.broker.tls import tls_failure
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected, SendError, Unroutable

Kind = Literal["unreachable", "denied", "incompatible"]
OLDEST_RABBITMQ = (3, 10)

ACCESS_REFUSED = 403
NOT_FOUND = 404
PRECONDITION_FAILED = 406
NOT_ALLOWED = 530
# RabbitMQ's name for the exchange without a name.
DEFAULT_EXCHANGE = "amq.default"

# One to check the queues and one to declare.
WORKER_CHANNELS = 2
# One for each purpose and one to declare; and as many again, twice over, while older ones wait for confirms.
PUBLISHER_CHANNELS = 16


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """
    Why there is no connection.

    `kind` is `unreachable` (another attempt may succeed), `denied` (login or virtual host) or `incompatible` (the server is
    not a RabbitMQ that we support).
    """

    text: str
    kind: Kind
    broker: str
    was_open: bool = False

    def error(self) -> AmqpWorkerError:
        """Return it as an error for a caller."""
        if self.kind == "denied":
            return AccessRefused(self.text)
        if self.kind == "incompatible":
            return ConfigError(self.text)
        return NotConnected(self.text)


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


def too_old(server_properties: Mapping[str, Any]) -> str | None:
    """Return a sentence if the server is not RabbitMQ 3.10 or later, the first with at-least-once dead-lettering."""
    product = server_properties.get("product")
    version = str(server_properties.get("version", ""))
    if product != "RabbitMQ":
        return f"The broker is {product!r}: amqpworker requires RabbitMQ 3.10 or later."
    if version_in(server_properties) < OLDEST_RABBITMQ:
        return f"The broker is RabbitMQ {version}: amqpworker requires 3.10 or later."
    return None


GRANT = "Grant it (rabbitmqctl set_permissions), or log in as another user."
DECLARED_ELSEWHERE = (
    "Grant the permission, or run `amqpworker topology declare` as an administrator and set AMQPWORKER_DECLARE=0 here."
)


def channel_error(error: BaseException, what: str, permission: str, advice: str = GRANT) -> AmqpWorkerError:
    """
    Return the error for a channel that the broker closed while `what` was being done on it.

    `permission` is what that requires: brokers before 3.11 do not name it. `advice` is what to do if it is missing.
    """
    if isinstance(error, exceptions.NoFreeChannels):
        return _too_few_channels(error, what)
    if not isinstance(error, exceptions.ChannelClosedByBroker):
        return NotConnected(f"The connection ended while {what}.")
    text = error.reply_text
    if error.reply_code == ACCESS_REFUSED:
        if (found := access_refused(error)) is None:
            # An exclusive consumer has the queue until it ends.
            return (SendError if "exclusive use" in text else AccessRefused)(f"RabbitMQ refused {what}: {text}.")
        return AccessRefused(
            f"RabbitMQ refused {what}: user {found.user!r} lacks the permission `{found.permission or permission}` on {found.thing} in "
            f"virtual host {found.vhost!r}. {advice}"
        )
    if error.reply_code == PRECONDITION_FAILED and "inequivalent" in text:
        return ConfigError(explain_mismatch(text))
    if error.reply_code == NOT_FOUND:
        return Unroutable(f"What was required for {what} does not exist: {text}.")
    # A lock, or a resource that the broker lacks, may be free later.
    permanent = error.reply_code == PRECONDITION_FAILED
    closed = f"RabbitMQ closed the channel while {what}: {text} ({error.reply_code})."
    return ConfigError(closed) if permanent else SendError(closed)


def _too_few_channels(error: exceptions.NoFreeChannels, what: str) -> ConfigError:
    most = f" {error.args[0]}" if error.args else " too few"
    return ConfigError(
        f"No channel is left for {what}: this broker allows{most} per connection (channel_max). A worker requires one for "
        f"each of its queues and {WORKER_CHANNELS} more, a publisher up to {PUBLISHER_CHANNELS}: raise channel_max in "
        f"rabbitmq.conf, or consume from fewer queues in one pool."
    )


def explain_mismatch(text: str) -> str:
    """
    Return a broker's 406 about a declaration as one sentence: the object, the argument and both values.

    Source: RabbitMQ's `rabbit_misc:assert_args_equivalence`; it cuts texts over 255 bytes.
    """
    found = _MISMATCH.search(text)
    if found is None:
        return f"The broker refused a declaration: {text}"
    kind, name, vhost = found["kind"], found["name"], found["vhost"]
    other = "use another queue name" if kind == "queue" else "use another namespace"
    remedy = "empty and delete the queue" if kind == "queue" else "delete the exchange"
    return (
        f"The {kind} {name!r} in vhost {vhost!r} exists with {found['argument']} = {_quoted(found['current'])}, "
        f"but amqpworker declares {_quoted(found['declared'])}: {remedy}, or {other}."
    )


_MISMATCH = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>queue|exchange) '(?P<name>.*)' in vhost '(?P<vhost>.*?)': "
    r"received (?P<declared>.+?) but current is (?P<current>.+)",
    re.DOTALL,
)
_VALUE = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '\w+')?", re.DOTALL)


def _quoted(text: str) -> str:
    """Return a value of an argument without RabbitMQ's note of its type."""
    found = _VALUE.fullmatch(text)
    return repr(found["value"]) if found else text


def does_not_exist(error: BaseException | None, kind: str) -> bool:
    """Return whether a channel was closed because an `exchange` or `queue` does not exist; one that is down is 404 as well."""
    return getattr(error, "reply_code", None) == NOT_FOUND and f"no {kind} " in str(getattr(error, "reply_text", ""))


class AccessRefusal(NamedTuple):
    """A missing permission of a user; `thing` is such as `queue 'emails'`."""

    user: str
    permission: str
    thing: str
    vhost: str


_ACCESS_REFUSED = re.compile(
    r"(?:(?P<permission>configure|write|read) )?access to (?P<thing>.+) in vhost '(?P<vhost>.*)' refused for user '(?P<user>.*)'",
    re.DOTALL,
)


def access_refused(error: BaseException | None) -> AccessRefusal | None:
    """Return the missing permission for which a channel was closed; brokers before 3.11 do not name it."""
    found = _ACCESS_REFUSED.search(str(getattr(error, "reply_text", "")))
    return found and AccessRefusal(found["user"], found["permission"] or "", found["thing"], found["vhost"])


def max_message_size(error: BaseException) -> int | None:
    """Return the `max_message_size` that a channel's close names if a message was larger."""
    found = re.search(r"message size \d+ .*larger than .*max size (\d+)", str(getattr(error, "reply_text", "")))
    return int(found.group(1)) if found else None


def exchange_of(error: BaseException) -> str | None:
    """Return the exchange that a channel's close names, if any, as publications name it."""
    found = re.search(r"exchange '([^']*)'", str(getattr(error, "reply_text", "")))
    if found is None:
        return None
    return "" if found.group(1) == DEFAULT_EXCHANGE else found.group(1)
