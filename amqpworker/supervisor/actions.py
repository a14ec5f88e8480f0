"""
What a supervisor does, as a closed set of frozen values: `fleet` decides the actions, `supervisor` performs them.

A process is identified by its serial number, which is never reused, unlike a pid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["info", "warning", "error"]


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
class EndOverdue:
    """Ask a process to give up its overdue tasks, to drain, and to end."""

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

    level: Level
    event: str
    serial: int | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Finish:
    """End the supervisor; `reason` is why nothing could ever run, "" otherwise."""

    code: int
    reason: str = ""


ProcessAction: TypeAlias = Drain | Interrupt | EndOverdue | DumpStacks | Kill
"""What is done to one process that has been started."""

Action: TypeAlias = Start | ProcessAction | Log | Finish
