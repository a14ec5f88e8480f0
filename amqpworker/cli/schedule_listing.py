"""
What is known of schedules: by the app, by the leader of their scheduler, and by the result store.

Decides what is shown if no scheduler leads, or if the leader has other schedules than the app.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from amqpworker.cli.output import clipped, console, table
from amqpworker.errors import MalformedReply
from amqpworker.model.headers import time_of, time_text

if TYPE_CHECKING:
    from amqpworker.results.store import ResultStore
    from amqpworker.schedules.definition import Schedule


def _milliseconds(value: Any) -> Any:
    return time_of(value) if isinstance(value, str) else value


LAST, NEXT = "last, outcome", "next, state"

Time = Annotated[int | None, BeforeValidator(_milliseconds)]


class ListedSchedule(BaseModel):
    """What is known of one schedule; None is unknown, or that there is none."""

    name: str
    task: str = ""
    queue: str = ""
    timing: str = ""
    last: Time = None
    next: Time = None
    paused: Time = None
    lagging: Time = None
    missed: int | None = None
    last_missed: Time = None
    skipped: int | None = None


class LeaderReply(BaseModel):
    """What the leader of a scheduler replies to `list` (docs/wire.md)."""

    leader: str
    since: Time = None
    until: Time = None
    schedules: list[ListedSchedule]
    differing: list[str] = []


def read_leader(value: bytes | None) -> LeaderReply:
    """Return what the leader has replied; raises MalformedReply if that is not as the wire contract has it."""
    try:
        return LeaderReply.model_validate_json(value or b"null")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the value"
        raise MalformedReply(f"The reply of the leader cannot be read: {place}: {first['msg']}.") from None


@dataclass(frozen=True, slots=True)
class Row:
    """One schedule; the leader is None if there is none, or if it does not have this schedule."""

    schedule: ListedSchedule
    leader: LeaderReply | None
    outcome: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the row as an object of JSON's types, times as the wire has them."""
        known = self.schedule
        times = {name: _text(getattr(known, name)) for name in ("last", "next", "paused", "lagging", "last_missed")}
        return {**known.model_dump(), **times, "outcome": self.outcome, "leader": _leader_as_json(self.leader)}


def rows_of(schedules: Mapping[str, Schedule], leader: LeaderReply | None, now: int) -> Iterator[Row]:
    """Yield the schedules of the app and of the leader, by name."""
    of_leader = {} if leader is None else {listed.name: listed for listed in leader.schedules}
    for name in sorted({*schedules, *of_leader}):
        if (listed := of_leader.get(name)) is not None:
            yield Row(listed, leader)
        else:
            yield Row(_of_app(schedules[name], now), None)


def _of_app(schedule: Schedule, now: int) -> ListedSchedule:
    message, timing = schedule.message, schedule.timing
    return ListedSchedule(
        name=schedule.name, task=message.task, queue=message.queue, timing=str(timing), next=timing.after(now)
    )


def with_outcomes(rows: Iterable[Row], store: ResultStore, ids: Mapping[str, str]) -> list[Row]:
    """Return the rows with the outcome of the last tick, by the ids of these; raises ResultStoreError."""
    found = store.get(ids.values())
    now = time.time()
    states = {row.id: row.state for row in found.values() if row.expires_at > now}
    return [Row(row.schedule, row.leader, states.get(ids.get(row.schedule.name, ""))) for row in rows]


def show(rows: Iterable[Row], leader: LeaderReply | None) -> None:
    """Print schedules as a table of about two lines each, with the times whole."""
    cells = [(row.schedule, list(_last_lines(row)), list(_next_lines(row, leader))) for row in rows]
    shown = table(
        "schedule, task",
        "times",
        LAST,
        NEXT,
        widths={
            LAST: _width(LAST, [last for _, last, _ in cells]),
            NEXT: _width(NEXT, [later for _, _, later in cells]),
        },
    )
    for known, last, later in cells:
        names = f"{clipped(known.name, 255)}\n{clipped(known.task, 255)}"
        shown.add_row(names, clipped(known.timing, 255), "\n".join(last), "\n".join(later))
    console().print(shown)


def _width(title: str, cells: Iterable[Iterable[str]]) -> int:
    return max(len(line) for lines in [[title], *cells] for line in lines)


def _last_lines(row: Row) -> Iterator[str]:
    known = row.schedule
    if known.last is not None:
        yield in_utc(known.last)
    else:
        yield "none yet" if row.leader is not None else "unknown"
    if row.outcome is not None:
        yield clipped(row.outcome, 20)
    if known.missed:
        yield f"missed {known.missed}"
        if known.last_missed is not None:
            yield in_utc(known.last_missed)
    if known.skipped:
        yield f"skipped {known.skipped}"


def _next_lines(row: Row, leader: LeaderReply | None) -> Iterator[str]:
    """Yield the next time, and why the schedule may not fire then."""
    known = row.schedule
    states = [
        (state, at)
        for state, at in (("paused since", known.paused), ("lagging since", known.lagging))
        if at is not None
    ]
    if known.next is not None:
        yield in_utc(known.next)
    elif not states:
        yield "never"
    for state, since in states:
        yield state
        yield in_utc(since // 1000 * 1000)
    if row.leader is None and leader is not None:
        yield "not in the leader"


def in_utc(moment: int) -> str:
    """Return a time for people, with milliseconds only if it has some."""
    text = time_text(moment).replace("T", " ")
    return text.replace(".000Z", "Z")


def _text(moment: int | None) -> str | None:
    return None if moment is None else time_text(moment)


def _leader_as_json(leader: LeaderReply | None) -> dict[str, Any] | None:
    if leader is None:
        return None
    return {
        "name": leader.leader,
        "since": _text(leader.since),
        "until": _text(leader.until),
        "differing": leader.differing,
    }
