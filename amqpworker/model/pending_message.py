"""
A message that waits in the delay ladder as a value: when it is due, and why it waits.

Decides which of its headers are believed, and never fails on any of them: other programs may have written them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from amqpworker.model import headers as h
from amqpworker.model.message import Delivery, Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingMessage:
    """
    One message that waits; a text is "" if it is not known.

    It is delivered to `queue` at `due`, in UTC; if `is_latest`, that is only the latest possible time, since its headers do not
    have the exact one. It is the run `attempt`, from 1; `unknown_since` is set if no worker that received it knew its task.
    `message` is the message itself.
    """

    id: str
    task: str
    queue: str
    due: datetime
    is_latest: bool
    attempt: int
    first_sent: datetime | None
    expires: datetime | None
    unknown_since: datetime | None
    message: Delivery

    @classmethod
    def of(cls, message: Delivery, longest_wait: float, now: float) -> PendingMessage:
        """Read a message that was in a level at `now` (seconds since the epoch), and is delivered within `longest_wait` seconds."""
        headers = message.properties.headers or {}
        latest = now + longest_wait
        eta = h.time_of(headers.get(h.ETA))
        # One that was deferred or postponed keeps its time, which is over: it waits for something else.
        is_exact = eta is not None and now <= eta / 1000 <= latest + 1
        due = eta / 1000 if is_exact and eta is not None else latest
        return cls(
            id=_text(message.properties.message_id),
            task=_text(message.properties.type),
            queue=message.routing_key,
            due=_moment(due * 1000),
            is_latest=not is_exact,
            attempt=max(1, h.count_of(headers.get(h.ATTEMPT)) or 1),
            first_sent=_time_in(headers, h.FIRST_SENT),
            expires=_time_in(headers, h.EXPIRES),
            unknown_since=_time_in(headers, h.UNKNOWN_SINCE),
            message=message,
        )


def _moment(milliseconds: float) -> datetime:
    return h.EPOCH + timedelta(milliseconds=min(max(int(milliseconds), h.EARLIEST), h.LATEST))


def _time_in(headers: Headers, name: str) -> datetime | None:
    milliseconds = h.time_of(headers.get(name))
    return None if milliseconds is None else _moment(milliseconds)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
