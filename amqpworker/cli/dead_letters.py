"""
What is known of a dead letter: amqpworker dead-lettered it, with evidence headers, or the broker, with `x-death`.

Pure. Decides which untrusted properties are believed, and never fails on any of them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from amqpworker.cli.output import plain
from amqpworker.model.headers import EPOCH, count_of, time_of
from amqpworker.model.message import (
    ATTEMPT,
    DEAD_REASON,
    ERROR_TEXT,
    ERROR_TYPE,
    FAILED_AT,
    FIRST_SENT,
    TRACEBACK,
    WORKER,
    Delivery,
)

__all__ = ["FoundLetter", "letter_of"]

DEATHS = "x-death"
BY_BROKER = " (RabbitMQ)"
LEVEL = re.compile(r"\.delay\.\d\d")
NO_QUEUE = "no-queue"
BROKER_REASONS = {
    "delivery_limit": "delivered too often (delivery limit)",
    "expired": "its time to live expired (TTL)",
    "maxlen": "its queue was full",
    "rejected": "a consumer rejected it",
}
"""What RabbitMQ's reasons mean (https://www.rabbitmq.com/docs/dlx#effects)."""


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """
    One dead letter, as far as it can be read; `position` counts from 1, the oldest first.

    `reason` is a word for programs, with ` (RabbitMQ)` if the broker dead-lettered it; `reason_text` is for people.
    """

    position: int
    id: str
    task: str
    queue: str
    reason: str
    error_type: str
    error: str
    traceback: str
    attempt: int
    failed_at: datetime | None
    first_sent: datetime | None
    worker: str
    problem: str
    message: Delivery

    @property
    def reason_text(self) -> str:
        """The reason in words."""
        word, by_broker, _ = self.reason.partition(BY_BROKER)
        if not by_broker:
            return self.reason
        if word == NO_QUEUE:
            return f"queue {self.message.routing_key!r} did not exist when it was due"
        return f"RabbitMQ: {BROKER_REASONS.get(word, word)}"

    def summary(self) -> dict[str, Any]:
        """Return what a list shows, for JSON."""
        return {
            "position": self.position,
            "id": self.id,
            "task": self.task,
            "reason": self.reason,
            "error_type": self.error_type,
            "error": self.error,
            "failed_at": plain(self.failed_at),
            "attempt": self.attempt,
            "worker": self.worker,
            "problem": self.problem,
        }

    def whole(self) -> dict[str, Any]:
        """Return everything, for JSON; a body that is not JSON is text."""
        got = self.message
        properties = got.properties.present()
        properties.pop("headers", None)
        return {
            **self.summary(),
            "traceback": self.traceback,
            "first_sent": plain(self.first_sent),
            "queue": self.queue,
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
            return json.loads(self.message.body)
        except (ValueError, RecursionError):
            return plain(self.message.body)


def letter_of(position: int, queue: str, got: Delivery) -> FoundLetter:
    """Read a message of a dead-letter queue."""
    headers = got.properties.headers or {}
    death = first_death(headers.get(DEATHS))
    reason = text_of(headers.get(DEAD_REASON)) or (reason_of(death) + BY_BROKER if death else "")
    return FoundLetter(
        position,
        text_of(got.properties.message_id),
        text_of(got.properties.type),
        queue,
        reason,
        text_of(headers.get(ERROR_TYPE)),
        text_of(headers.get(ERROR_TEXT)),
        text_of(headers.get(TRACEBACK)),
        max(1, count_of(headers.get(ATTEMPT)) or 1),
        datetime_of(headers.get(FAILED_AT)) or time_of_death(death),
        datetime_of(headers.get(FIRST_SENT)),
        text_of(headers.get(WORKER)),
        got.problem,
        got,
    )


def first_death(deaths: Any) -> dict[str, Any]:
    """Return the latest entry of `x-death`; empty if there is none, or it is forged."""
    found = deaths[0] if isinstance(deaths, list) and deaths else None
    return found if isinstance(found, dict) else {}


def reason_of(death: dict[str, Any]) -> str:
    """Return why the broker dead-lettered it; `no-queue` if its delay was over and its queue did not exist."""
    waited = LEVEL.search(text_of(death.get("queue"))) is not None and death.get("reason") == "expired"
    return NO_QUEUE if waited else text_of(death.get("reason"))


def text_of(value: Any) -> str:
    """Return a header's value as text."""
    return "" if value is None else str(plain(value))


def time_of_death(death: dict[str, Any]) -> datetime | None:
    """Return when the broker dead-lettered it."""
    time = death.get("time")
    return time if isinstance(time, datetime) else None


def datetime_of(value: Any) -> datetime | None:
    """Return the time in a header; None if it is not a time, or out of range."""
    milliseconds = time_of(value)
    try:
        return None if milliseconds is None else EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None
