"""
What pika's and the broker's errors mean, in one sentence each.

Decides the text, and whether it helps to try again. The one place that reads pika's exceptions and reply codes.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from pika import exceptions
from pika.adapters.utils import connection_workflow as workflow

from amqpworker.broker.address import Address
from amqpworker.broker.amqp.events import FrameError
from amqpworker.broker.server_version import version_in
from amqpworker.broker.tls import tls_failure
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected, SendError, Unroutable

__all__ = [
    "DECLARED_ELSEWHERE",
    "ConnectionProblem",
    "access_refused",
    "channel_error",
    "does_not_exist",
    "exchange_of",
    "max_message_size",
    "problem_of",
    "too_old",
]

Kind = Literal["away", "refused", "wrong"]
OLDEST = (3, 10)

ACCESS_REFUSED = 403
NOT_FOUND = 404
PRECONDITION_FAILED = 406
NOT_ALLOWED = 530
# What RabbitMQ calls the exchange without a name.
DEFAULT_EXCHANGE = "amq.default"

# One to look at the queues and one to declare.
WORKER_CHANNELS = 2
# One for each purpose and one to declare; and as many again, twice over, while older ones wait for confirms.
PUBLISHER_CHANNELS = 16


@dataclass(frozen=True, slots=True)
class ConnectionProblem:
    """
    Why there is no connection.

    `kind` is `away` (try again), `refused` (login or virtual host) or `wrong` (no RabbitMQ that we can speak to).
    """

    text: str
    kind: Kind
    broker: str
    was_open: bool = False

    def error(self) -> AmqpWorkerError:
        """Return the error that tells a caller of it."""
        if self.kind == "refused":
            return AccessRefused(self.text)
        if self.kind == "wrong":
            return ConfigError(self.text)
        return NotConnected(self.text)


def problem_of(
    error: BaseException | None, address: Address, was_open: bool = False, has_received: bool = True
) -> ConnectionProblem:
    """Return what an error of a connection, or of the attempt to make one, means; `has_received` tells whether anything came."""
    text, kind = explained(error, address, was_open, has_received)
    return ConnectionProblem(text, kind, str(address), was_open)


REFUSED_LOGIN = "RabbitMQ at {address} refused the login of user {user!r}."
REFUSED_CERTIFICATE = (
    "RabbitMQ at {address} refused the login by our certificate (the setting tls_cert): it belongs to no user. "
    "Which part of it is the name says ssl_cert_login_from in rabbitmq.conf."
)
NO_VIRTUAL_HOST = "RabbitMQ at {address} has no virtual host {virtual_host!r}."
NO_ACCESS = "User {user!r} has no access to virtual host {virtual_host!r} at {address}, or it does not exist."
CLOSED = "RabbitMQ at {address} closed the connection: {text} ({code})."
NO_RESPONSE = "What listens at {address} hung up without a word: is RabbitMQ running behind it?"
NO_RESPONSE_BY_TLS = (
    "What listens at {address} hung up without a word after the TLS handshake: is RabbitMQ running behind it, and does it "
    "want a certificate of ours (the settings tls_cert and tls_key)?"
)

# The first row whose type fits the first cause that has one; causes come innermost first.
MEANINGS: tuple[tuple[tuple[type[BaseException], ...], str, Kind], ...] = (
    ((exceptions.AuthenticationError,), REFUSED_LOGIN, "refused"),
    (
        (exceptions.IncompatibleProtocolError, exceptions.ProtocolSyntaxError, FrameError),
        "What listens at {address} does not speak AMQP 0-9-1: check the port.",
        "wrong",
    ),
    ((socket.gaierror,), "The name of the broker, {host!r}, cannot be resolved: {cause.strerror}.", "away"),
    ((UnicodeError,), "The name of the broker, {host!r}, cannot be the name of a host.", "wrong"),
    ((ConnectionRefusedError,), "Nothing listens at {address}: is RabbitMQ running?", "away"),
    ((exceptions.AMQPHeartbeatTimeout,), "RabbitMQ at {address} sent no heartbeat in time.", "away"),
    ((exceptions.ConnectionBlockedTimeout,), "RabbitMQ at {address} stayed under its alarm for too long.", "away"),
    # pika closes what it is opening only when `connect_timeout` is over.
    (
        (workflow.AMQPConnectorStackTimeout, exceptions.ConnectionOpenAborted, TimeoutError),
        "There was no answer from {address} in time.",
        "away",
    ),
    ((exceptions.StreamLostError, OSError), "The connection to {address} broke: {cause}.", "away"),
)
GUESSES = (exceptions.ProbableAuthenticationError, exceptions.ProbableAccessDeniedError)


def explained(error: BaseException | None, address: Address, was_open: bool, has_received: bool) -> tuple[str, Kind]:
    """Return the sentence and the kind of the first cause that is known."""
    facts = {"address": address, "host": address.host, "user": address.user, "virtual_host": address.virtual_host}
    if isinstance(error, AmqpWorkerError):
        return str(error), "wrong" if isinstance(error, ConfigError) else "away"
    for cause in causes(error):
        if (close := close_of(cause)) is not None:
            sentence, kind = (None, "away") if was_open else refusal(close)
            told = {**facts, "user": close.user or address.user, "text": close.text, "code": close.code}
            return (sentence or CLOSED).format(**told), kind
        if not was_open and (found := tls_failure(cause)) is not None:
            failure, reason = found
            return failure.sentence.format(address=address, reason=reason), "away" if failure.passes else "wrong"
        if not has_received and isinstance(cause, exceptions.IncompatibleProtocolError):
            # pika takes it for another protocol, but so does a proxy behave whose RabbitMQ is away.
            return (NO_RESPONSE_BY_TLS if address.tls else NO_RESPONSE).format(**facts), "away"
        if isinstance(cause, GUESSES):
            # By the moment alone: the broker did not say anything.
            return f"The connection to {address} broke while it was being opened: {cause}.", "away"
        for types, sentence, kind in MEANINGS:
            if isinstance(cause, types):
                if kind == "wrong" and was_open:
                    return f"The stream from {address} cannot be understood any more: {cause}.", "away"
                return sentence.format(cause=cause, **facts), kind
    return f"The connection to {address} ended: {error!r}." if error else f"The connection to {address} ended.", "away"


class Close(NamedTuple):
    """What the broker said when it closed a connection."""

    code: int
    text: str

    @property
    def user(self) -> str | None:
        """The user that it names: one who logs in by certificate is known to the broker alone."""
        found = re.search(r"refused for user '(.*?)'", self.text)
        return found and found[1]


def close_of(cause: BaseException) -> Close | None:
    """Return what the broker said; pika keeps it as text if it takes it for a refusal, which it does at any code."""
    if isinstance(cause, exceptions.ConnectionClosedByBroker):
        return Close(cause.reply_code, cause.reply_text)
    if isinstance(cause, GUESSES):
        found = re.search(
            r"ConnectionClosedByBroker: \((\d+)\)(?: (['\"])(.*)\2)?", str(cause.args[0]) if cause.args else ""
        )
        return found and Close(int(found[1]), found[3] or "")
    return None


def refusal(close: Close) -> tuple[str | None, Kind]:
    """
    Return the sentence and the kind for a connection that the broker closed instead of opening it.

    What is neither a login nor a virtual host that it refuses may pass: it stops or starts, or it has a limit.
    """
    if close.code not in {NOT_ALLOWED, ACCESS_REFUSED} or "limit" in close.text:
        return None, "away"
    if "mechanism EXTERNAL" in close.text:
        return REFUSED_CERTIFICATE, "refused"
    if close.code == NOT_ALLOWED or "vhost" in close.text:
        return NO_VIRTUAL_HOST if "not found" in close.text else NO_ACCESS, "refused"
    return REFUSED_LOGIN, "refused"


def causes(error: BaseException | None) -> Iterator[BaseException]:
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
        yield from causes(part)
    yield error


def too_old(server_properties: Mapping[str, Any]) -> str | None:
    """Return a sentence where the server is not RabbitMQ 3.10 or later (at-least-once dead-lettering came with it)."""
    product = server_properties.get("product")
    version = str(server_properties.get("version", ""))
    if product != "RabbitMQ":
        return f"The broker calls itself {product!r}: amqpworker needs RabbitMQ 3.10 or later."
    if version_in(server_properties) < OLDEST:
        return f"The broker is RabbitMQ {version}: amqpworker needs 3.10 or later."
    return None


GRANT = "Grant it (rabbitmqctl set_permissions), or log in as another user."
DECLARED_ELSEWHERE = (
    "Grant the right, or let `amqpworker topology declare` run with an administrator's rights and set "
    "AMQPWORKER_DECLARE=0 here."
)


def channel_error(error: BaseException, what: str, right: str, advice: str = GRANT) -> AmqpWorkerError:
    """
    Return the error that a channel closed by the broker means; `what` was being done on it.

    `right` is what that takes; brokers before 3.11 do not name it. `advice` says what to do if it is missing.
    """
    if isinstance(error, exceptions.NoFreeChannels):
        return too_few_channels(error, what)
    if not isinstance(error, exceptions.ChannelClosedByBroker):
        return NotConnected(f"The connection ended while {what}.")
    text = error.reply_text
    if error.reply_code == ACCESS_REFUSED:
        if (found := access_refused(error)) is None:
            # Another consumer has the queue to itself, until it goes.
            return (SendError if "exclusive use" in text else AccessRefused)(f"RabbitMQ refused {what}: {text}.")
        return AccessRefused(
            f"RabbitMQ refused {what}: user {found.user!r} lacks the right `{found.right or right}` on {found.thing} in "
            f"virtual host {found.vhost!r}. {advice}"
        )
    if error.reply_code == PRECONDITION_FAILED and "inequivalent" in text:
        return ConfigError(explain_mismatch(text))
    if error.reply_code == NOT_FOUND:
        return Unroutable(f"RabbitMQ does not know what was needed for {what}: {text}.")
    # A lock, or a resource that the broker lacks, may be free later.
    lasts = error.reply_code == PRECONDITION_FAILED
    told = f"RabbitMQ closed the channel while {what}: {text} ({error.reply_code})."
    return ConfigError(told) if lasts else SendError(told)


def too_few_channels(error: exceptions.NoFreeChannels, what: str) -> ConfigError:
    """Return the error of a connection that has no channel left."""
    most = f" {error.args[0]}" if error.args else " too few"
    return ConfigError(
        f"There is no channel for {what}: this broker allows{most} on a connection (channel_max). A worker needs one for "
        f"each of its queues and {WORKER_CHANNELS} more, whatever sends up to {PUBLISHER_CHANNELS}: raise channel_max in "
        f"rabbitmq.conf, or consume from fewer queues in one pool."
    )


def explain_mismatch(text: str) -> str:
    """
    Tell in one sentence what a broker's 406 says about a declaration: of what, which argument, which two values.

    Source: RabbitMQ's `rabbit_misc:assert_args_equivalence`; it cuts texts over 255 bytes.
    """
    found = _MISMATCH.search(text)
    if found is None:
        return f"The broker refuses a declaration: {text}"
    kind, name, vhost = found["kind"], found["name"], found["vhost"]
    other = "use another queue name" if kind == "queue" else "use another namespace"
    what_to_do = "empty and delete the queue" if kind == "queue" else "delete the exchange"
    return (
        f"The {kind} {name!r} in vhost {vhost!r} exists with {found['argument']} = {quoted(found['there'])}, "
        f"but amqpworker declares {quoted(found['wanted'])}: {what_to_do}, or {other}."
    )


_MISMATCH = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for (?P<kind>queue|exchange) '(?P<name>.*)' in vhost '(?P<vhost>.*?)': "
    r"received (?P<wanted>.+?) but current is (?P<there>.+)",
    re.DOTALL,
)
_VALUE = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '\w+')?", re.DOTALL)


def quoted(told: str) -> str:
    """Return a value of an argument without what RabbitMQ says of its type."""
    found = _VALUE.fullmatch(told)
    return repr(found["value"]) if found else told


def does_not_exist(error: BaseException | None, kind: str) -> bool:
    """Tell whether a channel's close says that there is no such `exchange` or `queue`; one that is down is 404 as well."""
    return getattr(error, "reply_code", None) == NOT_FOUND and f"no {kind} " in str(getattr(error, "reply_text", ""))


