"""
What becomes of a publication that was not confirmed: the error that it ends with, or another attempt.

Pure. Decides which error says what is known: whether it left, whether it may have arrived, and what to do about it; and
which publications were the reason why the broker closed a channel.
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
from amqpworker.model.message import Publication

__all__ = [
    "AfterClose",
    "ResendDecision",
    "after_close",
    "not_confirmed",
    "not_connected",
    "not_taken",
    "not_written",
    "refusal_pause",
    "too_large",
    "unconfirmed",
    "unroutable",
]

FIRST_REFUSAL_PAUSE = 0.1
LONGEST_REFUSAL_PAUSE = 2.0


def not_connected(problem: ConnectionProblem | None, places: str) -> AmqpWorkerError:
    """Return the error of a publication for which there was no connection to the broker at `places` in time."""
    reason = problem.text if problem is not None else f"it is still connecting to {places}."
    return NotConnected(f"There was no connection to RabbitMQ in time: {reason}")


def not_written(blocked: bool) -> AmqpWorkerError:
    """Return the error of a publication that waited for its turn on an open connection for too long."""
    if blocked:
        return ConnectionBlocked("RabbitMQ takes no messages: it is under a memory or disk alarm.")
    return NotConnected("The message could not be written in time: RabbitMQ answers too slowly.")


def not_confirmed(blocked: bool) -> AmqpWorkerError:
    """Return the error of a publication that was written, and not confirmed in time."""
    if blocked:
        return ConnectionBlocked("RabbitMQ came under a memory or disk alarm: the message may arrive once it ends.")
    return unconfirmed("it did not confirm in time.")


def unconfirmed(reason: str) -> Unconfirmed:
    """Return the error of a publication whose fate is unknown."""
    return Unconfirmed(f"RabbitMQ did not confirm the message, so it may have arrived or not: {reason}")


def unroutable(outgoing: PendingPublish) -> AmqpWorkerError:
    """Return the error of a publication that the broker returned; an earlier one under its id may have arrived."""
    if outgoing.lost:
        return unconfirmed(f"{outgoing.lost} It was published again, and no queue took it.")
    what = outgoing.prepared.publication
    return Unroutable(
        f"No queue takes messages from exchange {what.exchange!r} with routing key {what.routing_key!r} "
        f"({outgoing.returned}): is the queue's name right, and was it declared?"
    )


def not_taken(outgoing: PendingPublish, bounded: bool) -> AmqpWorkerError:
    """Return the error of a publication that the broker refused on every channel; `bounded` if its queue has a known bound."""
    if outgoing.lost:
        return unconfirmed(f"{outgoing.lost} It was published again, and its queue refused it.")
    queue = outgoing.prepared.publication.routing_key
    if bounded:
        return QueueFull(f"Queue {queue!r} is full and refused the message: send it again later.")
    return QueueUnavailable(
        f"Queue {queue!r} refused the message {outgoing.refusals} times: most of its members are not up, or it has a "
        f"bound that this app does not name, and is full."
    )


def too_large(publication: Publication, most: int) -> AmqpWorkerError:
    """Return the error of a publication that is above the broker's `max_message_size`."""
    return InvalidArguments(
        f"The message for queue {publication.routing_key!r} has {len(publication.body)} bytes, and this broker takes at "
        f"most {most} (max_message_size): send a reference to the data instead."
    )


def refusal_pause(refusals: int) -> float:
    """
    Return the seconds until a publication that was refused this often is published again, on a channel opened since.

    The first time it is at once: RabbitMQ 3.10 refuses whatever comes by a channel that was opened within 0.25 s of the
    death of a leader's node, for as long as that node stays down, and takes it on another channel.
    """
    if refusals <= 1:
        return 0.0
    return min(LONGEST_REFUSAL_PAUSE, FIRST_REFUSAL_PAUSE * 2.0 ** min(refusals - 2, 10))


class ResendDecision(Enum):
    """What becomes of one publication that was in flight when its channel was closed."""

    FAILS = auto()
    """It did not arrive, and never will: it ends with the channel's error."""
    AGAIN = auto()
    """It is published again, with the others."""
    ALONE = auto()
    """It is published again, on a channel of its own: it may be what closed this one."""
    UNKNOWN = auto()
    """It is not to be published again, and may have arrived."""


@dataclass(frozen=True, slots=True)
class AfterClose:
    """What becomes of each publication, and the exchange that no channel but one of its own is to publish to, if any."""

    verdicts: list[tuple[PendingPublish, ResendDecision]]
    error: AmqpWorkerError
    quarantined: str | None = None


def after_close(
    told: AmqpWorkerError, exchange: str | None, max_body: int, in_flight: Sequence[PendingPublish]
) -> AfterClose:
    """
    Decide what becomes of what was in flight when the broker closed a channel, because of `exchange` if it named one.

    It does not say which publication it stumbled over: what came before that one is taken, what came after it is not.
    """
    large = [one for one in in_flight if len(one.prepared.publication.body) > max_body]
    if large:
        guilty = set(large)
        error = too_large(large[0].prepared.publication, max_body)
        return AfterClose([(one, decision_of(one, guilty, True)) for one in in_flight], error)
    mine = {one for one in in_flight if exchange is not None and one.prepared.publication.exchange == exchange}
    if isinstance(told, AccessRefused) and mine:
        return AfterClose([(one, decision_of(one, mine, True)) for one in in_flight], told, exchange)
    if isinstance(told, Unroutable) and mine:
        # An exchange that was declared on this connection went meanwhile: it is declared again.
        declared = {one for one in mine if one.requirements}
        if declared and len(mine) == 1:
            # It certainly did not arrive, so that a call, too, may be published again.
            return AfterClose(
                [(one, ResendDecision.AGAIN if one in mine else decision_of(one, set(), True)) for one in in_flight],
                told,
            )
        verdicts = [(one, decision_of(one, mine - declared, True)) for one in in_flight]
        return AfterClose(verdicts, told, None if declared else exchange)
    if len(in_flight) == 1:
        return AfterClose([(in_flight[0], decision_of(in_flight[0], set(in_flight), True))], told)
    return AfterClose([(one, decision_of(one, set(), False)) for one in in_flight], told)


def decision_of(outgoing: PendingPublish, guilty: set[PendingPublish], known: bool) -> ResendDecision:
    """Return what becomes of one publication; the guilty are all `known`, or anybody may be."""
    if outgoing in guilty:
        # It did not arrive this time; it may have before, if its confirm was lost with a connection.
        return ResendDecision.UNKNOWN if outgoing.lost and not outgoing.alone else ResendDecision.FAILS
    if not outgoing.resend:
        return ResendDecision.UNKNOWN
    return ResendDecision.AGAIN if known else ResendDecision.ALONE
