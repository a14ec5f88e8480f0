"""A task that fails runs again when its policy decides so, by way of the broker, and keeps what its sender gave it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pika
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from amqpworker import App, Reject, RetryLater, current
from tests.support import Broker, milliseconds, raw_channel, wait_until
from tests.workers import running

QUEUE = "work"
TASKS = "amqpworker.tasks"


def stuck(broker: Broker) -> str:
    """Return how many messages each queue's dead-lettering holds: no client sees or gets those."""
    queues = f'rabbit_amqqueue:list(<<"{broker.vhost}">>)'
    figure = "proplists:get_value(messages_dlx, rabbit_quorum_queue:info(Q, [messages_dlx]))"
    return broker.node.rabbitmqctl("eval", f"lists:usort([{figure} || Q <- {queues}]).").strip()


class Runs:
    """Notes each run: when, which attempt, and what the worker got on the wire."""

    def __init__(self) -> None:
        self.notes: list[tuple[float, int, dict[str, Any], dict[str, Any]]] = []

    def note(self) -> int:
        """Note a run, and return which it is, from 1."""
        run = current()
        self.notes.append((time.time(), run.attempt, run.headers, dict(run.delivery.properties.headers or {})))
        return len(self.notes)

    @property
    def attempts(self) -> list[int]:
        return [attempt for _, attempt, _, _ in self.notes]

    def wait_for(self, count: int, timeout: float = 20.0) -> None:
        wait_until(lambda: len(self.notes) >= count, timeout, f"{count} runs")


@pytest.fixture
def runs() -> Runs:
    return Runs()


def test_a_task_is_retried_after_its_waits_and_dead_when_they_are_used_up(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="fail", queue=QUEUE, retry=[0.125, 0.25])
    def fail() -> None:
        runs.note()
        raise OSError("away")

    with running(app, threads=1):
        sent = fail.send()
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
    (first, _, _, _), (second, _, _, _), (third, _, _, _) = runs.notes
    assert runs.attempts == [1, 2, 3]
    assert second - first >= 0.124
    assert third - second >= 0.249
    assert letter.properties.message_id == sent.id
    assert letter.headers["aw-attempt"] == 3
    assert letter.headers["aw-dead-reason"] == "failed"


def test_policies_of_every_form_are_asked(vhost: Broker, app: App) -> None:
    policies: dict[str, Any] = {
        "never": None,
        "no retries": 0,
        "no waits": [],
        "one": [timedelta(0)],
        "tenacity": Retrying(stop=stop_after_attempt(3), wait=wait_fixed(0), retry=retry_if_exception_type(OSError)),
        "another error": Retrying(stop=stop_after_attempt(3), retry=retry_if_exception_type(KeyError)),
    }
    runs: Counter[str] = Counter()

    def fail() -> None:
        runs[current().task] += 1
        raise OSError

    tasks = [app.task(fail, name=name, queue=QUEUE, retry=retry) for name, retry in policies.items()]
    with running(app, threads=4):
        for task in tasks:
            task.send()
        vhost.wait_for_count(f"{QUEUE}.dead", len(tasks))
    assert runs == {"never": 1, "no retries": 1, "no waits": 1, "one": 2, "tenacity": 3, "another error": 1}


def test_a_retry_carries_its_times_on_the_wire(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="fail", queue=QUEUE, retry=[0.5, 0.125])
    def fail() -> None:
        if runs.note() < 3:
            raise OSError

    with running(app, threads=1):
        fail.send()
        runs.wait_for(3)
    (began, _, _, first), (again, _, _, second), (_, _, _, third) = runs.notes
    assert "aw-attempt" not in first
    assert [second["aw-attempt"], third["aw-attempt"]] == [2, 3]
    assert second["aw-first-run"] == third["aw-first-run"]
    assert abs(milliseconds(second["aw-first-run"]) / 1000 - began) < 0.5
    assert abs(milliseconds(second["aw-eta"]) / 1000 - (began + 0.5)) < 0.5
    assert again >= milliseconds(second["aw-eta"]) / 1000 - 0.001
    assert second["aw-first-sent"] == first["aw-first-sent"]
    assert [name for name in third if name.startswith("aw-wait-")] == ["aw-wait-00"], "the waits of this way only"


