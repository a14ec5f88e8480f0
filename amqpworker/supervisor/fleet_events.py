"""
What happens to a supervisor and what it does then: two closed sets of frozen values.

`fleet` turns the first into the second; `supervisor` makes the one and acts on the other. A process is named by its serial
number, which is never used twice; a pid may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = [
    "Action",
    "ClockGap",
    "Consuming",
    "Drain",
    "DumpStacks",
    "Ended",
    "Event",
    "Finish",
    "Grow",
    "Interrupt",
    "Kill",
    "Leaving",
    "Misconfigured",
    "NotStarted",
    "OverLimit",
    "Oversize",
    "ProcessEvent",
    "Ready",
    "RecyclingDue",
    "Reload",
    "Replace",
    "Shrink",
    "Stalled",
    "Start",
    "Stop",
    "StopNow",
    "Tell",
    "Tick",
]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class ClockGap:
    """We stood still for so many seconds ourselves, and our processes perhaps with us."""

    seconds: float


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The machine had no room for a process."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ready:
    """
    A process has loaded its app, entered its lifespan, and listens to signals.

    Draining takes it up to `drain_timeout` seconds.
    """

    serial: int
    drain_timeout: float


@dataclass(frozen=True, slots=True)
class Consuming:
    """The broker has confirmed the consumers of a process."""

    serial: int


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """A process tells why it will never run, and ends."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Leaving:
    """A process has stopped consuming by itself and ends soon: a task of it went over its hard limit."""

    serial: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A process has ended, by an exit code or (negative) by a signal; `ran` if a task was running in it."""

    serial: int
    code: int
    ran: bool = False


@dataclass(frozen=True, slots=True)
class Stalled:
    """A process is alive and does not move any more."""

    serial: int
    what: str


@dataclass(frozen=True, slots=True)
class Oversize:
    """How large a process is, and may be, in MiB; `at_start`: it never consumed below its limit."""

    memory: int
    limit: int
    at_start: bool


@dataclass(frozen=True, slots=True)
class RecyclingDue:
    """A process has run for long enough, or has grown too large (`oversize`)."""

    serial: int
    reason: str
    oversize: Oversize | None = None


@dataclass(frozen=True, slots=True)
class OverLimit:
    """A process has a run that is far beyond its time limit and does not end."""

    serial: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Somebody wants the whole to end."""

    why: str


@dataclass(frozen=True, slots=True)
class StopNow:
    """Somebody does not want to wait for that."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Somebody wants every process replaced by one with the new code."""


@dataclass(frozen=True, slots=True)
class Grow:
    """Somebody wants one process more in each pool."""


@dataclass(frozen=True, slots=True)
class Shrink:
    """Somebody wants one process less in each pool."""


ProcessEvent: TypeAlias = (
    NotStarted | Ready | Consuming | Misconfigured | Leaving | Ended | Stalled | RecyclingDue | OverLimit
)
"""What happens to one process."""

Event: TypeAlias = ProcessEvent | Tick | ClockGap | Stop | StopNow | Reload | Grow | Shrink


@dataclass(frozen=True, slots=True)
class Start:
    """Start a process of a pool."""

    serial: int
    pool: str
    number: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Ask a process to stop consuming, to finish what runs, and to end."""

    serial: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Ask a process to abandon what runs, and to end."""

    serial: int


@dataclass(frozen=True, slots=True)
class Replace:
    """Ask a process to give up the runs that are far beyond their time limits, to drain, and to end."""

    serial: int


@dataclass(frozen=True, slots=True)
class DumpStacks:
    """Have a process that is killed next write the stacks of its threads to the log, whatever it hangs in."""

    serial: int


@dataclass(frozen=True, slots=True)
class Kill:
    """End a process at once."""

    serial: int


@dataclass(frozen=True, slots=True)
class Tell:
    """Log something, about one process or about all."""

    level: Literal["info", "warning", "error"]
    event: str
    serial: int | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finish:
    """End the supervisor; `problem` tells why nothing could ever run, where that is so."""

    code: int
    problem: str = ""


Action: TypeAlias = Start | Drain | Replace | Interrupt | DumpStacks | Kill | Tell | Finish
