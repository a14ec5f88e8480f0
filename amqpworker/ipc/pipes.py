"""
The messages between a worker process and its supervisor: reports one way, commands the other.

Decides the format of the lines on the two pipes. A report is a JSON object that is written in one piece or not at all, so it is
never longer than `PIPE_BUF` bytes: texts are truncated, and messages are asked about in batches.
User code runs in the same process and may write to the pipe, too: lines that are not reports are detected and ignored.
"""

from __future__ import annotations

import json
import math
import os
import select
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias, get_args

MAX_REASON = 500
# For the name of a leader and for a time.
MAX_SHORT_TEXT = 80
# The rest of the longest line: names of fields, and numbers.
MAX_TEXT_BYTES = select.PIPE_BUF - 200
MAX_LINE = 16384
MAX_UNSENT = 1 << 20

Event = Literal[
    "ready",
    "consuming",
    "misconfigured",
    "exiting",
    "suspect_query",
    "waiting",
    "paused",
    "leading",
    "unknown_tasks",
]
EVENTS = frozenset(get_args(Event))


@dataclass(frozen=True, slots=True)
class Report:
    """
    A report of a worker process.

    * `ready`: it has loaded the app, entered its lifespan, and handles signals; it needs up to `drain_timeout` seconds to drain.
    * `consuming`: the broker has confirmed a first consumer.
    * `misconfigured`: it can never run, for this `reason`.
    * `exiting`: it has stopped consuming by itself, for this `reason`, and ends soon.
    * `waiting`: `reason` is what it waits for before it consumes from all its queues, and why; "" once it consumes.
    * `paused`: `keys` are the queues and tasks of it that are paused, such as `queue emails`: all of them, or as many as fit.
    * `suspect_query`: it asks which of the messages `keys` were running in a process that has died.
    * `leading`: whether it `leads` all schedulers of its name, and which one does (`leader`, HOST:PID), `since` when; both are ""
      if it does not know.
    * `unknown_tasks`: how many messages are `waiting` for a worker that knows their task, by its name.
    """

    event: Event
    drain_timeout: float = 0.0
    reason: str = ""
    keys: tuple[str, ...] = ()
    leads: bool = False
    leader: str = ""
    since: str = ""
    waiting: dict[str, int] = field(default_factory=dict)


class Reporter:
    """The writing end of the pipe for reports; without a pipe (`None`) it writes nothing."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._pending: list[Report] = []
        if descriptor is not None:
            # Processes that tasks start must not inherit it.
            os.set_inheritable(descriptor, False)
            # A supervisor that is stopped must not keep the consumer from its heartbeats.
            os.set_blocking(descriptor, False)

    @property
    def has_parent(self) -> bool:
        """Whether there is a supervisor."""
        return self._descriptor is not None

    def send_reliably(self, report: Report) -> None:
        """Write a report that must arrive: now, or as soon as `flush_pending` finds room for it. One thread calls both."""
        self._pending.append(report)
        self.flush_pending()

    def flush_pending(self) -> None:
        """Write the reports for which there was no room, in their order."""
        while self._pending and self.send(self._pending[0]):
            del self._pending[0]

    def send(self, report: Report) -> bool:
        """Write a report; return false if the pipe is full or has no reader."""
        if self._descriptor is None:
            return False
        with suppress(OSError):
            os.write(self._descriptor, _encode_report(report))
            return True
        return False


def _encode_report(report: Report) -> bytes:
    """Return a report as a line, preceded by a newline: other code may have written part of a line before."""
    leader, since = report.leader[:MAX_SHORT_TEXT], report.since[:MAX_SHORT_TEXT]
    fields = {**asdict(report), "reason": report.reason[:MAX_REASON], "leader": leader, "since": since}
    # Not in ASCII, in which an emoji has 12 bytes: so a character has at most 6, as a control character does.
    return b"\n" + json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


@dataclass(frozen=True, slots=True)
class ParsedReports:
    """What was read from the pipe: `reports`, the start of the next line (`rest`), and whether anything was `garbled`."""

    reports: list[Report]
    rest: bytes
    garbled: bool


def parse_reports(data: bytes) -> ParsedReports:
    """Return the reports in `data`; this never fails, and keeps at most one line of it."""
    *lines, rest = data.split(b"\n")
    found = [_parse_report(line) for line in lines if line]
    too_long = len(rest) > MAX_LINE
    reports = [report for report in found if report is not None]
    return ParsedReports(reports, b"" if too_long else rest, too_long or len(reports) < len(found))


def _parse_report(line: bytes) -> Report | None:
    """Return a line as a report, None if it is not one."""
    try:
        fields: dict[str, Any] = json.loads(line)
        report = Report(**{**fields, "keys": tuple(fields.get("keys", ()))})
        texts = (report.reason, report.leader, report.since, *report.keys)
        valid = report.event in EVENTS and all(isinstance(text, str) for text in texts)
        valid = valid and isinstance(fields.get("leads", False), bool)
        valid = valid and all(type(number) is int and number >= 0 for number in report.waiting.values())
        return report if valid and report.drain_timeout >= 0 and math.isfinite(report.drain_timeout) else None
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def first_batch(keys: Iterable[str]) -> tuple[str, ...]:
    """Return as many of these keys, from the first on, as fit into one report: at least one, if there are any."""
    batch: list[str] = []
    size = 0
    for key in keys:
        size += len(json.dumps(key)) + 2
        if batch and size > MAX_TEXT_BYTES:
            break
        batch.append(key)
    return tuple(batch)


@dataclass(frozen=True, slots=True)
class SuspectAnswer:
    """The supervisor's answer to a query: whether these messages were running in a process that has died."""

    keys: tuple[str, ...]
    suspect: bool


class BareCommand(Enum):
    """A command without arguments."""

    WRITE_STACKS = "write stacks"
    """Write the stacks of all threads to the log."""
    END_OVERDUE = "end overdue"
    """Give up overdue tasks, drain, and end."""


Command: TypeAlias = SuspectAnswer | BareCommand
"""What a supervisor sends to a worker process."""


class CommandWriter:
    """The supervisor's end of the pipe for commands: writes as much as there is room for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._unsent = b""
        os.set_blocking(descriptor, False)

    @property
    def pending(self) -> bool:
        """Whether there was no room for all of them."""
        return bool(self._unsent)

    def add(self, command: Command) -> None:
        """Add a command for the next `flush`; it is dropped if the process has not read for long."""
        if len(self._unsent) < MAX_UNSENT:
            self._unsent += encode_command(command)

    def flush(self) -> None:
        """Write as much as there is room for."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._descriptor, self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # the process has closed its end
            self._unsent = b""


def encode_command(command: Command) -> bytes:
    """Return a command as a line."""
    return json.dumps(command.value if isinstance(command, BareCommand) else asdict(command)).encode() + b"\n"


def parse_commands(data: bytes) -> tuple[list[Command], bytes]:
    """Return the commands in what the supervisor has written, and the start of the next."""
    *lines, rest = data.split(b"\n")
    found = [json.loads(line) for line in lines]
    return [
        BareCommand(it) if isinstance(it, str) else SuspectAnswer(tuple(it["keys"]), it["suspect"]) for it in found
    ], rest
