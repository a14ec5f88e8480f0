"""What tasks report of their progress: two rows a second at most, and the last report with the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from amqpworker import current
from amqpworker.errors import InvalidArguments, ResultStoreError
from amqpworker.model.progress import Progress, decode_progress, encode_progress, progress_of
from amqpworker.results.row import ResultRow
from amqpworker.worker.progress_reports import MIN_INTERVAL, ProgressReports
from tests.unit.worker.settling import EXAMPLE, Bench, registered


def reporting(times: int = 5) -> int:
    for done in range(1, times + 1):
        current().progress(done, times, f"step {done}")
    return times


async def reporting_too() -> int:
    return reporting()


def failing() -> None:
    reporting()
    raise OSError("away")


def rows_of(function: Any, **changed: Any) -> list[ResultRow]:
    """Run a task, and return each row that was put."""
    found: list[ResultRow] = []
    bench = Bench(tasks={"example": registered(function, **changed)})
    put = bench.store.put

    def noting(rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        found.extend(rows)
        return put(rows)

    bench.store.put = noting  # type: ignore[method-assign]
    with bench.loop:
        bench.take(bench.delivery())
    return found


@pytest.mark.parametrize(("function", "state"), [(reporting, "done"), (reporting_too, "done"), (failing, "failed")])
def test_the_first_report_is_stored_at_once_and_the_last_one_with_the_result(function: Any, state: str) -> None:
    rows = rows_of(function)
    assert [(row.state, decode_progress(row.progress)) for row in rows] == [
        ("running", Progress(1, 5, "step 1")),
        (state, Progress(5, 5, "step 5")),
    ]
    assert rows[0].attempt == 1
    assert rows[0].worker == rows[1].worker != ""


def test_an_isolated_task_reports_as_well() -> None:
    assert len(rows_of(reporting, isolated=True)) == 2


def test_a_report_is_ignored_without_a_store_or_if_the_task_stores_nothing() -> None:
    assert rows_of(reporting, stores_result=False) == []
    bench = Bench(stores=False, tasks={"example": registered(reporting)})
    bench.take(bench.delivery())
    assert bench.flush() == [("ack", 1, False)]


def test_at_most_two_reports_a_second_are_passed_on_and_a_flush_passes_on_the_last() -> None:
    now, passed = [100.0], list[bytes]()
    reports = ProgressReports(lambda _, progress: passed.append(progress), lambda: now[0])
    bench = Bench()
    run = bench.started(bench.delivery())
    reports.flush(run)
    for number in range(40):
        now[0] = 100.0 + number * MIN_INTERVAL / 10
        reports.report(run, b"%d" % number)
    assert passed == [b"0", b"10", b"20", b"30"]
    reports.flush(run)
    reports.flush(run)
    assert passed[4:] == [b"39"]
    assert run.registered is EXAMPLE


@pytest.mark.parametrize(
    "given", [("1", None, ""), (math.nan, None, ""), (1, math.inf, ""), (10**400, None, ""), (None, 2, ""), (1, 2, 3)]
)
def test_values_that_are_not_a_progress_are_refused(given: Any) -> None:
    with pytest.raises(InvalidArguments, match=r"progress\("):
        progress_of(*given)


def test_a_note_of_any_length_and_with_any_character_can_be_stored() -> None:
    found = decode_progress(encode_progress(progress_of(0.5, 2, "\ud800" + "x" * 5000)))
    assert found is not None
    assert (found.done, found.total, found.fraction) == (0.5, 2, 0.25)
    assert len(found.note) <= 1100
