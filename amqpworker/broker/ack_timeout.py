"""
How long the broker waits for an acknowledgement: from RabbitMQ 4.3 on each consumer may choose.

Decides whether to ask for it; pure.
https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout
"""

from __future__ import annotations

import re

from amqpworker.broker.connection import ChannelClosedByBroker
from amqpworker.settings import Settings

# Earlier ones accept the argument and ignore it (3.10 to 4.2).
FIRST = (4, 3)
ARGUMENT = "x-consumer-timeout"
LATE = re.compile(r"acknowledgement on channel \d+ timed out(?:.*?(\d+) ms)?", re.DOTALL)


def ack_timeout_arguments(settings: Settings, version: tuple[int, ...]) -> dict[str, int]:
    """
    Return the arguments of a subscription: the app's `ack_timeout`, if it was set and the broker supports it.

    The default of the setting is only RabbitMQ's default: the operator of the broker may have another.
    """
    if "ack_timeout" not in settings.model_fields_set or version < FIRST:
        return {}
    return {ARGUMENT: max(1, round(settings.ack_timeout * 1000))}


def refuses_ack_timeout(error: BaseException) -> bool:
    """Return whether a subscription was refused because of it: classic queues do not support it, and need none."""
    return isinstance(error, ChannelClosedByBroker) and ARGUMENT in error.reply_text


def cancels_after_ack_timeout(version: tuple[int, ...]) -> bool:
    """Return whether a broker cancels the subscription when its ack timeout has passed; earlier ones close the channel."""
    return version >= FIRST


def ack_timeout_that_closed(error: BaseException, known: float) -> float | None:
    """Return the seconds of the ack timeout that closed a channel, `known` unless the broker names it; None if another error did."""
    text = error.reply_text if isinstance(error, ChannelClosedByBroker) else ""
    found = LATE.search(text)
    if found is None:
        return None
    return int(found[1]) / 1000 if found[1] else known
