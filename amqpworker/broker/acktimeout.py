"""
How long the broker waits for an acknowledgement, where it lets each consumer choose: from RabbitMQ 4.3 on.

Decides whether it is asked for. Pure: what a refusal leads to is `consumer`'s.
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
"""

from __future__ import annotations

from pika import exceptions

from amqpworker.settings import Settings

__all__ = ["asked_for", "is_refused"]

# Earlier ones take the argument and do not heed it (3.10 to 4.2).
FIRST = (4, 3)
ARGUMENT = "x-consumer-timeout"


def asked_for(settings: Settings, version: tuple[int, ...]) -> dict[str, int]:
    """
    Return the arguments of a subscription: with the app's `ack_timeout` where it was given and the broker heeds it.

    What nobody has given is only what RabbitMQ has by default: the operator of the broker may have another.
    """
    if "ack_timeout" not in settings.model_fields_set or version < FIRST:
        return {}
    return {ARGUMENT: max(1, round(settings.ack_timeout * 1000))}


def is_refused(error: BaseException) -> bool:
    """Tell whether a subscription was refused because of it: classic queues know no such thing, and need none."""
    return isinstance(error, exceptions.ChannelClosedByBroker) and ARGUMENT in error.reply_text