def test_the_same_task_is_retried_again_and_again_by_the_same_way(vhost: Broker, app: App, runs: Runs) -> None:
    """With `x-death` kept RabbitMQ 3.x takes the second trip for a cycle, and the message stays where it is."""

    @app.task(name="fail", queue=QUEUE, retry=[0.375] * 5)
    def fail() -> None:
        if runs.note() < 6:
            raise OSError

    with running(app, threads=1):
        fail.send()
        runs.wait_for(6)
        assert stuck(vhost) == "[0]"
    assert runs.attempts == [1, 2, 3, 4, 5, 6]
    waited = [sorted(entry["queue"] for entry in wire["x-death"]) for _, _, _, wire in runs.notes[1:]]
    assert waited == [["amqpworker.delay.00", "amqpworker.delay.01"]] * 5, "each time, and it counts this trip only"


def test_headers_of_the_sender_survive_retries(vhost: Broker, make_app: Callable[..., App], runs: Runs) -> None:
    app = make_app()
    headers = {
        "text": "é",
        "float": 1.5,
        "int": 2**40,
        "flag": True,
        "none": None,
        "list": [1, 2.5],
        "table": {"a": 0.1},
    }

    @app.task(name="fail", queue=QUEUE, retry=[0.125, 0])
    def fail() -> None:
        if runs.note() < 3:
            raise OSError

    with running(app, threads=1):
        fail.options(headers=headers).send()
        runs.wait_for(3)
    for _, _, seen, _ in runs.notes:
        assert seen == headers
        assert {name: type(value) for name, value in seen.items()} == {
            name: type(value) for name, value in headers.items()
        }


def test_a_retry_without_a_wait_comes_by_the_exchange_of_due_messages(vhost: Broker, app: App) -> None:
    came: list[str] = []

    @app.task(name="fail", queue=QUEUE, retry=[0])
    def fail() -> None:
        came.append(current().delivery.exchange)
        if len(came) == 1:
            raise OSError

    with running(app, threads=1):
        fail.send()
        wait_until(lambda: len(came) == 2, what="two runs")
    assert came == [TASKS, "amqpworker.due"]


@pytest.mark.parametrize("exchange", ["amqpworker.dead", "amqpworker.delay.03", "amqpworker.due"])
def test_an_exchange_that_was_deleted_under_a_worker_is_declared_anew_for_its_copies(
    vhost: Broker, app: App, exchange: str
) -> None:
    ran: list[tuple[str, int]] = []
    retry = {"amqpworker.dead": None, "amqpworker.delay.03": [1], "amqpworker.due": [0]}[exchange]

    @app.task(name="fail", queue=QUEUE, retry=retry)
    def fail() -> None:
        ran.append(("fail", current().attempt))
        if current().attempt == 1:
            raise OSError

    @app.task(name="fine", queue=QUEUE)
    def fine() -> None:
        ran.append(("fine", 1))

    with running(app, threads=1):
        fine.send()
        wait_until(lambda: len(ran) == 1, what="it runs")
        with raw_channel(vhost.url) as channel:
            channel.exchange_delete(exchange)
        # By another connection: the copy that fails takes the channel of its worker along.
        with App(vhost.url) as sender:
            sender.send_many([fail.message(), fine.message()])
        ends = [("fail", 2)] if retry else []
        wait_until(lambda: sorted(ran) == sorted([("fail", 1), *ends, ("fine", 1), ("fine", 1)]), 20, "all run")
        vhost.wait_for_count(f"{QUEUE}.dead", 0 if retry else 1)


# ---- what a task asks for -------------------------------------------------------------------------------------------


