"""
The token: what the leader of a scheduler leaves to the next one. The scheduler that receives it leads.

Decides how a token is written and read, and which one of several counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from amqpworker.model.headers import EARLIEST, LATEST, count_of, time_of, time_text
from amqpworker.text import encodable

MAX_LABEL = 300
MAX_NUMBER = 2**53
MAX_AHEAD = 2 * 3600 * 1000
"""A token may be this many milliseconds ahead of the clock: a clock was set back, or that of another host is ahead."""


class MalformedToken(ValueError):
    """A token cannot be read; the text has the reason."""


@dataclass(frozen=True, slots=True)
class Token:
    """
    All ticks up to `until` are sent, except those of schedules that are `lagging`: theirs are sent up to the given time.

    `paused` is since when a schedule is paused, `running` the tick of a schedule whose task has not ended as far as is known.
    `leader` has written it, and leads `since` then. `number` counts the tokens: while a clock is behind `until`, several have
    the same time. All times are milliseconds since the epoch.
    """

    until: int
    lagging: Mapping[str, int] = field(default_factory=dict)
    paused: Mapping[str, int] = field(default_factory=dict)
    running: Mapping[str, int] = field(default_factory=dict)
    leader: str = ""
    since: int = 0
    number: int = 0


def token_fields(token: Token | None) -> dict[str, Any]:
    """Return a token as JSON has it; the empty token is an object without fields."""
    if token is None:
        return {}
    fields: dict[str, Any] = {"until": time_text(token.until)}
    for name in ("lagging", "paused", "running"):
        if times := getattr(token, name):
            fields[name] = {schedule: time_text(time) for schedule, time in times.items()}
    return {**fields, "leader": token.leader, "since": time_text(token.since), "number": token.number}


def read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a message; raises MalformedToken if it is not one."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MalformedToken("it is not a JSON object")
    return value


def read_token(fields: Mapping[str, Any]) -> Token | None:
    """Return a token, None if it is empty; raises MalformedToken if a time in it is not valid."""
    if fields.get("until") is None:
        return None
    return Token(
        until=_time(fields["until"], "until"),
        lagging=_times(fields, "lagging"),
        paused=_times(fields, "paused"),
        running=_times(fields, "running"),
        leader=label_of(fields.get("leader", "")),
        since=_time(fields.get("since", 0), "since"),
        number=min(count_of(fields.get("number")) or 0, MAX_NUMBER),
    )


def label_of(value: object) -> str:
    """Return the name of a scheduler as it can be logged and written: not all JSON text can be."""
    return encodable(str(value)[:MAX_LABEL])


def _times(fields: Mapping[str, Any], name: str) -> dict[str, int]:
    times = fields.get(name, {})
    if not isinstance(times, dict):
        raise MalformedToken(f"{name} is not an object")
    return {schedule: _time(value, f"{name}, {schedule!r:.80}") for schedule, value in times.items()}


def _time(value: Any, place: str) -> int:
    time = None if isinstance(value, bool) else time_of(value)
    if time is None or not EARLIEST <= time <= LATEST:
        raise MalformedToken(f"{place} is not a time, such as 2026-11-28T23:59:59.123Z: {value!r:.80}")
    return time


def is_too_far_ahead(token: Token, now: int) -> bool:
    """Return whether a token is refused: with it, nothing would be sent for hours."""
    return token.until > now + MAX_AHEAD


def latest_of(tokens: Iterable[Token]) -> Token | None:
    """Return the token that counts: the one with the latest time, of several the one that was put, or received, last."""
    latest: Token | None = None
    for token in tokens:
        if latest is None or (token.until, token.number) >= (latest.until, latest.number):
            latest = token
    return latest
