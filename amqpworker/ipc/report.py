"""
What a worker process and its parent tell each other: reports and questions one way, verdicts and orders the other.

Decides the exit codes, and the lines on the two pipes: one JSON object each, small enough to be written in one piece.
Messages are asked about many at a time.
User code runs in the same process and may write there, too: what is no report is told apart, and not kept.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

__all__ = [
    "ABANDONED",
    "DUMP_SIGNAL",
    "FAILED",
    "MISCONFIGURED",
    "OVERDUE",
    "STOPPED",
    "Answers",
    "Heard",
    "Leave",
    "Report",
    "Reporter",
    "SuspectAnswer",
    "WriteStacks",
    "batch_of",
    "heard",
    "line_of",
    "verdicts_in",
]

# Exit codes of a worker process, and of the pool.
STOPPED = 0
FAILED = 1
MISCONFIGURED = 2
ABANDONED = 3

# A supervisor replaces a process in which a run has not ended this many seconds after its `time_limit`.
OVERDUE = 60.0

MOST_TEXT = 500
LONGEST_LINE = 16384
MOST_UNSENT = 1 << 20
# What is not longer is written to a pipe as a whole or not at all; some of it is for the rest of the line.
LONGEST_BATCH = select.PIPE_BUF - 200

# Has a process that is about to be killed write what each of its threads does to the log, whatever it hangs in.
DUMP_SIGNAL = signal.SIGUSR2

Event = Literal["ready", "consuming", "misconfigured", "leaving", "asks", "waits"]
EVENTS = frozenset(get_args(Event))


@dataclass(frozen=True, slots=True)
class Report:
    """
    One thing to tell.

    * `ready`: the app is loaded and its lifespan entered, signals are listened to; draining takes up to `drain_timeout`
      seconds.
    * `consuming`: the broker has confirmed a first consumer.
    * `misconfigured`: `text` tells why nothing will ever run.
    * `leaving`: it has stopped consuming by itself, for the reason in `text`, and ends soon.
    * `waits`: `text` is what it waits for before it consumes from all its queues, and why; "" if it consumes.
    * `asks`: which of the messages that are known by `keys` ran in a process that has died.
    """

    event: Event
    drain_timeout: float = 0.0
    text: str = ""
    keys: tuple[str, ...] = ()


class Reporter:
    """The process's end of the pipe; without one (`None`) nothing is told."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._untold: list[Report] = []
        if descriptor is not None:
            # What a task starts must not hold it.
            os.set_inheritable(descriptor, False)
            # A parent that stands still must not keep the consumer from its heartbeats.
            os.set_blocking(descriptor, False)

    @property
    def has_parent(self) -> bool:
        """Whether there is anybody to tell."""
        return self._descriptor is not None

    def insist(self, report: Report) -> None:
        """Write a report that must arrive: now, or as soon as `again` finds room for it. One thread does this."""
        self._untold.append(report)
        self.again()

    def again(self) -> None:
        """Write what there was no room for, in its order."""
        while self._untold and self.tell(self._untold[0]):
            del self._untold[0]

    def tell(self, report: Report) -> bool:
        """Write a report; false where nobody reads it, or has not read for long."""
        if self._descriptor is None:
            return False
        fields = {**asdict(report), "text": report.text[:MOST_TEXT]}
        with suppress(OSError):
            # A line of its own, whatever else has been written there.
            os.write(self._descriptor, b"\n" + json.dumps(fields).encode() + b"\n")
            return True
        return False


@dataclass(frozen=True, slots=True)
class Heard:
    """What came through the pipe: `reports`, the beginning of the next (`rest`), and whether there was something else."""

    reports: list[Report]
    rest: bytes
    strange: bool


def heard(data: bytes) -> Heard:
    """Return what `data` has to say; never fails, and keeps no more of it than one line can have."""
    *lines, rest = data.split(b"\n")
    found = [report_of(line) for line in lines if line]
    endless = len(rest) > LONGEST_LINE
    reports = [report for report in found if report is not None]
    return Heard(reports, b"" if endless else rest, endless or len(reports) < len(found))


@dataclass(frozen=True, slots=True)
class SuspectAnswer:
    """What the parent says of messages: whether they ran in a process that has died."""

    keys: tuple[str, ...]
    suspect: bool


@dataclass(frozen=True, slots=True)
class WriteStacks:
    """The parent asks for the stacks of all threads in the log."""


@dataclass(frozen=True, slots=True)
class Leave:
    """The parent asks a process that has runs far beyond their time limits to be replaced because of them."""


Answer: TypeAlias = SuspectAnswer | WriteStacks | Leave
ORDERS: dict[str, Answer] = {"write stacks": WriteStacks(), "leave": Leave()}


class Answers:
    """The parent's end of the other pipe: verdicts and orders that are written as far as the process reads them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unsent = b""
        os.set_blocking(descriptor, False)

    @property
    def waiting(self) -> bool:
        """Whether there was no room for all of them."""
        return bool(self._unsent)

    def add(self, one: Answer) -> None:
        """Have the next `flush` write a verdict or an order; a process that does not read for long does without."""
        if len(self._unsent) < MOST_UNSENT:
            self._unsent += line_of(one)

    def flush(self) -> None:
        """Write as much as there is room for."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._descriptor, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # the process has closed its end
            self._unsent = b""


def batch_of(keys: Iterable[str]) -> tuple[str, ...]:
    """Return as many of these keys, from the first on, as can be asked about in one line: at least one, where there is any."""
    batch: list[str] = []
    size = 0
    for key in keys:
        size += len(json.dumps(key)) + 2
        if batch and size > LONGEST_BATCH:
            break
        batch.append(key)
    return tuple(batch)


def line_of(one: Answer) -> bytes:
    """Return a verdict or an order as the line that goes to the process."""
    order = next((name for name, order in ORDERS.items() if order == one), None)
    return json.dumps(asdict(one) if order is None else order).encode() + b"\n"


def verdicts_in(data: bytes) -> tuple[list[Answer], bytes]:
    """Return the verdicts and orders in what the parent has written, and the beginning of the next."""
    *lines, rest = data.split(b"\n")
    found = [json.loads(line) for line in lines]
    return [
        ORDERS[one] if isinstance(one, str) else SuspectAnswer(tuple(one["keys"]), one["suspect"]) for one in found
    ], rest


def report_of(line: bytes) -> Report | None:
    """Return a line as a report, None where it is none."""
    try:
        fields: dict[str, Any] = json.loads(line)
        report = Report(**{**fields, "keys": tuple(fields.get("keys", ()))})
        known = report.event in EVENTS and all(isinstance(text, str) for text in (report.text, *report.keys))
        return report if known and report.drain_timeout >= 0 and math.isfinite(report.drain_timeout) else None
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
