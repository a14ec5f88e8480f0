"""
What arrives in the queue of a scheduler, as a closed set of values: tokens and commands.

Decides which messages are refused: users may write one by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from amqpworker.model import headers as h
from amqpworker.model.message import Delivery
from amqpworker.routing.schedule_messages import LIST, PAUSE, RESUME, TOKEN
from amqpworker.scheduler.token import MalformedToken, Token, is_too_far_ahead, label_of, read_object, read_token

CLOCK_DIFFERENCE = 60_000
"""By how many milliseconds the clock of a sender may be behind."""


@dataclass(frozen=True, slots=True)
class TokenMessage:
    """A token, None if it is empty. A `scheduler` that does not lead has sent it, with the `fingerprint` of its schedules."""

    token: Token | None
    scheduler: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Pause:
    """Send nothing for a schedule after this moment: when the command was sent, even if no scheduler led then."""

    schedule: str
    at: int


@dataclass(frozen=True, slots=True)
class Resume:
    """Send the ticks of a schedule after this moment again."""

    schedule: str
    at: int


@dataclass(frozen=True, slots=True)
class ListSchedules:
    """Reply with what is known of each schedule."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A command that has expired: its sender does not wait any more."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be used; `is_token` if it was meant as one."""

    reason: str
    is_token: bool = False


Content: TypeAlias = TokenMessage | Pause | Resume | ListSchedules | Ignored | Refused


def read(delivery: Delivery, now: int) -> Content:
    """Return what a message asks for; this never fails."""
    kind = delivery.properties.type
    if delivery.problem:
        return Refused(delivery.problem, kind == TOKEN)
    try:
        fields = read_object(delivery.body)
        if kind == TOKEN:
            return _read_token_message(fields, now)
    except MalformedToken as error:
        return Refused(str(error), kind == TOKEN)
    headers = delivery.properties.headers or {}
    expires = h.time_of(headers.get(h.EXPIRES))
    if expires is not None and expires + CLOCK_DIFFERENCE <= now:
        return Ignored()
    if kind == LIST:
        return ListSchedules()
    if kind not in {PAUSE, RESUME}:
        return Refused(f"its type is {kind!r:.80}, and not token, pause, resume or list")
    schedule = fields.get("schedule")
    if not isinstance(schedule, str):
        return Refused(f"{kind}: schedule is not a string: {schedule!r:.80}")
    sent = h.time_of(headers.get(h.FIRST_SENT))
    at = now if sent is None else min(sent, now)
    return Pause(schedule, at) if kind == PAUSE else Resume(schedule, at)


def _read_token_message(fields: dict[str, object], now: int) -> Content:
    token = read_token(fields)
    if token is not None and is_too_far_ahead(token, now):
        return Refused(f"its time, {h.time_text(token.until)}, is more than two hours ahead of the clock", True)
    return TokenMessage(token, label_of(fields.get("scheduler", "")), label_of(fields.get("schedules", "")))
