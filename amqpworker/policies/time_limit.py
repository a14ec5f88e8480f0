"""
How long a task may run: which values `time_limit=` and `hard_limit=` accept; `worker.limits` enforces them.

Decides also which limits a run has whose message has its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.ipc.exit_status import OVERDUE
from amqpworker.policies.durations import duration

LimitSpec: TypeAlias = float | timedelta | None


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """
    Seconds that a run may take, `inf` if there is no limit.

    At `soft` an exception is raised in the task, or its coroutine is cancelled; at `hard` its process is ended.
    """

    soft: float = math.inf
    hard: float = math.inf

    @property
    def first(self) -> float:
        """The seconds until the first limit."""
        return min(self.soft, self.hard)

    @property
    def last(self) -> float:
        """The seconds until the last limit: only a run that cannot be interrupted takes longer."""
        return self.soft if self.hard == math.inf else self.hard

    @property
    def end(self) -> float:
        """The seconds until a run is abandoned, whatever it does, if another process can replace its own."""
        return min(self.soft + OVERDUE, self.hard)

    @property
    def longest(self) -> str:
        """The limit that a run had exceeded when it was abandoned, in words."""
        if self.hard <= self.soft + OVERDUE:
            return f"its hard limit of {self.hard:g} s"
        return f"its time_limit of {self.soft:g} s and did not end when TimeLimitExceeded was raised in it"


UNLIMITED = TimeLimit()


def time_limit_of(time_limit: LimitSpec, hard_limit: LimitSpec) -> TimeLimit:
    """Return the limits of a task; raises ConfigError unless they are above zero and the hard limit is not the shorter."""
    if time_limit is None and hard_limit is None:
        return UNLIMITED
    soft, hard = _seconds(time_limit, "time_limit"), _seconds(hard_limit, "hard_limit")
    if hard < math.inf and time_limit is not None and hard < soft:
        raise ConfigError(f"task(time_limit={soft:g}, hard_limit={hard:g}): the hard limit must not be shorter.")
    return TimeLimit(soft, hard)


def limit_of_message(own: TimeLimit, soft: int | None, hard: int | None) -> TimeLimit:
    """
    Return the limits of a run whose message has a soft or a hard one, in milliseconds; `own` are those of the task.

    Each takes the place of the task's own. A hard limit of the task that is shorter than the message's soft one is dropped:
    the sender has asked for more time.
    """
    soft_seconds = own.soft if soft is None else soft / 1000
    if hard is not None:
        return TimeLimit(soft_seconds, hard / 1000)
    return TimeLimit(soft_seconds, math.inf if own.hard < soft_seconds else own.hard)


def _seconds(value: LimitSpec, name: str) -> float:
    if value is None:
        return math.inf
    try:
        seconds = duration(value, name)
    except InvalidArguments as error:
        raise ConfigError(f"task({name}=…): {error}") from None
    if seconds == 0:
        raise ConfigError(f"task({name}=…): it must be more than zero seconds.")
    return seconds
