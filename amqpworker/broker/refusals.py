"""
The errors that a publication ends with.

Decides which error says what is known: whether it left, whether it may have arrived, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

from amqpworker.broker.outgoing import Outgoing
from amqpworker.broker.reasons import ConnectionProblem
from amqpworker.errors import AmqpWorkerError, Blocked, Forbidden, NotConnected, NotRouted, QueueFull, Unconfirmed

__all__ = ["culprits", "not_confirmed", "not_connected", "not_written", "refusal", "unconfirmed"]


def not_connected(problem: ConnectionProblem | None) -> AmqpWorkerError:
    """Return the error of a publication for which there was no connection in time."""
    reason = problem.text if problem is not None else "it is still connecting."
    return NotConnected(f"There was no connection to RabbitMQ in time: {reason}")


def not_written(blocked: bool) -> AmqpWorkerError:
    """Return the error of a publication that waited for its turn on an open connection for too long."""
    if blocked:
        return Blocked("RabbitMQ takes no messages: it is under a memory or disk alarm.")
    return NotConnected("The message could not be written in time: RabbitMQ answers too slowly.")


def not_confirmed(blocked: bool) -> AmqpWorkerError:
    """Return the error of a publication that was written, and not confirmed in time."""
    if blocked:
        return Blocked("RabbitMQ came under a memory or disk alarm: the message may arrive once it ends.")
    return unconfirmed("it did not confirm in time.")


def culprits(told: AmqpWorkerError, exchange: str | None, in_flight: Sequence[Outgoing]) -> set[Outgoing]:
    """
    Return the publications that certainly did not arrive when the broker closed their channel because of `exchange`.

    It does not say which one it stumbled over: what came before that one is taken, what came after it is not.
    """
    mine = {one for one in in_flight if one.prepared.publication.exchange == exchange}
    if isinstance(told, Forbidden):
        return mine
    # Where the exchange was declared on this connection it went meanwhile, and may have taken some before.
    never_was = not any(one.needs for one in mine)
    return mine if isinstance(told, NotRouted) and (never_was or len(mine) == 1) else set()


def unconfirmed(reason: str) -> Unconfirmed:
    """Return the error of a publication whose fate is unknown."""
    return Unconfirmed(f"RabbitMQ did not confirm the message, so it may have arrived or not: {reason}")


def refusal(outgoing: Outgoing, ack: bool) -> AmqpWorkerError:
    """Return why the broker did not take a publication."""
    what = outgoing.prepared.publication
    if not ack:
        return QueueFull(
            f"Queue {what.routing_key!r} refused the message: it is full, or most of its members are not up."
        )
    return NotRouted(
        f"No queue takes messages from exchange {what.exchange!r} with routing key {what.routing_key!r} "
        f"({outgoing.returned}): is the queue's name right, and was it declared?"
    )
