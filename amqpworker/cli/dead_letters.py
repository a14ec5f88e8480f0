"""
What commands show of a dead letter; `model.dead_letter` reads it.

Pure. Never fails on any property of a message, whichever program wrote it.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from amqpworker.cli.output import plain
from amqpworker.model.dead_letter import NO_QUEUE, DeadLetter
from amqpworker.model.headers import now_text
from amqpworker.model.letter_groups import LetterGroup

BROKER_REASONS = {
    "delivery_limit": "delivered too often (delivery limit)",
    "expired": "its time to live expired (TTL)",
    "maxlen": "its queue was full",
    "rejected": "a consumer rejected it",
}
"""What RabbitMQ's reasons mean (https://www.rabbitmq.com/docs/dlx#effects)."""


def reason_text(letter: DeadLetter) -> str:
    """Return the reason in words."""
    if letter.by_broker and letter.reason == NO_QUEUE:
        return f"queue {letter.message.routing_key!r} did not exist when it was due"
    return reason_in_words(letter.reason, letter.by_broker)


def reason_in_words(reason: str, by_broker: bool) -> str:
    """Return the reason of several letters in words."""
    if not by_broker:
        return reason
    if reason == NO_QUEUE:
        return "its queue did not exist when it was due"
    return f"RabbitMQ: {BROKER_REASONS.get(reason, reason)}"


def _reason(reason: str, by_broker: bool) -> str:
    return f"{reason} (RabbitMQ)" if by_broker else reason


def _time(time: datetime | None) -> str | None:
    """Return a time as the wire contract writes it."""
    return None if time is None else now_text(time.timestamp())


def group_summary(group: LetterGroup) -> dict[str, Any]:
    """Return a group for JSON; those of a queue that are not in a group of their own have no `group`."""
    return {
        "queue": group.queue,
        "task": group.task,
        "group": group.fingerprint or None,
        "reason": _reason(group.reason, group.by_broker),
        "error_type": group.error_type,
        "error": group.error,
        "count": group.count,
        "first": _time(group.first),
        "last": _time(group.last),
    }


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Return what a list shows, for JSON; the reason ends in ` (RabbitMQ)` if the broker dead-lettered the message."""
    return {
        "name": letter.name,
        "id": letter.id,
        "task": letter.task,
        "queue": letter.queue,
        "group": letter.fingerprint,
        "reason": _reason(letter.reason, letter.by_broker),
        "error_type": letter.error_type,
        "error": letter.error,
        "failed_at": _time(letter.failed_at),
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
        "first_sent": _time(letter.first_sent),
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
