"""
How long the broker waits for an acknowledgement, where it lets each consumer choose: from RabbitMQ 4.3 on.

Decides whether it is asked for. Pure: what a refusal leads to is `consumer`'s.
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
"""

from __future__ import annotations

import re

from pika import exceptions

from amqpworker.settings import Settings

__all__ = ["asked_for", "cancels", "is_refused", "passed"]

# Earlier ones take the argument and do not heed it (3.10 to 4.2).
FIRST = (4, 3)
ARGUMENT = "x-consumer-timeout"
LATE = re.compile(r"acknowledgement on channel \d+ timed out(?:.*?(\d+) ms)?", re.DOTALL)


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


def cancels(version: tuple[int, ...]) -> bool:
    """Return whether a broker ends the subscription when its ack timeout has passed; earlier ones close the channel."""
    return version >= FIRST


def passed(error: BaseException, known: float) -> float | None:
    """
    Return the ack timeout that has closed a channel, in seconds, None if something else has.

    It is `known`, unless the text of the broker has it.
    """
    text = error.reply_text if isinstance(error, exceptions.ChannelClosedByBroker) else ""
    found = LATE.search(text)
    if found is None:
        return None
    return int(found[1]) / 1000 if found[1] else known
