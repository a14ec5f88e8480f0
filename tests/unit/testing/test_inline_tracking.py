"""Tracked, deduplicated and reporting tasks inline: a test sees what `status()` shows, without waiting for anything."""

from __future__ import annotations

from amqpworker import App, current
from amqpworker.model.progress import Progress
from amqpworker.testing.inline_engine import running_engine

app = App("amqp://nowhere.invalid/", results="sqlite:///never.db")
runs: list[str] = []


@app.task(name="track", queue="work", track=True, result_ttl=100)
def track() -> str:
    current().progress(3, 5)
    return current().id


@app.task(name="pay", queue="work", dedupe=True, track=True)
def pay(cents: int) -> int:
    runs.append(current().id)
    return cents


@app.task(name="deny", queue="work", retry=None, dedupe=True)
def deny() -> None:
    runs.append("deny")
    raise ValueError


def test_a_tracked_message_is_sent_until_it_has_run_and_expires_by_its_own_time() -> None:
    with running_engine(app, eager=False) as engine:
        sent = track.send()
        assert sent.status().state == "sent"
        engine.worker.run_ready()
        status = sent.status()
        assert (status.state, status.attempt, status.progress) == ("done", 1, Progress(3, 5))
        engine.worker.advance_to(engine.clock.now() + 101)
        assert sent.status().state == "pending"


def test_each_message_with_an_id_that_is_done_has_its_result() -> None:
    runs.clear()
    with running_engine(app, eager=False) as engine:
        first = pay.options(id="order-1").send(5)
        engine.worker.run_ready()
        engine.worker.advance_to(engine.clock.now() + 10)
        second = pay.options(id="order-1").send(6)
        assert second.status().state == "done", "what was sent does not take the place of the result"
        engine.worker.run_ready()
        assert (first.result(), second.result()) == (5, 5)
        assert pay.options(id="order-1").call(7) == 5
    assert runs == ["order-1"]


def test_a_message_with_an_id_that_has_failed_runs() -> None:
    runs.clear()
    with running_engine(app, eager=False) as engine:
        for _ in range(2):
            deny.options(id="a").send()
            engine.worker.run_ready()
    assert runs == ["deny", "deny"]
