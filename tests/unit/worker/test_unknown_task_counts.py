"""Messages from newer code than a worker's: they wait for a worker that knows them, and the log and the status show it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from amqpworker.ipc.pipes import MAX_TEXT_BYTES
from amqpworker.model.clock import Clock
from amqpworker.model.headers import time_text
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Deferred, Discarded, Done, Outcome
from amqpworker.worker.context import Run
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.unknown_task_counts import MAX_NAMES, OTHERS, UnknownTaskCounts, UnknownTasksReport, shortened
from tests.unit.worker.settling import RETRY, Bench, registered

NOW = 1_790_000_000.0
MILLISECONDS = int(NOW * 1000)
CLOCK = Clock(lambda: NOW, lambda: 0.0)


def take(a: int, b: str = "x") -> None: ...


def delivery_of(body: bytes = b'{"a": 1}', headers: dict[str, Any] | None = None, **changed: Any) -> Delivery:
    known: dict[str, Any] = {"type": "example", "content_type": "application/json", "message_id": "id", **changed}
    return Delivery(1, False, "amqpworker.tasks", "work", Properties(headers=headers, **known), body)


def outcome_of(delivery: Delivery, function: Callable[..., Any] = take, **task: Any) -> Outcome:
    executor = TaskExecutor({"example": registered(function, **task)}, False, clock=CLOCK)
    admitted = executor.admit(delivery)
    return executor.call(admitted) if isinstance(admitted, Run) else admitted


# ---- what waits -----------------------------------------------------------------------------------------------------

NEWER = {
    "task": delivery_of(type="shop.new"),
    "parameter": delivery_of(b'{"a": 1, "c": 2}'),
    "renamed parameter": delivery_of(b'{"c": 2}'),
    "version": delivery_of(headers={"aw-version": 2}),
    "version as text": delivery_of(headers={"aw-version": "2"}),
}


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER.keys())
def test_what_only_newer_code_knows_waits(newer: Delivery) -> None:
    outcome = outcome_of(newer)
    assert isinstance(outcome, Deferred)
    assert (outcome.delay, outcome.unknown_since) == (4.0, MILLISECONDS)


@pytest.mark.parametrize(("waited", "delay"), [(0, 4), (8, 8), (300, 64)])
@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER.keys())
def test_it_waits_as_long_as_it_has_waited(newer: Delivery, waited: int, delay: float) -> None:
    since = MILLISECONDS - waited * 1000
    headers = {**(newer.properties.headers or {}), "aw-unknown-since": time_text(since)}
    outcome = outcome_of(delivery_of(newer.body, headers, type=newer.properties.type))
    assert isinstance(outcome, Deferred)
    assert (outcome.delay, outcome.unknown_since) == (delay, since)


@pytest.mark.parametrize(
    ("kind", "reason", "text"),
    [
        ("task", "unknown-task", "no task 'shop.new'"),
        ("parameter", "malformed", "there is no parameter 'c'"),
        ("renamed parameter", "malformed", "there is no parameter 'c'"),
        ("version", "unknown-task", "version 2 of task 'example', this worker knows version 1"),
    ],
)
def test_after_ten_minutes_it_is_dead(kind: str, reason: str, text: str) -> None:
    newer = NEWER[kind]
    headers = {**(newer.properties.headers or {}), "aw-unknown-since": MILLISECONDS - 600_000}
    outcome = outcome_of(delivery_of(newer.body, headers, type=newer.properties.type))
    assert isinstance(outcome, Dead)
    assert outcome.reason == reason
    assert text in outcome.failure.text


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER.keys())
def test_a_call_is_answered_at_once(newer: Delivery) -> None:
    call = delivery_of(newer.body, newer.properties.headers, type=newer.properties.type, reply_to="r")
    assert isinstance(outcome_of(call), Dead)


@pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER.keys())
def test_expiry_is_checked_first(newer: Delivery) -> None:
    headers = {**(newer.properties.headers or {}), "aw-expires": MILLISECONDS - 1}
    outcome = outcome_of(delivery_of(newer.body, headers, type=newer.properties.type))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "expired"
    headers["aw-expires"] = MILLISECONDS - 6000
    call = delivery_of(newer.body, headers, type=newer.properties.type, reply_to="r")
    assert isinstance(outcome_of(call), Discarded)


@pytest.mark.parametrize("body", [b"{}", b'{"a": "x"}', b"[]", b"{"])
def test_what_no_newer_code_would_send_is_dead_at_once(body: bytes) -> None:
    outcome = outcome_of(delivery_of(body))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "malformed"


@pytest.mark.parametrize("version", ["two", 0, -1, 1.5, True])
def test_a_version_that_is_not_one_is_malformed(version: Any) -> None:
    outcome = outcome_of(delivery_of(headers={"aw-version": version}))
    assert isinstance(outcome, Dead)
    assert (outcome.reason, "'aw-version'" in outcome.failure.text) == ("malformed", True)


# ---- older versions -------------------------------------------------------------------------------------------------


def test_an_older_message_is_upgraded_before_it_is_validated() -> None:
    seen: list[Any] = []

    def run(user_id: int) -> None:
        seen.append(user_id)

    def upgrade(version: int, arguments: dict[str, Any]) -> dict[str, Any]:
        seen.append((version, dict(arguments)))
        return {"user_id": arguments["uid"]}

    assert outcome_of(delivery_of(b'{"uid": 1}'), run, version=3, upgrade=upgrade) == Done()
    assert outcome_of(delivery_of(b'{"uid": 2}', {"aw-version": 2}), run, version=3, upgrade=upgrade) == Done()
    assert outcome_of(delivery_of(b'{"user_id": 3}', {"aw-version": 3}), run, version=3, upgrade=upgrade) == Done()
    assert seen == [(1, {"uid": 1}), 1, (2, {"uid": 2}), 2, 3]


def test_a_task_of_a_higher_version_without_an_upgrade_reads_older_messages_as_they_are() -> None:
    assert outcome_of(delivery_of(), version=2) == Done()


def test_an_upgrade_that_raises_leaves_a_malformed_letter_with_its_traceback() -> None:
    def upgrade(version: int, arguments: dict[str, Any]) -> dict[str, Any]:
        raise LookupError(f"{version}, {sorted(arguments)}")

    outcome = outcome_of(delivery_of(), version=2, upgrade=upgrade)
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.failure.error_type) == ("malformed", "LookupError")
    assert outcome.failure.text == "Task 'example': its upgrade from version 1 failed: 1, ['a']"
    assert "in upgrade" in outcome.failure.traceback


# ---- what is published ----------------------------------------------------------------------------------------------


def settled(outcome: Outcome, headers: dict[str, Any], has_run: bool = False) -> dict[str, Any]:
    """Return the headers of what takes the place of a delivery."""
    bench = Bench()
    delivery = bench.delivery(headers=headers)
    bench.settler.settle(delivery, outcome, bench.started(delivery) if has_run else None)
    (copy,) = bench.publisher.published
    return dict(copy.properties.headers or {})


def test_a_deferred_message_is_as_it_was_but_for_the_time_since_when_it_is_unknown() -> None:
    headers = {"aw-attempt": 3, "aw-eta": "2026-11-28T23:59:59.123Z", "aw-returned": MILLISECONDS, "tenant": "acme"}
    new = settled(Deferred(8.0, "no task", MILLISECONDS), headers)
    assert new == {**headers, "aw-unknown-since": time_text(MILLISECONDS), "aw-wait-06": True}


def test_the_header_is_dropped_at_the_first_run() -> None:
    old = {"aw-unknown-since": time_text(MILLISECONDS)}
    assert "aw-unknown-since" not in settled(RETRY, old, has_run=True)
    assert "aw-unknown-since" not in settled(Dead("failed"), old, has_run=True)
    assert settled(Dead("unknown-task"), old)["aw-unknown-since"] == time_text(MILLISECONDS), "evidence"


# ---- the log and the status -----------------------------------------------------------------------------------------


class Reports:
    """Takes reports as a supervisor does; refuses them while the pipe is full."""

    def __init__(self) -> None:
        self.found: list[dict[str, int]] = []
        self.full = False

    def send(self, report: Any) -> bool:
        if not self.full:
            self.found.append(report.waiting)
        return not self.full


def test_a_task_is_logged_once_per_minute_with_the_number_of_its_messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amqpworker")
    now = [0.0]
    counts = UnknownTaskCounts(lambda: now[0])
    for moment, task in ((0, "a"), (1, "a"), (2, "b"), (59.9, "a"), (60, "a"), (61, "a"), (130, "a")):
        now[0] = moment
        counts.note(task, "work", 4.0, "no task")
    lines = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    assert [(line["task"], line["messages"]) for line in lines] == [("a", 1), ("b", 1), ("a", 3), ("a", 2)]


def test_what_waits_is_counted_until_it_is_due() -> None:
    now = [0.0]
    counts = UnknownTaskCounts(lambda: now[0])
    for _ in range(3):
        counts.note("b", "work", 64.0, "no task")
    counts.note("a", "work", 4.0, "no task")
    assert counts.waiting() == {"b": 3, "a": 1}
    now[0] = 4.0
    assert counts.waiting() == {"b": 3}
    now[0] = 64.0
    assert counts.waiting() == {}
    now[0] = 64.5
    counts.note("b", "work", 4.0, "no task")
    now[0] = 68.5  # it is delivered again about now: counted longer, it would be counted twice
    assert counts.waiting() == {}


def test_memory_has_a_bound_whatever_names_are_sent() -> None:
    now = [0.0]
    counts = UnknownTaskCounts(lambda: now[0])
    for number in range(10 * MAX_NAMES):
        counts.note(f"task-{number}", "work", 4.0, "no task")
    found = counts.waiting()
    assert len(found) == MAX_NAMES + 1
    assert found[OTHERS] == 9 * MAX_NAMES
    now[0] = 5.0
    counts.note("new", "work", 4.0, "no task")
    assert counts.waiting() == {"new": 1}


def test_the_supervisor_gets_a_report_when_it_changes_once_per_second_at_most() -> None:
    now = [0.0]
    counts, reports = UnknownTaskCounts(lambda: now[0]), Reports()
    service = UnknownTasksReport(counts, reports)  # type: ignore[arg-type]
    service.beat(0.0)
    counts.note("a", "work", 4.0, "no task")
    service.beat(0.5)
    assert reports.found == []
    reports.full = True
    service.beat(1.0)
    reports.full = False
    service.beat(2.0)
    service.beat(3.0)
    assert reports.found == [{"a": 1}], "the report for which there was no room is sent later"
    now[0] = 5.0
    service.beat(5.0)
    assert reports.found == [{"a": 1}, {}]


def test_a_report_has_room_for_the_longest_names() -> None:
    found = shortened({f"{number:03d}" + "\x01" * 250: 10**6 for number in range(50)})
    assert len(found) == 11
    assert (found[OTHERS], sum(found.values())) == (40 * 10**6, 50 * 10**6)
    assert len(json.dumps(found, ensure_ascii=False).encode()) <= MAX_TEXT_BYTES
