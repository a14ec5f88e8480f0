"""
Which publication a token, or a command to a scheduler, becomes.

Both are messages in the queue of the schedulers of one name: docs/wire.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic_core import to_json

from amqpworker.model import headers as h
from amqpworker.model.headers import now_text
from amqpworker.model.message import JSON, PERSISTENT, REPLY_TO, Headers, Properties, Publication, new_id
from amqpworker.routing.topology import Names

# The `type` of each message.
TOKEN, PAUSE, RESUME, LIST = "token", "pause", "resume", "list"


@dataclass(frozen=True, slots=True)
class Command:
    """What the leader of a scheduler is asked to do; `list` is about all of its schedules."""

    type: Literal["pause", "resume", "list"]
    scheduler: str
    schedule: str = ""


def publication_of_command(
    command: Command, correlation_id: str, timeout: float, names: Names, now: float
) -> Publication:
    """
    Return a command as a message whose sender waits `timeout` seconds for the reply.

    `list` expires after that time, by the clock of the broker; `pause` and `resume` wait in the queue for a leader.
    """
    headers: Headers = {h.FIRST_SENT: now_text(now)}
    expires = command.type == LIST
    if expires:
        headers[h.EXPIRES] = now_text(now + timeout)
    properties = Properties(
        content_type=JSON,
        headers=headers,
        delivery_mode=PERSISTENT,
        expiration=str(round(timeout * 1000)) if expires else None,
        message_id=new_id(),
        type=command.type,
        timestamp=int(now),
        reply_to=REPLY_TO,
        correlation_id=correlation_id,
    )
    body = to_json({"schedule": command.schedule} if command.schedule else {})
    return Publication(names.schedule, command.scheduler, properties, body)


def publication_of_token(
    body: bytes, scheduler: str, message_id: str, names: Names, now: float, correlation_id: str | None = None
) -> Publication:
    """Return a token as a message; with a correlation id, the leader replies to it."""
    properties = Properties(
        content_type=JSON,
        headers={h.FIRST_SENT: now_text(now)},
        delivery_mode=PERSISTENT,
        message_id=message_id,
        type=TOKEN,
        timestamp=int(now),
        reply_to=None if correlation_id is None else REPLY_TO,
        correlation_id=correlation_id,
    )
    return Publication(names.schedule, scheduler, properties, body)
