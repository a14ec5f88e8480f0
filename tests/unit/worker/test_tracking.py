"""Tasks with `track=True`: the store has that they run, and a store that fails changes nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from amqpworker.errors import ResultStoreError
from amqpworker.model.outcome import Done
from amqpworker.results.row import ResultRow
from amqpworker.worker.result_storer import MOST_NOTES, ResultStorer
from tests.unit.worker.settling import Bench, Store, registered


def put_rows(bench: Bench) -> list[ResultRow]:
    """Return the list to which each row is added that is put."""
    found: list[ResultRow] = []
    put = bench.store.put

    def noting(rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        found.extend(rows)
        return put(rows)

    bench.store.put = noting  # type: ignore[method-assign]
    return found


async def coroutine() -> int:
    return 0


@pytest.mark.parametrize("function", [lambda: 0, coroutine])
def test_a_row_that_the_task_runs_comes_before_its_result(function: Any) -> None:
    bench = Bench(tasks={"example": registered(function, track=True)})
    rows = put_rows(bench)
    with bench.loop:
        bench.take(bench.delivery(headers={"aw-attempt": 3}))
    assert [(row.state, row.attempt, bool(row.worker)) for row in rows] == [("running", 3, True), ("done", 3, True)]
    assert rows[0].started_at == rows[1].started_at > 0


def test_tasks_that_do_not_track_are_stored_only_once_they_end() -> None:
    for changed in ({}, {"track": True, "stores_result": False}):
        bench = Bench(tasks={"example": registered(lambda: 0, **changed)})
        rows = put_rows(bench)
        bench.take(bench.delivery())
        assert "running" not in [row.state for row in rows]


def test_a_tracked_task_runs_without_a_store() -> None:
    bench = Bench(stores=False, tasks={"example": registered(lambda: 0, track=True)})
    bench.take(bench.delivery())
    assert bench.flush() == [("ack", 1, False)]


def test_a_store_that_fails_keeps_no_task_from_running_and_does_not_count_as_down(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench(tasks={"example": registered(lambda: 0, track=True)})
    bench.store.failures = 1
    bench.take(bench.delivery())
    bench.flush()
    (event,) = bench.events
    assert isinstance(event.outcome, Done)
    assert bench.store.rows["id-1"].state == "done"
    events = " ".join(one.getMessage() for one in caplog.records)
    assert "tracking_not_stored" in events
    assert "results_not_stored" not in events
    assert bench.settler.problem is None


def test_rows_beyond_the_bound_are_dropped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    storer = ResultStorer(Store())
    row = ResultRow("a", "running", "example", b"", "", 1.0, 4e9)
    for _ in range(MOST_NOTES + 5):
        storer.note(row)
    assert len([one for one in caplog.records if "tracking_not_stored" in one.getMessage()]) == 1


def test_a_result_is_kept_as_long_as_its_task_has_it() -> None:
    bench = Bench(tasks={"example": registered(lambda: 0, track=True, result_ttl=5.0)}, result_ttl=1000)
    rows = put_rows(bench)
    bench.take(bench.delivery())
    assert [round(row.expires_at - row.stored_at, 3) for row in rows] == [5.0, 5.0]
