"""
What it means that a message was delivered before.

Pure. Decides which deliveries run in an isolated process, and about which the supervisor is asked first.
"""

from __future__ import annotations

from enum import Enum, auto

from amqpworker.model.dead_letter import has_waited
from amqpworker.model.headers import CRASHES, count_of
from amqpworker.model.message import Delivery, Headers

DELIVERY_COUNT = "x-delivery-count"
"""How often a quorum queue has delivered a message before (https://www.rabbitmq.com/docs/quorum-queues)."""

# A message that was delivered this often is republished: its queue drops it at 200 deliveries. A queue that another program has
# declared may drop it earlier than this: at 20, RabbitMQ's default from 4.0 on.
MAX_DELIVERIES = 50
SUSPECT_DELIVERIES = 2
NO_HEADERS: Headers = {}


class RedeliveryAction(Enum):
    """What to do with a redelivered message: run it like any other, ask the supervisor, isolate it, republish it."""

    RUN = auto()
    ASK = auto()
    ISOLATE = auto()
    REPUBLISH = auto()


def redelivery_action(delivery: Delivery, supervised: bool, replacements: int = 0) -> RedeliveryAction:
    """
    Decide about a delivery that may have crashed a process; if `supervised`, there is a supervisor to ask.

    `replacements` is how often this process has replaced its consumer of the queue: the broker redelivers what it was sending
    then, and counts that.

    The broker's count may be forged. It also grows for messages that only ran beside the guilty one, with each lost
    connection, and (before RabbitMQ 4.3) with each delivery that we requeue ourselves. So it decides only if there is no
    supervisor.
    """
    headers = delivery.properties.headers or NO_HEADERS
    if (count_of(headers.get(CRASHES)) or 0) > 0:
        return RedeliveryAction.ISOLATE
    if not delivery.redelivered:
        return RedeliveryAction.RUN
    count = count_of(headers.get(DELIVERY_COUNT)) or 0
    if count > MAX_DELIVERIES:
        return RedeliveryAction.REPUBLISH
    if supervised:
        return RedeliveryAction.ASK
    if count < SUSPECT_DELIVERIES + replacements:
        return RedeliveryAction.RUN
    # From RabbitMQ 4.0 on, the count includes deliveries to tools that read a delay level. A copy is counted from zero.
    return RedeliveryAction.REPUBLISH if has_waited(headers) else RedeliveryAction.ISOLATE
