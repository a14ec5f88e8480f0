"""
The events that a supervisor handles and the actions that it takes: two closed sets of frozen values.

`fleet` turns events into actions; `supervisor` creates the events and performs the actions. A process is identified by its
serial number, which is never reused, unlike a pid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class ClockGap:
    """The supervisor itself did not run for this long, and perhaps its processes did not either."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The system could not start a process."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """
    A process has loaded its app, entered its lifespan, and handles signals.

    It needs up to `drain_timeout` seconds to drain.
    """

    serial: int
    drain_timeout: float


@dataclass(frozen=True, slots=True)
class Consuming:
    """The broker has confirmed the consumers of a process."""

    serial: int


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A process has reported why it can never run, and ends."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Exiting:
    """A process has stopped consuming by itself and ends soon: a task exceeded its hard limit, or its lifespan was lost."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A process has ended, with an exit code or (negative) by a signal; `ran` if a task was running in it."""

    serial: int
    code: int
    ran: bool = False


@dataclass(frozen=True, slots=True)
class Stalled:
    """A process is alive and makes no progress any more."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Oversize:
    """The memory of a process and its limit, in MiB; `at_start`: it never consumed below that limit."""

    memory: int
    limit: int
    at_start: bool


@dataclass(frozen=True, slots=True)
class RecyclingDue:
    """A process is due for recycling by its age or its tasks, or because it is too large (`oversize`)."""

    serial: int
    reason: str
    oversize: Oversize | None = None


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A task of a process is far beyond its time limit and does not end."""

    serial: int


@dataclass(frozen=True, slots=True)
class Stop:
    """The supervisor was asked to stop."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopNow:
    """The supervisor was asked to stop without waiting for tasks."""


@dataclass(frozen=True, slots=True)
class Reload:
    """The supervisor was asked to replace every process by one with the new code."""


@dataclass(frozen=True, slots=True)
class Grow:
    """The supervisor was asked for one more process in each pool."""


@dataclass(frozen=True, slots=True)
class Shrink:
    """The supervisor was asked for one process less in each pool."""


ProcessEvent: TypeAlias = (
    NotStarted | Ready | Consuming | Misconfigured | Exiting | Ended | Stalled | RecyclingDue | OverLimit
)
"""Events of one process."""

Event: TypeAlias = ProcessEvent | Tick | ClockGap | Stop | StopNow | Reload | Grow | Shrink


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process of a pool."""

    serial: int
    pool: str
    number: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask a process to stop consuming, to finish its running tasks, and to end."""

    serial: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ask a process to abandon its running tasks, and to end."""

    serial: int


@dataclass(frozen=True, slots=True)
class Replace:
    """Ask a process to give up the tasks that are far beyond their time limits, to drain, and to end."""

    serial: int


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Have a process that is killed next write the stacks of its threads to the log, even if it hangs in C."""

    serial: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill a process."""

    serial: int


@dataclass(frozen=True, slots=True)
class Log:
    """Write a log line, about one process or about all."""

    level: Literal["info", "warning", "error"]
    event: str
    serial: int | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finish:
    """End the supervisor; `reason` is why nothing could ever run, "" otherwise."""

    code: int
    reason: str = ""


Action: TypeAlias = Start | Drain | Replace | Interrupt | DumpStacks | Kill | Log | Finish
