"""
What commands show of a dead letter; `model.dead_letter` reads it.

Pure. Never fails on any property of a message, whichever program wrote it.
"""

from __future__ import annotations

import json
from typing import Any

from amqpworker.cli.output import plain
from amqpworker.model.dead_letter import NO_QUEUE, DeadLetter

BROKER_REASONS = {
    "delivery_limit": "delivered too often (delivery limit)",
    "expired": "its time to live expired (TTL)",
    "maxlen": "its queue was full",
    "rejected": "a consumer rejected it",
}
"""What RabbitMQ's reasons mean (https://www.rabbitmq.com/docs/dlx#effects)."""


def reason_text(letter: DeadLetter) -> str:
    """Return the reason in words."""
    word = letter.reason
    if not letter.by_broker:
        return word
    if word == NO_QUEUE:
        return f"queue {letter.message.routing_key!r} did not exist when it was due"
    return f"RabbitMQ: {BROKER_REASONS.get(word, word)}"


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Return what a list shows, for JSON; the reason ends in ` (RabbitMQ)` if the broker dead-lettered the message."""
    return {
        "position": letter.position,
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


def whole(letter: DeadLetter) -> dict[str, Any]:
    """Return everything, for JSON; a body that is not JSON is text."""
    message = letter.message
    properties = message.properties.present()
    properties.pop("headers", None)
    return {
        **summary(letter),
        "traceback": letter.traceback,
        "first_sent": plain(letter.first_sent),
        "queue": letter.queue,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "redelivered": message.redelivered,
        "properties": plain(properties),
        "headers": plain(message.properties.headers or {}),
        "body": _value_of(message.body),
    }


def _value_of(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return plain(body)
