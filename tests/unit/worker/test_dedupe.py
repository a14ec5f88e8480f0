"""Tasks with `dedupe=True`: a message whose task is done by its row does not run, and a call gets the reply that is stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from amqpworker import App
from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.model.outcome import AlreadyDone, Deferred, Done
from amqpworker.results.row import ResultRow
from amqpworker.worker.assembly import assemble
from amqpworker.worker.counters import OutcomeCounters
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.stored_checks import StoredChecks
from tests.unit.worker.settling import Bench, registered

ROW = ResultRow("id-1", "done", "example", b'{"status": "done", "value": 7}', "", 1.0, 4e9)


class Runs:
    """Counts the runs of a task, which is a function or a coroutine function."""

    def __init__(self, is_async: bool) -> None:
        self.count = 0

        def plain() -> int:
            self.count += 1
            return 1

        async def coroutine() -> int:
            return plain()

        self.function: Callable[[], Any] = coroutine if is_async else plain


@pytest.fixture(params=[False, True], ids=["thread", "event loop"])
def runs(request: pytest.FixtureRequest) -> Runs:
    return Runs(request.param)


def bench_of(runs: Runs, row: ResultRow | None, dedupe: bool = True) -> Bench:
    bench = Bench(tasks={"example": registered(runs.function, dedupe=dedupe)})
    if row is not None:
        bench.store.rows[row.id] = row
    bench.pipeline._stored_checks = StoredChecks(bench.store)
    return bench


def taken(bench: Bench, **properties: Any) -> Any:
    with bench.loop:
        bench.take(bench.delivery(**properties))
    bench.flush()
    return [event.outcome for event in bench.events]


def test_a_message_whose_task_is_done_is_acknowledged_and_counts_as_done(
    runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench = bench_of(runs, ROW)
    assert taken(bench) == [AlreadyDone(ROW.reply)]
    assert runs.count == 0
    assert any("task_already_done" in one.getMessage() for one in caplog.records)
    counters = OutcomeCounters()
    counters.on_settled(bench.events)
    assert counters.counts().done == 1


def test_a_call_gets_the_reply_that_is_stored(runs: Runs) -> None:
    bench = bench_of(runs, ROW._replace(first_sent="2020-01-01T00:00:00.000Z"))
    with bench.loop:
        bench.take(bench.delivery(reply_to="caller", correlation_id="c"))
    assert bench.flush() == [("publish", "", "caller")]
    assert json.loads(bench.publisher.published[0].body) == {"status": "done", "value": 7}
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]
    assert runs.count == 0


@pytest.mark.parametrize(
    "row",
    [
        None,
        ROW._replace(state="failed"),
        ROW._replace(state="cancelled"),
        ROW._replace(state="running", reply=b""),
        ROW._replace(expires_at=5.0),
        ROW._replace(id="another"),
    ],
)
def test_only_a_row_that_is_done_and_has_not_expired_keeps_a_message_from_running(
    runs: Runs, row: ResultRow | None
) -> None:
    bench = bench_of(runs, row)
    (outcome,) = taken(bench)
    assert isinstance(outcome, Done)
    assert runs.count == 1


def test_a_message_that_was_replayed_runs(runs: Runs) -> None:
    bench = bench_of(runs, ROW)
    (outcome,) = taken(bench, headers={"aw-replayed": "2026-01-01T00:00:00.000Z"})
    assert isinstance(outcome, Done)


def test_a_task_without_the_option_does_not_read_the_store(runs: Runs) -> None:
    bench = bench_of(runs, ROW, dedupe=False)
    assert isinstance(taken(bench)[0], Done)


@pytest.mark.parametrize("error", [ResultStoreError("away"), KeyError("a defect of the store")])
def test_a_message_waits_while_the_store_cannot_be_read(runs: Runs, error: Exception) -> None:
    def fail(_: Collection[str]) -> Mapping[str, ResultRow]:
        raise error

    bench = bench_of(runs, None)
    bench.store.get = fail  # type: ignore[method-assign, assignment]
    with bench.loop:
        bench.take(bench.delivery())
    assert runs.count == 0
    bench.publisher.confirm()
    bench.flush()
    assert isinstance(bench.events[0].outcome, Deferred)


def test_a_worker_of_a_task_that_dedupes_needs_a_store() -> None:
    app = App("amqp://localhost/", modules=[])

    @app.task(name="pay", queue="work", dedupe=True)
    def pay() -> None: ...

    with pytest.raises(ConfigError, match="dedupe=True"):
        assemble(app, WorkerOptions(app="shop:app"))
