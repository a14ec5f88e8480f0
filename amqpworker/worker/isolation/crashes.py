"""
What it means that a message was delivered before, and how an isolated process crashed.

Pure. Decides which deliveries run in an isolated process, and about which the supervisor is asked first. `pool` runs them,
`suspects` asks, and `outcomes` decides when a message that crashes its process is dead-lettered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from amqpworker.ipc.exit_status import describe_exit
from amqpworker.model.headers import CRASHES, count_of
from amqpworker.model.message import Delivery, Headers

DELIVERY_COUNT = "x-delivery-count"
"""How often a quorum queue has delivered a message before (https://www.rabbitmq.com/docs/quorum-queues)."""

# A message that was delivered this often is republished: queues drop it at 200. Those of others may at 20, before this.
MOST_DELIVERIES = 50
SUSPECT_DELIVERIES = 2
MIB = 1024 * 1024
NO_HEADERS: Headers = {}


class RedeliveryAction(Enum):
    """What to do with a redelivered message: run it like any other, ask the supervisor, isolate it, republish it."""

    RUN = auto()
    ASK = auto()
    ISOLATE = auto()
    REPUBLISH = auto()


def redelivery_action(delivery: Delivery, supervised: bool) -> RedeliveryAction:
    """
    Decide about a delivery that may have crashed a process; if `supervised`, there is a supervisor to ask.

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
    if count > MOST_DELIVERIES:
        return RedeliveryAction.REPUBLISH
    if supervised:
        return RedeliveryAction.ASK
    return RedeliveryAction.ISOLATE if count >= SUSPECT_DELIVERIES else RedeliveryAction.RUN


@dataclass(frozen=True, slots=True)
class Crash:
    """
    How an isolated process ended while it ran a task.

    `code` is its exit code, or (negative) the signal that ended it, None if that is unknown. `memory` is the most bytes that
    it used, `stack` where it was, if that is known, and `reason` why it was killed, if we killed it.
    """

    code: int | None
    memory: int = 0
    stack: str = ""
    reason: str = ""

    @property
    def how(self) -> str:
        """How it ended, in few words."""
        return "an unknown exit code" if self.code is None else describe_exit(self.code)
