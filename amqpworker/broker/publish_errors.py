"""
What happens to a publication that was not confirmed: the error that it ends with, or another attempt.

Decides which error reports what is known (whether it was written, whether it may have arrived, what to do), and which
publications caused the broker to close a channel; pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.errors import (
    AccessRefused,
    AmqpWorkerError,
    ConnectionBlocked,
    InvalidArguments,
    NotConnected,
    QueueFull,
    QueueUnavailable,
    Unconfirmed,
    Unroutable,
)
from amqpworker.lifecycle import backoff
from amqpworker.model.message import Publication

FIRST_NACK_PAUSE = 0.1
MAX_NACK_PAUSE = 2.0


def not_connected(problem: ConnectionProblem | None, places: str, timeout: float) -> AmqpWorkerError:
    """Return the error of a publication for which there was no connection to the broker at `places` within `timeout` seconds."""
    reason = f"still connecting to {places}." if problem is None else _after_colon(problem.text)
    return NotConnected(f"Could not connect to RabbitMQ within {timeout:g} s: {reason}")


def _after_colon(sentence: str) -> str:
    """Return a sentence as it continues after a colon: a first word that is not a name begins in lower case."""
    return sentence[:1].lower() + sentence[1:] if sentence.partition(" ")[0].istitle() else sentence


def not_written(blocked: bool, timeout: float) -> AmqpWorkerError:
    """Return the error of a publication that was not written on an open connection within `timeout` seconds."""
    if blocked:
        return ConnectionBlocked("RabbitMQ accepts no messages: it has a memory or disk alarm.")
    return NotConnected(f"The message was not sent within {timeout:g} s: RabbitMQ, or this process, was too slow.")


def not_confirmed(blocked: bool) -> AmqpWorkerError:
    """Return the error of a publication that was written, and not confirmed in time."""
    if blocked:
        return ConnectionBlocked(
            "RabbitMQ has a memory or disk alarm: the message may arrive once the alarm is cleared."
        )
    return unconfirmed("it did not confirm in time.")


def unconfirmed(reason: str) -> Unconfirmed:
    """Return the error of a publication that may have arrived or not."""
    return Unconfirmed(f"RabbitMQ did not confirm the message, so it may have arrived or not: {reason}")


def unroutable(pending: PendingPublish) -> AmqpWorkerError:
    """Return the error of a publication that the broker returned; an earlier one under its id may have arrived."""
    if pending.lost_reason:
        return unconfirmed(f"{pending.lost_reason} It was published again, and was not routed to any queue.")
    what = pending.publication
    return Unroutable(
        f"No queue is bound to exchange {what.exchange!r} with routing key {what.routing_key!r} "
        f"({pending.returned}): is the name of the queue correct, and was it declared?"
    )


def nacked(pending: PendingPublish, bounded: bool) -> AmqpWorkerError:
    """Return the error of a publication that the broker nacked on every channel; `bounded` if its queue has a known bound."""
    if pending.lost_reason:
        return unconfirmed(f"{pending.lost_reason} It was published again, and its queue rejected it.")
    queue = pending.publication.routing_key
    if bounded:
        return QueueFull(f"Queue {queue!r} is full and rejected the message: send it again later.")
    return QueueUnavailable(
        f"Queue {queue!r} rejected the message {pending.nacks} times: most of its members are down, or it is full and has a "
        f"length limit that this app does not declare."
    )


def too_large(publication: Publication, most: int) -> AmqpWorkerError:
    """Return the error of a publication that is above the broker's `max_message_size`."""
    return InvalidArguments(
        f"The message for queue {publication.routing_key!r} has {len(publication.body)} bytes, but this broker accepts "
        f"at most {most} (max_message_size): send a reference to the data instead."
    )


def pause_after_nacks(nacks: int) -> float:
    """
    Return the seconds until a publication that was nacked this often is published again, on a newer channel.

    The first time it is at once: RabbitMQ 3.10 nacks everything on a channel that was opened within 0.25 s of the death of
    a leader's node, for as long as that node stays down, and accepts it on another channel.
    """
    return backoff(FIRST_NACK_PAUSE, MAX_NACK_PAUSE, nacks - 1)


class ResendDecision(Enum):
    """What happens to a publication that was in flight when its channel was closed."""

    FAIL = auto()
    """It did not arrive and never will: it ends with the error of the channel."""
    RESEND = auto()
    """It is published again with the others."""
    RESEND_ALONE = auto()
    """It is published again on a channel of its own: it may have caused the close."""
    UNKNOWN = auto()
    """It may have arrived and must not be published again."""


@dataclass(frozen=True, slots=True)
class AfterClose:
    """The decision about each publication, and the exchange to quarantine, if any."""

    decisions: list[tuple[PendingPublish, ResendDecision]]
    error: AmqpWorkerError
    quarantined: str | None = None


def decide_after_close(
    error: AmqpWorkerError, exchange: str | None, max_body: int, in_flight: Sequence[PendingPublish]
) -> AfterClose:
    """
    Decide what happens to what was in flight when the broker closed a channel, because of `exchange` if it named one.

    The broker does not name the publication at fault: it has accepted those before it, and none after it.
    """
    at_fault: set[PendingPublish] = set()
    again: set[PendingPublish] = set()
    quarantined, is_known = None, True
    large = [one for one in in_flight if len(one.publication.body) > max_body]
    at_exchange = {one for one in in_flight if exchange is not None and one.publication.exchange == exchange}
    if large:
        at_fault, error = set(large), too_large(large[0].publication, max_body)
    elif isinstance(error, AccessRefused) and at_exchange:
        at_fault, quarantined = at_exchange, exchange
    elif isinstance(error, Unroutable) and at_exchange:
        # An exchange that was declared on this connection was deleted meanwhile: it is declared again.
        declared = {one for one in at_exchange if one.declares}
        at_fault, quarantined = at_exchange - declared, None if declared else exchange
        # If it is a single one, it certainly did not arrive, so a call may be published again too.
        again = declared if len(at_exchange) == 1 else again
    elif len(in_flight) == 1:
        at_fault = set(in_flight)
    else:
        is_known = False
    decisions = [
        (one, ResendDecision.RESEND if one in again else _decision_of(one, at_fault, is_known)) for one in in_flight
    ]
    return AfterClose(decisions, error, quarantined)


def _decision_of(pending: PendingPublish, at_fault: set[PendingPublish], is_known: bool) -> ResendDecision:
    """Return what happens to one publication; unless `is_known`, others than `at_fault` may be at fault too."""
    if pending in at_fault:
        # This attempt did not arrive; an earlier one may have, if its confirm was lost with a connection.
        is_unknown = pending.lost_reason and not pending.may_have_closed_channel
        return ResendDecision.UNKNOWN if is_unknown else ResendDecision.FAIL
    if not pending.resend:
        return ResendDecision.UNKNOWN
    return ResendDecision.RESEND if is_known else ResendDecision.RESEND_ALONE
