"""What a message or its task decides for itself, by way of the broker: limits, the next queue, errors that are expected."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amqpworker import App, RetryLater, current
from tests.support import Broker, wait_until
from tests.workers import running

QUEUE = "work"


@pytest.mark.parametrize(("delay", "count"), [(0, False), (0.25, True)])
def test_a_message_continues_in_another_queue_that_no_process_has_declared(
    vhost: Broker, make_app: Callable[..., App], delay: float, count: bool
) -> None:
    app = make_app()
    app.queue("slow")
    runs: list[tuple[str, int]] = []

    @app.task(name="moves", queue=QUEUE, retry=[0])
    def moves() -> None:
        run = current()
        runs.append((run.queue, run.attempt))
        if run.queue == QUEUE:
            raise RetryLater(delay, count=count, queue="slow")

    with running(app, queues=[QUEUE], threads=1):
        moves.send()
        vhost.wait_for_count("slow", 1)
    assert vhost.count(QUEUE) == 0
    with running(app, queues=["slow"], threads=1):
        wait_until(lambda: len(runs) == 2, what="the run in the other queue")
    assert runs == [(QUEUE, 1), ("slow", 2 if count else 1)]
    assert "amqpworker.parked" not in vhost.queues() or vhost.count("amqpworker.parked") == 0


def test_an_expected_error_is_dead_at_once_and_a_queue_that_the_app_does_not_have_too(vhost: Broker, app: App) -> None:
    runs: list[str] = []

    @app.task(name="misses", queue=QUEUE, retry=[0, 0], throws=(LookupError,))
    def misses() -> None:
        runs.append("misses")
        raise KeyError("no such user")

    @app.task(name="strays", queue=QUEUE, retry=[0, 0])
    def strays() -> None:
        runs.append("strays")
        raise RetryLater(5, queue="wrok")

    with running(app, threads=1):
        misses.send()
        missed = vhost.wait_for_message(f"{QUEUE}.dead")
        strays.send()
        strayed = vhost.wait_for_message(f"{QUEUE}.dead")
    assert runs == ["misses", "strays"]
    assert (missed.headers["aw-dead-reason"], missed.headers["aw-error-type"]) == ("failed", "KeyError")
    assert (strayed.headers["aw-dead-reason"], strayed.headers["aw-error-type"]) == (
        "failed",
        "amqpworker.errors.RetryLater",
    )
    assert "The app has no queue 'wrok': did you mean work?" in strayed.headers["aw-error"]


def test_the_limits_of_a_message_hold_in_each_of_its_runs_also_after_a_replay(vhost: Broker, app: App) -> None:
    runs: list[tuple[int, bool]] = []

    @app.task(name="spins", queue=QUEUE, retry=[0.125], time_limit=60)
    def spins() -> None:
        runs.append((current().attempt, current().last_attempt))
        while True:
            pass

    with running(app, threads=1):
        sent = spins.options(time_limit=0.25, hard_limit=30, delay=0.125).send()
        vhost.wait_for_count(f"{QUEUE}.dead", 1)
        assert app.dead.replay(sent.id) == {sent.id: 1}
        wait_until(lambda: len(runs) == 4, what="two more runs")
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
    assert runs == [(1, False), (2, True)] * 2
    assert letter.headers["aw-dead-reason"] == "timeout"
    assert (letter.headers["aw-time-limit"], letter.headers["aw-hard-limit"]) == ("0.25", 30)


def test_a_coroutine_has_the_limit_of_its_message(vhost: Broker, app: App) -> None:
    @app.task(name="waits", queue=QUEUE, retry=None)
    async def waits() -> None:
        import asyncio

        await asyncio.sleep(60)

    with running(app):
        waits.options(time_limit=0.25).send()
        letter = vhost.wait_for_message(f"{QUEUE}.dead")
    assert letter.headers["aw-dead-reason"] == "timeout"
