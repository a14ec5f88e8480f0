"""Headers of ours that others wrote: a time is kept to in each of its forms, and one that means nothing runs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pika
import pytest

from amqpworker import App, current
from amqpworker.schedules.tick import tick_message
from tests.support import Broker, RawMessage, milliseconds, raw_channel, wait_until
from tests.workers import running

QUEUE = "work"
DEAD = f"{QUEUE}.dead"
FAR = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
IN_EACH_FORM: dict[str, Any] = {
    "ISO 8601 in UTC": FAR.strftime("%Y-%m-%dT%H:%M:%SZ"),
    "ISO 8601 elsewhere": (FAR + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.000+02:00"),
    "milliseconds": int(FAR.timestamp() * 1000),
    "decimal text": str(int(FAR.timestamp() * 1000)),
    "an AMQP timestamp": FAR,
}


def add_note(app: App) -> list[str]:
    """Add a task that notes which messages ran."""
    ran: list[str] = []

    @app.task(name="note", queue=QUEUE)
    def note() -> None:
        ran.append(current().id)

    return ran


def put(broker: Broker, message_id: str, **headers: Any) -> None:
    told = pika.BasicProperties(
        type="note", message_id=message_id, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    assert broker.publish("amqpworker.tasks", QUEUE, b"{}", told)


def letters(broker: Broker, count: int) -> dict[str | None, RawMessage]:
    broker.wait_for_count(DEAD, count)
    return {one.properties.message_id: one for one in (broker.wait_for_message(DEAD) for _ in range(count))}


def test_a_message_before_its_time_does_not_run_in_whatever_form_the_time_is(vhost: Broker, app: App) -> None:
    ran = add_note(app)
    with running(app, threads=1):
        for form, eta in IN_EACH_FORM.items():
            put(vhost, form, aw_eta=eta)
        put(vhost, "now")
        wait_until(lambda: ran, what="the one without a time runs")
        waiting = "amqpworker.delay.19"  # a day, less a moment, is waited for there first
        vhost.wait_for_count(waiting, len(IN_EACH_FORM))
    assert ran == ["now"]
    for _ in IN_EACH_FORM:
        message = vhost.wait_for_message(waiting)
        milliseconds(message.headers["aw-returned"])
        kept = message.headers["aw-eta"]
        assert kept in IN_EACH_FORM.values() or kept == FAR.replace(tzinfo=None)
    assert vhost.count(DEAD) == 0


def test_a_message_too_late_is_dead_in_whatever_form_the_time_is(vhost: Broker, app: App) -> None:
    ran = add_note(app)
    past = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    forms = [past, past.isoformat(), int(past.timestamp() * 1000), str(int(past.timestamp() * 1000))]
    with running(app, threads=1):
        for number, expires in enumerate(forms):
            put(vhost, str(number), aw_expires=expires)
        found = letters(vhost, len(forms))
    assert ran == []
    assert {one.headers["aw-dead-reason"] for one in found.values()} == {"expired"}


def test_an_invalid_amqpworker_header_makes_a_message_malformed(vhost: Broker, app: App) -> None:
    ran = add_note(app)
    cases: dict[str, dict[str, Any]] = {
        "without a zone": {"aw_eta": "2030-12-24T18:00:00"},
        "a date": {"aw_eta": "2030-12-24"},
        "words": {"aw_eta": "tomorrow"},
        "nothing": {"aw_eta": None},
        "yes": {"aw_expires": True},
        "a list": {"aw_expires": [1]},
        "sent": {"aw_first_sent": "once"},
        "run": {"aw_first_run": "once"},
        "returned": {"aw_returned": "yes"},
        "replayed": {"aw_replayed": "yes"},
        "attempt": {"aw_attempt": "first"},
        "attempt zero": {"aw_attempt": 0},
        "crashes": {"aw_crashes": "many"},
    }
    with running(app, threads=1):
        for case, headers in cases.items():
            put(vhost, case, **headers)
        put(vhost, "of a newer version", aw_newer="whatever", aw_wait_03="any", aw_attempt="2")
        found = letters(vhost, len(cases))
        wait_until(lambda: ran, what="what is unknown is ignored")
    assert ran == ["of a newer version"]
    for case, headers in cases.items():
        ((name, value),) = headers.items()
        told = found[case].headers
        assert told["aw-dead-reason"] == "malformed", case
        assert f"'{name.replace('_', '-')}'" in told["aw-error"]
        assert told[name.replace("_", "-")] == value, "as it was written"


# ---- replays --------------------------------------------------------------------------------------------------------


def move_back(broker: Broker, letter: RawMessage) -> None:
    """Publish a letter as the UI's "Move messages" does: with all its properties, to the queue by its name."""
    told = letter.properties
    died = [{"queue": DEAD, "reason": "expired", "count": 1, "exchange": "", "routing-keys": [QUEUE]}]
    told.headers = {**letter.headers, "x-death": died, "x-first-death-queue": DEAD}
    with raw_channel(broker.url) as channel:
        channel.confirm_delivery()
        channel.basic_publish("", QUEUE, letter.body, told, mandatory=True)


