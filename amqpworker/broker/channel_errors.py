"""What the broker's close of a channel means, in one sentence. No I/O."""

from __future__ import annotations

import re
from typing import NamedTuple

from amqpworker.broker.connection import ChannelClosedByBroker, NoChannelLeft
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected, SendError, Unroutable
from amqpworker.routing.topology import BOUND

ACCESS_REFUSED = 403
NOT_FOUND = 404
PRECONDITION_FAILED = 406
# RabbitMQ's name for the exchange without a name.
DEFAULT_EXCHANGE = "amq.default"

# One to check the queues and one to declare.
WORKER_CHANNELS = 2
# One for each purpose and one to declare; and as many again, twice over, while older ones wait for confirms.
PUBLISHER_CHANNELS = 16

GRANT = "Grant it (rabbitmqctl set_permissions), or log in as another user."
DECLARED_ELSEWHERE = (
    "Grant the permission, or run `amqpworker topology declare` as an administrator and set AMQPWORKER_DECLARE=0 here."
)


def channel_error(error: BaseException, what: str, permission: str, advice: str = GRANT) -> AmqpWorkerError:
    """
    Return the error for a channel that the broker closed while `what` was being done on it.

    `permission` is what that requires: brokers before 3.11 do not name it. `advice` is what to do if it is missing.
    """
    if isinstance(error, NoChannelLeft):
        return _too_few_channels(error, what)
    if not isinstance(error, ChannelClosedByBroker):
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


def _too_few_channels(error: NoChannelLeft, what: str) -> ConfigError:
    return ConfigError(
        f"No channel is left for {what}: this broker allows {error.limit} per connection (channel_max). A worker requires one for "
        f"each of its queues, two if the queue is bounded, and {WORKER_CHANNELS} more, a publisher up to {PUBLISHER_CHANNELS}: raise channel_max in "
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
    bounds = [_BOUND.fullmatch(found[which]) for which in ("current", "declared")]
    if found["argument"] == BOUND and bounds[0] and bounds[1]:
        return _other_bound(name, vhost, bounds[0]["bound"], bounds[1]["bound"])
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


def _other_bound(name: str, vhost: str, current: str | None, declared: str | None) -> str:
    """Return what to do about a queue that exists with another bound; None is a queue without one."""
    there = "without a bound" if current is None else f"with max_length={current}"
    here = "none" if declared is None else f"max_length={declared}"
    same = f"app.queue({name!r})" if current is None else f"app.queue({name!r}, max_length={current})"
    return (
        f"The queue {name!r} in vhost {vhost!r} exists {there}, but this app declares {here}: RabbitMQ cannot change that. "
        f"Either use it as it is, by {same}, or with declare=False; or send to a queue with a new name, let workers empty the "
        f"old one, and delete that (docs/topology.md: bounded queues)."
    )


_BOUND = re.compile(r"none|(?:the value )?'(?P<bound>\d+)'.*", re.DOTALL)
_VALUE = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '\w+')?", re.DOTALL)


def _quoted(text: str) -> str:
    """Return a value of an argument without RabbitMQ's note of its type."""
    found = _VALUE.fullmatch(text)
    return repr(found["value"]) if found else text


def does_not_exist(error: BaseException | None, kind: str) -> bool:
    """Return whether a channel was closed because an `exchange` or `queue` does not exist; one that is down is 404 as well."""
    return (
        isinstance(error, ChannelClosedByBroker) and error.reply_code == NOT_FOUND and f"no {kind} " in error.reply_text
    )


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
    found = _ACCESS_REFUSED.search(_text(error))
    return found and AccessRefusal(found["user"], found["permission"] or "", found["thing"], found["vhost"])


def max_message_size(error: BaseException) -> int | None:
    """Return the `max_message_size` that a channel's close names if a message was larger."""
    found = re.search(r"message size \d+ .*larger than .*max size (\d+)", _text(error))
    return int(found.group(1)) if found else None


def exchange_of(error: BaseException) -> str | None:
    """Return the exchange that a channel's close names, if any, as publications name it."""
    found = re.search(r"exchange '([^']*)'", _text(error))
    if found is None:
        return None
    return "" if found.group(1) == DEFAULT_EXCHANGE else found.group(1)


def _text(error: BaseException | None) -> str:
    return error.reply_text if isinstance(error, ChannelClosedByBroker) else ""
