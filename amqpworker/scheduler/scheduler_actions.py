"""
What a scheduler does, as a closed set of frozen values: `election` and `leader` decide, `performer` acts.

Times are milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from amqpworker.model.message import Delivery
from amqpworker.scheduler.token import Token


@dataclass(frozen=True, slots=True)
class SendTick:
    """Send the message of a schedule for one of its times; the reply is `on_tick_ended`."""

    schedule: str
    nominal: int


@dataclass(frozen=True, slots=True)
class PutToken:
    """Put a token into the queue; the reply is `on_token_ended` with its `message_id`."""

    token: Token | None
    message_id: str


@dataclass(frozen=True, slots=True)
class AskLeader:
    """Put an empty token, or the last one that is known, into the queue, and have the leader reply."""

    token: Token | None


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Acknowledge deliveries: a confirmed token holds their content."""

    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class SendReply:
    """Reply to a command, if its sender waits for that: with a value, or with the `reason` and text of an error."""

    delivery: Delivery
    value: Any = None
    reason: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class AskStore:
    """Ask the result store whether the tasks of these ticks have ended; the reply is `on_store_answered`."""

    ticks: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ReportLeader:
    """Report who leads, and since when."""

    leads: bool
    leader: str
    since: int


@dataclass(frozen=True, slots=True)
class LeaveConnection:
    """Give up the connection: the broker confirms nothing any more, so another scheduler is to lead."""

    reason: str


@dataclass(frozen=True, slots=True)
class WriteLog:
    """Write a log line."""

    level: Literal["info", "warning"]
    event: str
    fields: dict[str, Any] = field(default_factory=dict)


Action: TypeAlias = (
    SendTick | PutToken | AskLeader | Acknowledge | SendReply | AskStore | ReportLeader | LeaveConnection | WriteLog
)
