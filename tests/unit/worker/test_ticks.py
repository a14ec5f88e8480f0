"""What a task knows of the tick that it runs for: in each attempt, and after a replay."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from amqpworker import App, current
from amqpworker.model.message import Message, Properties, Publication
from amqpworker.model.outcome import Dead, Done, Retry
from amqpworker.routing.envelope import replayed
from amqpworker.schedules.tick import run_now_message, tick_message
from amqpworker.testing.one_delivery import run_one

NOMINAL = datetime(2026, 11, 30, 2, 30, tzinfo=UTC)
MOMENT = int(NOMINAL.timestamp() * 1000)
Seen = list[tuple[str | None, datetime | None]]


@pytest.fixture
def app() -> App:
    return App("amqp://127.0.0.1:1/")


def noting(app: App, isolated: bool = False) -> tuple[Seen, Message[Any]]:
    """Return what a task with a schedule notes, and one tick of it."""
    seen: Seen = []

    @app.task(name="note", queue="work", retry=[0], isolated=isolated)
    def note(fails: bool) -> None:
        seen.append((current().schedule, current().nominal))
        if fails:
            raise OSError("no route")

    return seen, tick_message(note.schedule("nightly", every=60)(True), "amqpworker", "main", MOMENT)


def test_a_tick_has_the_version_of_its_task_as_each_message_of_it_has(app: App) -> None:
    @app.task(name="report", version=3)
    def report(day: str) -> None: ...

    @app.remote(name="elsewhere", version=2)
    def elsewhere() -> None: ...

    @app.task(name="first")
    def first() -> None: ...

    tick = tick_message(report.schedule("nightly", every=60)("today"), "amqpworker", "main", MOMENT)
    assert tick.headers["aw-version"] == 3
    assert report.options(headers={"tenant": "acme"}).message("today").headers == {"tenant": "acme", "aw-version": 3}
    assert elsewhere.message().headers == {"aw-version": 2}
    assert first.message().headers == {}
    assert Message.load(report.message("today").dump()).headers == {"aw-version": 3}


@pytest.mark.parametrize("isolated", [False, True])
def test_each_attempt_knows_its_schedule_and_the_time_of_its_tick_and_so_does_the_dead_letter(
    app: App, isolated: bool
) -> None:
    seen, tick = noting(app, isolated)
    first = run_one(app, tick)
    assert isinstance(first.outcome, Retry)
    (copy,) = first.published
    second = run_one(app, message_of(copy))
    assert isinstance(second.outcome, Dead)
    (letter,) = second.published
    assert seen == [("nightly", NOMINAL)] * 2
    for publication in (copy, letter):
        headers = publication.properties.headers or {}
        assert (headers["aw-schedule"], headers["aw-nominal"]) == ("nightly", "2026-11-30T02:30:00.000Z")
        assert publication.properties.message_id == tick.id
    again = replayed(letter.properties.headers or {}, NOMINAL.timestamp())
    run_one(
        app, message_of(Publication("", "work", Properties(message_id="1", type="note", headers=again), letter.body))
    )
    assert seen[2] == ("nightly", NOMINAL)


def message_of(publication: Publication) -> Message[Any]:
    properties = publication.properties
    assert properties.type is not None
    assert properties.message_id is not None
    headers = {name: value for name, value in (properties.headers or {}).items() if not name.startswith("aw-wait-")}
    return Message(properties.type, publication.routing_key, publication.body, properties.message_id, headers)


def test_a_run_that_was_asked_for_knows_its_schedule_too(app: App) -> None:
    seen, _ = noting(app)
    run_one(app, run_now_message(app.schedules["nightly"], MOMENT + 1))
    assert seen == [("nightly", NOMINAL.replace(microsecond=1000))]


def test_other_messages_have_no_schedule(app: App) -> None:
    seen, _ = noting(app)
    assert run_one(app, app.tasks["note"].message(False)).outcome == Done()
    assert seen == [(None, None)]


@pytest.mark.parametrize("value", ["soon", "2026-11-30T02:30", True, None, [5]])
def test_a_tick_without_a_valid_time_is_malformed_and_does_not_run(app: App, value: Any) -> None:
    seen, tick = noting(app)
    tick.headers["aw-nominal"] = value  # type: ignore[index]
    outcome = run_one(app, tick).outcome
    assert isinstance(outcome, Dead)
    assert (outcome.reason, seen) == ("malformed", [])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MOMENT, NOMINAL),
        ("2026-11-30T03:30:00+01:00", NOMINAL),
        (10**18, datetime.max.replace(microsecond=999_000, tzinfo=UTC)),
        (-(10**18), datetime.min.replace(tzinfo=UTC)),
    ],
)
def test_any_form_of_a_time_is_read_and_one_beyond_the_calendar_is_its_end(
    app: App, value: Any, expected: datetime
) -> None:
    seen, tick = noting(app)
    tick.headers["aw-nominal"] = value  # type: ignore[index]
    run_one(app, tick)
    assert seen == [("nightly", expected)]


@pytest.mark.parametrize("value", [5, None, b"\xff", ["nightly"]])
def test_the_name_of_a_schedule_is_text_or_there_is_none(app: App, value: Any) -> None:
    seen, tick = noting(app)
    tick.headers["aw-schedule"] = value  # type: ignore[index]
    run_one(app, tick)
    assert seen == [(None, NOMINAL)]
