"""
A dead letter as a value: what amqpworker recorded in headers, or what the broker recorded in `x-death`.

Decides which headers of a message are believed, and never fails on any of them: other programs may have written them.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from amqpworker.model import headers as h
from amqpworker.model.fingerprint import fingerprint_of
from amqpworker.model.message import Delivery, Headers

DEATHS = "x-death"
NO_QUEUE = "no-queue"
"""The reason of a message whose delay was over when its queue did not exist."""

HASHED = "sha256:"
"""What the name of a letter without an id begins with; digits of a hash follow."""

NAME_DIGITS = 12

_LEVEL = re.compile(r"\.delay\.\d\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """
    One dead letter, as far as it can be read; a text is "" if it is not known.

    `queue` is the queue that it is in, and `position` where in it, from 1, the oldest first, 0 if it was not read from there.
    `reason` is a word; `by_broker` if the broker dead-lettered the message by itself.
    """

    position: int
    id: str
    task: str
    queue: str
    reason: str
    by_broker: bool
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
    def name(self) -> str:
        """What commands call it: its id, or without one `sha256:` and 12 digits over its queue, body and time of death."""
        if self.id:
            return self.id
        died = "" if self.failed_at is None else h.now_text(self.failed_at.timestamp())
        hashed = hashlib.sha256(self.queue.encode("utf-8", "backslashreplace"))
        for part in (died.encode(), self.message.body):
            hashed.update(b"\0" + part)
        return HASHED + hashed.hexdigest()[:NAME_DIGITS]

    @property
    def fingerprint(self) -> str:
        """What letters with the same error have in common, without numbers, ids and quoted parts: eight digits."""
        return fingerprint_of(self.error_type, self.error or self.problem or self.reason)

    @classmethod
    def of(cls, message: Delivery, queue: str, position: int = 0) -> DeadLetter:
        """Read a message of the dead-letter queue `queue`."""
        properties = message.properties
        headers = properties.headers or {}
        death = _last_death(headers.get(DEATHS))
        reason = _text(headers.get(h.DEAD_REASON))
        return cls(
            position=position,
            id=_text(properties.message_id),
            task=_text(properties.type),
            queue=queue,
            reason=reason or _reason(death),
            by_broker=bool(death) and not reason,
            error_type=_text(headers.get(h.ERROR_TYPE)),
            error=_text(headers.get(h.ERROR_TEXT)),
            traceback=_text(headers.get(h.TRACEBACK)),
            attempt=max(1, h.count_of(headers.get(h.ATTEMPT)) or 1),
            failed_at=_datetime(headers.get(h.FAILED_AT)) or _time_of(death),
            first_sent=_datetime(headers.get(h.FIRST_SENT)),
            worker=_text(headers.get(h.WORKER)),
            problem=message.problem,
            message=message,
        )


def has_waited(headers: Headers) -> bool:
    """Return whether a message has been in a level of the delay ladder, since it was published."""
    deaths = headers.get(DEATHS)
    entries = deaths if isinstance(deaths, list) else []
    return any(isinstance(one, dict) and _LEVEL.search(_text(one.get("queue"))) is not None for one in entries)


def _last_death(deaths: Any) -> dict[str, Any]:
    """Return the entry of the latest death by the broker; empty if there is none, or it is forged."""
    found = deaths[0] if isinstance(deaths, list) and deaths else None
    return found if isinstance(found, dict) else {}


def _reason(death: dict[str, Any]) -> str:
    reason = _text(death.get("reason"))
    waited = reason == "expired" and _LEVEL.search(_text(death.get("queue"))) is not None
    return NO_QUEUE if waited else reason


def _time_of(death: dict[str, Any]) -> datetime | None:
    time = death.get("time")
    return time if isinstance(time, datetime) else None


def _datetime(value: Any) -> datetime | None:
    """Return the time in a header; `None` if it is not a time, or not one that a `datetime` holds."""
    milliseconds = h.time_of(value)
    try:
        return None if milliseconds is None else h.EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