def test_retry_later_counts_and_stops_when_the_policy_stops(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="later", queue=QUEUE, retry=2)
    def later() -> None:
        runs.note()
        raise RetryLater(0)

    with running(app, threads=1):
        later.send()
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
    assert runs.attempts == [1, 2, 3]
    assert letter.headers["aw-error-type"].endswith("RetryLater")


def test_retry_later_that_does_not_count_leaves_the_attempt_alone(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="later", queue=QUEUE, retry=1)
    def later() -> None:
        if runs.note() < 5:
            raise RetryLater(0.125 if len(runs.notes) == 2 else 0, count=False)

    with running(app, threads=1):
        later.send()
        runs.wait_for(5)
    assert runs.attempts == [1] * 5
    assert vhost.count(f"{QUEUE}.dead") == 0


def test_reject_is_dead_at_once_with_its_reason(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="refuse", queue=QUEUE, retry=5)
    def refuse() -> None:
        runs.note()
        raise Reject("no such user")

    with running(app, threads=1):
        refuse.send()
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
    assert runs.attempts == [1]
    assert letter.headers["aw-dead-reason"] == "rejected"
    assert letter.headers["aw-error"] == "no such user"


# ---- times ----------------------------------------------------------------------------------------------------------


def test_what_comes_too_late_is_dead_as_expired(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="note", queue=QUEUE)
    def note() -> None:
        runs.note()

    expired = note.options(expires=0.01).send()
    late = time.time() + 0.01
    wait_until(lambda: time.time() > late, what="it is too late")
    in_time = note.options(expires=60).send()
    with running(app, threads=1):
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
        runs.wait_for(1)
    assert letter.properties.message_id == expired.id
    assert letter.headers["aw-dead-reason"] == "expired"
    assert len(runs.notes) == 1
    assert in_time.id


def test_a_retry_that_would_come_too_late_is_dead_as_expired(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="fail", queue=QUEUE, retry=[1.0])
    def fail() -> None:
        runs.note()
        raise OSError

    with running(app, threads=1):
        fail.options(expires=0.5).send()
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
    assert letter.headers["aw-dead-reason"] == "expired"
    assert runs.attempts == [1]


def put_early(broker: Broker, seconds: float, **headers: Any) -> int:
    """Put a message into its queue long before its time, as a shovel or a hand does; return its time."""
    eta = int((time.time() + seconds) * 1000)
    told = pika.BasicProperties(type="note", headers={"aw-eta": eta, **headers}, message_id="early")
    assert broker.publish("", QUEUE, b"{}", told)
    return eta


def test_a_message_before_its_time_goes_back_to_the_ladder_once(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="note", queue=QUEUE)
    def note() -> None:
        runs.note()

    with running(app, threads=1):
        eta = put_early(vhost, 2.0)
        runs.wait_for(1)
    when, attempt, _, wire = runs.notes[0]
    assert eta / 1000 - 0.001 <= when <= eta / 1000 + 1.0
    assert attempt == 1, "it did not count"
    assert wire["aw-returned"]
    assert wire["aw-eta"] == eta
    assert vhost.count(f"{QUEUE}.dead") == 0


def test_a_message_that_is_early_once_more_runs_with_a_line_in_the_log(
    vhost: Broker, app: App, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="note", queue=QUEUE)
    def note() -> None:
        runs.note()

    with running(app, threads=1):
        eta = put_early(vhost, 600.0, **{"aw-returned": 1})
        runs.wait_for(1)
    assert runs.notes[0][0] < eta / 1000 - 500
    assert "task_runs_early" in caplog.text


def test_a_retry_of_a_returned_message_may_be_returned_again(vhost: Broker, app: App, runs: Runs) -> None:
    @app.task(name="note", queue=QUEUE, retry=[0])
    def note() -> None:
        if runs.note() == 1:
            raise OSError

    with running(app, threads=1):
        put_early(vhost, 600.0, **{"aw-returned": 1})
        runs.wait_for(2)
    assert "aw-returned" not in runs.notes[1][3]
