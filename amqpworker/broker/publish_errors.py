"""
What happens to a publication that was not confirmed: the error that it ends with, or another attempt.

Pure. Decides which error reports what is known (whether it was written, whether it may have arrived, what to do), and which
publications caused the broker to close a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from amqpworker.broker.connection_errors import ConnectionProblem
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
    return NotConnected(f"The message was not sent within {timeout:g} s: RabbitMQ responds too slowly.")


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
    what = pending.prepared.publication
    return Unroutable(
        f"No queue is bound to exchange {what.exchange!r} with routing key {what.routing_key!r} "
        f"({pending.returned}): is the name of the queue correct, and was it declared?"
    )


def nacked(pending: PendingPublish, bounded: bool) -> AmqpWorkerError:
    """Return the error of a publication that the broker nacked on every channel; `bounded` if its queue has a known bound."""
    if pending.lost_reason:
        return unconfirmed(f"{pending.lost_reason} It was published again, and its queue rejected it.")
    queue = pending.prepared.publication.routing_key
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
    large = [one for one in in_flight if len(one.prepared.publication.body) > max_body]
    if large:
        error = too_large(large[0].prepared.publication, max_body)
        return AfterClose([(one, _decision_of(one, set(large), True)) for one in in_flight], error)
    at_exchange = {one for one in in_flight if exchange is not None and one.prepared.publication.exchange == exchange}
    if isinstance(error, AccessRefused) and at_exchange:
        return AfterClose([(one, _decision_of(one, at_exchange, True)) for one in in_flight], error, exchange)
    if isinstance(error, Unroutable) and at_exchange:
        # An exchange that was declared on this connection was deleted meanwhile: it is declared again.
        declared = {one for one in at_exchange if one.requirements}
        if declared and len(at_exchange) == 1:
            # It certainly did not arrive, so a call may be published again too.
            return AfterClose(
                [
                    (one, ResendDecision.RESEND if one in at_exchange else _decision_of(one, set(), True))
                    for one in in_flight
                ],
                error,
            )
        decisions = [(one, _decision_of(one, at_exchange - declared, True)) for one in in_flight]
        return AfterClose(decisions, error, None if declared else exchange)
    if len(in_flight) == 1:
        return AfterClose([(in_flight[0], _decision_of(in_flight[0], set(in_flight), True))], error)
    return AfterClose([(one, _decision_of(one, set(), False)) for one in in_flight], error)


def _decision_of(pending: PendingPublish, messages_at_fault: set[PendingPublish], known: bool) -> ResendDecision:
    """Return what happens to one publication; unless `known`, others than `messages_at_fault` may be at fault too."""
    if pending in messages_at_fault:
        # This attempt did not arrive; an earlier one may have, if its confirm was lost with a connection.
        return (
            ResendDecision.UNKNOWN
            if pending.lost_reason and not pending.may_have_closed_channel
            else ResendDecision.FAIL
        )
    if not pending.resend:
        return ResendDecision.UNKNOWN
    return ResendDecision.RESEND if known else ResendDecision.RESEND_ALONE
