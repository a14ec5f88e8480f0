"""
What commands show of a dead letter; `model.dead_letter` reads it.

Pure. Never fails on any property of a message, whichever program wrote it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from amqpworker.cli.output import plain
from amqpworker.model.dead_letter import NO_QUEUE, DeadLetter
from amqpworker.model.message import Delivery

BROKER_REASONS = {
    "delivery_limit": "delivered too often (delivery limit)",
    "expired": "its time to live expired (TTL)",
    "maxlen": "its queue was full",
    "rejected": "a consumer rejected it",
}
"""What RabbitMQ's reasons mean (https://www.rabbitmq.com/docs/dlx#effects)."""


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A dead letter and its position in the queue, from 1, the oldest first."""

    position: int
    letter: DeadLetter

    @property
    def reason_text(self) -> str:
        """The reason in words."""
        word = self.letter.reason
        if not self.letter.by_broker:
            return word
        if word == NO_QUEUE:
            return f"queue {self.letter.message.routing_key!r} did not exist when it was due"
        return f"RabbitMQ: {BROKER_REASONS.get(word, word)}"

    def summary(self) -> dict[str, Any]:
        """Return what a list shows, for JSON; the reason ends in ` (RabbitMQ)` if the broker dead-lettered the message."""
        letter = self.letter
        return {
            "position": self.position,
            "id": letter.id,
            "task": letter.task,
            "reason": f"{letter.reason} (RabbitMQ)" if letter.by_broker else letter.reason,
            "error_type": letter.error_type,
            "error": letter.error,
            "failed_at": plain(letter.failed_at),
            "attempt": letter.attempt,
            "worker": letter.worker,
            "problem": letter.problem,
        }

    def whole(self) -> dict[str, Any]:
        """Return everything, for JSON; a body that is not JSON is text."""
        got = self.letter.message
        properties = got.properties.present()
        properties.pop("headers", None)
        return {
            **self.summary(),
            "traceback": self.letter.traceback,
            "first_sent": plain(self.letter.first_sent),
            "queue": self.letter.queue,
            "exchange": got.exchange,
            "routing_key": got.routing_key,
            "redelivered": got.redelivered,
            "properties": plain(properties),
            "headers": plain(got.properties.headers or {}),
            "body": self.body(),
        }

    def body(self) -> Any:
        """Return the value of a JSON body, or any other body as text."""
        try:
            return json.loads(self.letter.message.body)
        except (ValueError, RecursionError):
            return plain(self.letter.message.body)


def letter_of(position: int, queue: str, got: Delivery) -> FoundLetter:
    """Read a message of a dead-letter queue."""
    return FoundLetter(position, DeadLetter.of(got, queue))