@pytest.fixture
def replayer(make_app: Callable[..., App]) -> App:
    return make_app()


def test_a_dead_letter_that_is_moved_back_starts_anew_and_keeps_only_its_last_death(
    vhost: Broker, replayer: App
) -> None:
    seen: list[tuple[int, dict[str, Any]]] = []

    @replayer.task(name="fail", queue=QUEUE, retry=[0])
    def fail() -> None:
        headers = current().delivery.properties.headers or {}
        seen.append((current().attempt, dict(headers)))
        raise OSError(f"run {len(seen)}")

    with running(replayer, threads=1):
        fail.options(headers={"tenant": "acme"}).send()
        first = vhost.wait_for_message(DEAD)
        before = time.time()
        move_back(vhost, first)
        second = vhost.wait_for_message(DEAD)
    assert [attempt for attempt, _ in seen] == [1, 2, 1, 2]
    again = seen[2][1]
    assert {name for name in again if name.startswith("aw-")} == {"aw-first-sent", "aw-replayed"}
    assert again["aw-first-sent"] == first.headers["aw-first-sent"]
    assert before - 1 <= milliseconds(again["aw-replayed"]) / 1000 <= time.time()
    assert second.headers["aw-error"] == "run 4"
    assert second.headers["aw-attempt"] == 2
    assert second.headers["aw-replayed"] == again["aw-replayed"]
    assert second.headers["tenant"] == "acme"
    assert second.properties.message_id == first.properties.message_id


def test_a_letter_that_had_expired_or_was_malformed_by_its_time_runs_once_it_is_moved_back(
    vhost: Broker, replayer: App
) -> None:
    ran = add_note(replayer)
    with running(replayer, threads=1):
        put(vhost, "late", aw_expires="2020-01-01T00:00:00Z")
        put(vhost, "no time", aw_eta="2030-12-24T18:00:00")
        for letter in letters(vhost, 2).values():
            move_back(vhost, letter)
        wait_until(lambda: sorted(ran) == ["late", "no time"], what="both run")
    assert vhost.count(QUEUE) == vhost.count(DEAD) == 0


def test_a_letter_that_had_crashed_is_not_condemned_by_its_past(vhost: Broker, replayer: App) -> None:
    ran = add_note(replayer)
    with running(replayer, threads=1):
        told = {"aw-dead-reason": "crashed", "aw-crashes": 3, "aw-attempt": 2, "aw-first-run": 1}
        properties = pika.BasicProperties(type="note", message_id="crashed", headers=told)
        move_back(vhost, RawMessage(b"{}", properties, "amqpworker.dead", QUEUE, False))
        # In an isolated process it would not be seen here.
        wait_until(lambda: ran == ["crashed"], 30, "it runs in the worker itself")


def test_a_tick_keeps_its_schedule_and_its_time_through_a_delay_retries_a_dead_letter_and_a_replay(
    vhost: Broker, replayer: App
) -> None:
    seen: list[tuple[str | None, datetime | None, str, int]] = []

    @replayer.task(name="fail", queue=QUEUE, retry=[0.125])
    def fail(day: str) -> None:
        run = current()
        seen.append((run.schedule, run.nominal, run.id, run.attempt))
        raise OSError(day)

    schedule = fail.options(headers={"tenant": "acme"}).schedule("nightly", cron="30 2 * * *", jitter=0.5)("today")
    nominal = datetime(2026, 11, 30, 2, 30, tzinfo=UTC)
    tick = tick_message(schedule, "amqpworker", "main", int(nominal.timestamp() * 1000))
    assert tick.delay
    with running(replayer, threads=1):
        replayer.send(tick)
        first = vhost.wait_for_message(DEAD)
        move_back(vhost, first)
        second = vhost.wait_for_message(DEAD)
    assert seen == [("nightly", nominal, tick.id, attempt) for attempt in (1, 2, 1, 2)]
    for letter in (first, second):
        kept = {name: letter.headers[name] for name in ("aw-schedule", "aw-nominal", "tenant")}
        assert kept == {"aw-schedule": "nightly", "aw-nominal": "2026-11-30T02:30:00.000Z", "tenant": "acme"}
