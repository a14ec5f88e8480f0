"""What is stored of tasks of Django besides the rows of their messages: for how long, and what a store that is away costs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, Message
from amqpworker.client.stored_results import moment
from amqpworker.contrib.django.request_record import RequestRecord, Stored, get_stored, put_record
from amqpworker.contrib.django.sender_records import SenderRecords
from amqpworker.results.row import ResultRow, record_id
from amqpworker.results.store import ResultStore

DAY = 86400.0
RECORD = RequestRecord(task="shop.add", args=[1], kwargs={}, queue="default")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db") as app:
        yield app


def store_of(app: App) -> ResultStore:
    store = app.store()
    assert store is not None
    return store


def age(app: App, seconds: float) -> None:
    """Have the record of the message `1` be stored earlier."""
    stored = store_of(app).get([record_id("1")])[record_id("1")]
    store_of(app).put([stored._replace(expires_at=stored.expires_at - seconds)])


def test_a_record_is_kept_as_long_as_the_row_of_its_message_would_be(app: App) -> None:
    put_record(app, "1", RECORD)
    assert get_stored(app, "1") == Stored(RECORD, None, False)
    age(app, 0.95 * DAY)
    assert get_stored(app, "1") == Stored(RECORD, None, True)
    age(app, 0.1 * DAY)
    assert get_stored(app, "1") == Stored()
    row = ResultRow("1", "done", "shop.add", b"{}", "", time.time(), time.time() + DAY)
    store_of(app).put([row])
    assert get_stored(app, "1") == Stored(RECORD, row, True)
    age(app, 0.1 * DAY)
    assert get_stored(app, "1") == Stored(None, row, False)


def test_the_record_of_a_delayed_task_is_kept_from_its_time_on(app: App) -> None:
    due = datetime.now(UTC) + timedelta(days=30)
    record = RequestRecord(task="shop.add", args=[], kwargs={}, queue="default", run_after=due.isoformat())
    put_record(app, "1", record)
    age(app, 30 * DAY)
    assert get_stored(app, "1").record == record


def test_a_record_of_a_later_version_can_be_read(app: App) -> None:
    put_record(app, "1", RECORD)
    stored = store_of(app).get([record_id("1")])[record_id("1")]
    more = json.dumps({**json.loads(stored.reply), "colour": "red"}).encode()
    store_of(app).put([stored._replace(reply=more)])
    assert get_stored(app, "1").record == RECORD


def test_the_start_of_an_attempt_is_that_of_its_row_to_the_microsecond() -> None:
    """Django is shown the one before the attempt has ended, and the other afterwards."""
    for number in range(1000):
        started = 1_796_068_208.105 + number * 1.7e-7
        record = RECORD.ended(1, "w", started, None)
        assert record.started_at == moment(started * 1000).isoformat()


def test_attempts_that_are_not_recorded_have_the_worker_of_the_next() -> None:
    third = RECORD.ended(3, "host.7", 10.5, ("builtins.ValueError", "no stock"))
    assert third.worker_ids == ["host.7"] * 3
    postponed = third.ended(4, "host.8", 11.5, None)
    assert (postponed.worker_ids, postponed.errors) == ([*["host.7"] * 3, "host.8"], third.errors)
    assert (postponed.ended_run, postponed.failed_run, postponed.started_at) == (11.5, 10.5, third.started_at)
    replayed = postponed.ended(1, "host.9", 12.5, ("builtins.KeyError", "again"))
    assert (replayed.worker_ids, replayed.errors) == (["host.9"], [["builtins.KeyError", "again"]])


class Times:
    """A monotonic clock: an attempt to store takes `seconds`."""

    def __init__(self) -> None:
        self.now, self.seconds = 100.0, 0.0

    def __call__(self) -> float:
        self.now += self.seconds
        return self.now


def message(message_id: str) -> Message[Any]:
    return Message(id=message_id, task="shop.add", queue="default", body=b'{"args":[1],"kwargs":{}}')


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "results.db").write_text("not a database")
    with App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db") as app:
        yield app


def failures(caplog: pytest.LogCaptureFixture) -> int:
    return sum("record_failed" in one.getMessage() for one in caplog.records)


def test_a_store_that_fails_at_once_is_tried_for_each_task(broken: App, caplog: pytest.LogCaptureFixture) -> None:
    records = SenderRecords(broken, Times())
    for number in range(3):
        assert records.put(message(str(number)), None).args == [1]
    records.forget("1")
    assert failures(caplog) == 3


def test_a_store_that_fails_late_is_tried_again_after_a_pause(broken: App, caplog: pytest.LogCaptureFixture) -> None:
    clock = Times()
    records = SenderRecords(broken, clock)
    clock.seconds = 2.0
    records.put(message("1"), None)
    clock.seconds = 0.0
    clock.now += 19.0
    records.put(message("2"), None)
    records.forget("2")
    assert failures(caplog) == 1
    clock.now += 1.0
    records.put(message("3"), None)
    assert failures(caplog) == 2


def test_the_record_of_a_message_that_was_not_sent_is_deleted(app: App) -> None:
    records = SenderRecords(app)
    record = records.put(message("1"), None)
    assert get_stored(app, "1").record == record
    records.forget("1")
    assert get_stored(app, "1") == Stored()
