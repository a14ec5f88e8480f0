"""
A schedule as a value: which message is sent at which times.

`cron` and `interval` make the times, `gap` decides which of them are sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from amqpworker.model.message import Message

Overlap: TypeAlias = Literal["allow", "skip"]
Misfire: TypeAlias = Literal["once", "skip", "all"]


class Timing(Protocol):
    """The times of a schedule, in milliseconds since the epoch: a pure function of its definition."""

    def after(self, moment: int) -> int | None:
        """Return the first time after `moment`, None if there is none any more."""

    def latest(self, moment: int) -> int | None:
        """Return the last time that is not after `moment`, None if there is none."""

    def count(self, since: int, until: int) -> int:
        """Return how many times are after `since` and not after `until`."""

    def __str__(self) -> str:
        """Return the times as people write them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """
    A message that is sent at the times of `timing`: `message` is its template, whose id is not used.

    Such a message is a tick, and its time is the tick's nominal time: it may be sent later. `jitter` and `grace` are seconds.
    With the overlap `skip`, nothing is sent while the task of the last tick has not ended. `misfire` is what is sent after a
    gap that is longer than `grace`: the last tick, none, or all.
    """

    name: str
    message: Message[Any]
    timing: Timing
    jitter: float = 0.0
    overlap: Overlap = "allow"
    misfire: Misfire = "once"
    grace: float = 60.0

    def __str__(self) -> str:
        return f"{self.name}: {self.message.task}, {self.timing}"


def fingerprint(schedules: Iterable[Schedule]) -> str:
    """Return 12 hex digits of a hash, by which schedulers notice that their schedules differ."""
    digest = hashlib.sha256()
    for each in sorted(schedules, key=lambda schedule: schedule.name):
        message = each.message
        sent = (message.task, message.queue, message.body, sorted(message.headers.items()), message.expires)
        sending = (each.jitter, each.overlap, each.misfire, each.grace, message.resend)
        digest.update(repr((each.name, str(each.timing), sent, sending)).encode())
    return digest.hexdigest()[:12]
