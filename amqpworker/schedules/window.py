"""The times of a schedule between its start and its end."""

from __future__ import annotations

from dataclasses import dataclass

from amqpworker.model.headers import time_text
from amqpworker.schedules.definition import Timing


@dataclass(frozen=True, slots=True)
class Window:
    """The times of `timing` from `start` to `end`, both included; if one is None, without it."""

    timing: Timing
    start: int | None = None
    end: int | None = None

    def after(self, moment: int) -> int | None:
        """Return the first time after `moment`, None if there is none any more."""
        if self.end is not None and moment >= self.end:
            return None
        found = self.timing.after(moment if self.start is None else max(moment, self.start - 1))
        return None if found is None or (self.end is not None and found > self.end) else found

    def latest(self, moment: int) -> int | None:
        """Return the last time that is not after `moment`, None if there is none."""
        if self.start is not None and moment < self.start:
            return None
        found = self.timing.latest(moment if self.end is None else min(moment, self.end))
        return None if found is None or (self.start is not None and found < self.start) else found

    def count(self, since: int, until: int) -> int:
        """Return how many times are after `since` and not after `until`."""
        since = since if self.start is None else max(since, self.start - 1)
        until = until if self.end is None else min(until, self.end)
        return self.timing.count(since, until) if since < until else 0

    def __str__(self) -> str:
        start = "" if self.start is None else f" from {time_text(self.start)}"
        end = "" if self.end is None else f" until {time_text(self.end)}"
        return f"{self.timing}{start}{end}"
