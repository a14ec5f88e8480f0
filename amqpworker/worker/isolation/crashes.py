"""
What it means that a message was delivered before, or that the process which ran it has crashed.

Pure. Decides which deliveries run in an isolated process, which are asked about first, and when a message that takes
its process down is dead. Running them there is `pool`'s, asking is `suspects`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from amqpworker.ipc.exit_status import describe_exit
from amqpworker.log.redaction import redact_text
from amqpworker.model.headers import count_of
from amqpworker.model.message import CRASHES, Delivery, Headers
from amqpworker.model.outcome import Dead, Failure, Outcome, Retry
from amqpworker.routing.envelope import MAX_TRACEBACK, capped

__all__ = ["Crash", "RedeliveryAction", "crashed", "redelivery_action"]

DELIVERY_COUNT = "x-delivery-count"
"""How often a quorum queue has delivered a message before (https://www.rabbitmq.com/docs/quorum-queues)."""

# A copy is made of a message that was delivered so often: queues give up at 200, others' may at 20, which is too late.
MOST_DELIVERIES = 50
SUSPECT_DELIVERIES = 2
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
MOST_CRASHES = 1000
MIB = 1024 * 1024
NO_HEADERS: Headers = {}


class RedeliveryAction(Enum):
    """What is done first with a delivery that came before: run it as any other, ask the supervisor, isolate it, copy it."""

    RUN = auto()
    ASK = auto()
    ISOLATE = auto()
    RENEW = auto()


def redelivery_action(delivery: Delivery, supervised: bool) -> RedeliveryAction:
    """
    Decide about a delivery that may have taken a process down; if `supervised`, there is a supervisor that can be asked.

    The broker's count may be forged. It also grows for the neighbours of the guilty, with each lost connection, and (before
    RabbitMQ 4.3) with each delivery that we requeue ourselves. So it decides only where nobody can be asked.
    """
    headers = delivery.properties.headers or NO_HEADERS
    if (count_of(headers.get(CRASHES)) or 0) > 0:
        return RedeliveryAction.ISOLATE
    if not delivery.redelivered:
        return RedeliveryAction.RUN
    count = count_of(headers.get(DELIVERY_COUNT)) or 0
    if count > MOST_DELIVERIES:
        return RedeliveryAction.RENEW
    if supervised:
        return RedeliveryAction.ASK
    return RedeliveryAction.ISOLATE if count >= SUSPECT_DELIVERIES else RedeliveryAction.RUN


@dataclass(frozen=True, slots=True)
class Crash:
    """
    The end of an isolated process while it ran a task.

    `code` is its exit code, or (negative) the signal that ended it, None where nobody can tell; `memory` the most bytes
    that it held, `stack` where it was, as far as that is known; `why` tells why it was killed, where we did that.
    """

    code: int | None
    memory: int = 0
    stack: str = ""
    why: str = ""

    @property
    def how(self) -> str:
        """How it ended, in few words."""
        return "an unknown exit code" if self.code is None else describe_exit(self.code)


def crashed(delivery: Delivery, crash: Crash, max_crashes: int) -> Outcome:
    """Decide how a delivery ends whose task took its isolated process down: it is tried again, or dead in the end."""
    before = count_of((delivery.properties.headers or NO_HEADERS).get(CRASHES)) or 0
    crashes = min(max(0, before), MOST_CRASHES) + 1
    held = f", after it had held up to {-(-crash.memory // MIB)} MiB of memory" if crash.memory else ""
    text = f"the isolated process that ran it ended by {crash.how}{held}: crash {crashes} of {max_crashes}"
    if crash.why:
        text = f"{text} ({crash.why})"
    failure = Failure(crash.how, text, capped(redact_text(crash.stack), MAX_TRACEBACK))
    if crashes >= max_crashes:
        return Dead("crashed", failure, crashes)
    pause = min(FIRST_PAUSE * 2.0 ** (crashes - 1), LONGEST_PAUSE)
    return Retry(pause, failure, counts=False, crashes=crashes)
