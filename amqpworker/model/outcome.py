"""
How a delivery ends: a closed set of frozen values.

`executor` decides on one of them, `settle` acts on it. Nothing else may end a delivery.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Dead", "Discarded", "Done", "Failure", "Outcome", "Republish", "Requeue", "Retry"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as text that can travel: no exception object crosses a process."""

    error_type: str = ""
    text: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The task returned; `value` is its result as JSON, `None` where nobody wants it."""

    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """
    Run again, no sooner than `delay` seconds from now.

    `counts` is false where the next run is the same attempt; `returned` where a message came before its time. `crashes`
    is how often its message has taken a process down by now, 0 where this is about something else.
    """

    delay: float
    failure: Failure
    counts: bool = True
    returned: bool = False
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Dead:
    """
    Never run again: to the dead-letter queue with `reason` (wire contract, `aw-dead-reason`).

    `crashes` is as in `Retry`.
    """

    reason: str
    failure: Failure = Failure()
    crashes: int = 0


@dataclass(frozen=True, slots=True)
class Requeue:
    """Give the message back to its queue: it did not run here."""


@dataclass(frozen=True, slots=True)
class Republish:
    """Give the message back to its queue as a copy that was never delivered: its broker would give it up soon."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """Acknowledge without a trace but a log line: a call whose caller has stopped waiting."""

    reason: str


Outcome: TypeAlias = Done | Retry | Dead | Requeue | Republish | Discarded