class AccessRefusal(NamedTuple):
    """Who lacks which right on what; `thing` is as `queue 'emails'`."""

    user: str
    right: str
    thing: str
    vhost: str


_ACCESS_REFUSED = re.compile(
    r"(?:(?P<right>configure|write|read) )?access to (?P<thing>.+) in vhost '(?P<vhost>.*)' refused for user '(?P<user>.*)'",
    re.DOTALL,
)


def access_refused(error: BaseException | None) -> AccessRefusal | None:
    """Return what a channel's close says of a missing right; brokers before 3.11 do not name it."""
    found = _ACCESS_REFUSED.search(str(getattr(error, "reply_text", "")))
    return found and AccessRefusal(found["user"], found["right"] or "", found["thing"], found["vhost"])


def max_message_size(error: BaseException) -> int | None:
    """Return the `max_message_size` that a channel's close names, if a message was larger."""
    found = re.search(r"message size \d+ .*larger than .*max size (\d+)", str(getattr(error, "reply_text", "")))
    return int(found.group(1)) if found else None


def exchange_of(error: BaseException) -> str | None:
    """Return the exchange that a channel's close names, where it names one, as publications name it."""
    found = re.search(r"exchange '([^']*)'", str(getattr(error, "reply_text", "")))
    if found is None:
        return None
    return "" if found.group(1) == DEFAULT_EXCHANGE else found.group(1)
