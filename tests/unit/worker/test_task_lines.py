"""The one line that a task leaves in the log when it ends."""

from __future__ import annotations

import logging
import time

import pytest

from amqpworker.errors import ConfigError
from amqpworker.model.outcome import Done
from amqpworker.settings import Settings
from amqpworker.worker.options import WorkerOptions
from tests.unit.worker.settling import DEAD, RETRY, Bench


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.INFO) -> list[dict[str, object]]:
    return [dict(one.msg) for one in caplog.records if isinstance(one.msg, dict) and one.levelno >= level]


@pytest.mark.parametrize("outcome", [Done(), Done(b"42")])
def test_a_successful_task_logs_one_line_if_log_tasks_is_all(caplog: pytest.LogCaptureFixture, outcome: Done) -> None:
    caplog.set_level(logging.INFO, "amqpworker")
    bench = Bench(log_tasks="all")
    delivery = bench.delivery()
    run = bench.started(delivery)
    bench.settler.settle(delivery, outcome, run)
    (line,) = lines(caplog)
    assert (line["event"], line["id"], line["outcome"]) == ("task_done", "id-1", "done")
    assert line["task"] == run.task
    assert isinstance(line["seconds"], float)


def test_a_successful_task_logs_only_at_debug_level_if_log_tasks_is_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "amqpworker")
    bench = Bench(log_tasks="failed")
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(), bench.started(delivery))
    assert lines(caplog) == []
    assert [line["event"] for line in lines(caplog, logging.DEBUG)] == ["task_done"]


@pytest.mark.parametrize("wanted", ["all", "failed"])
@pytest.mark.parametrize(
    ("outcome", "event", "word"), [(RETRY, "task_retried", "retried"), (DEAD, "task_dead", "dead")]
)
def test_a_task_that_failed_logs_one_line_whatever_log_tasks_is(
    caplog: pytest.LogCaptureFixture, wanted: str, outcome: object, event: str, word: str
) -> None:
    caplog.set_level(logging.DEBUG, "amqpworker")
    bench = Bench(log_tasks=wanted)
    delivery = bench.delivery()
    run = bench.started(delivery)
    bench.settler.settle(delivery, outcome, run)  # type: ignore[arg-type]
    (line,) = lines(caplog, logging.DEBUG)
    assert (line["event"], line["id"], line["outcome"]) == (event, "id-1", word)
    assert line["task"] == run.task
    assert isinstance(line["seconds"], float)


def test_a_clock_that_was_set_back_makes_no_negative_duration(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "amqpworker")
    bench = Bench(log_tasks="all")
    delivery = bench.delivery()
    run = bench.started(delivery)
    run.started = time.time() + 3600
    bench.settler.settle(delivery, Done(), run)
    assert lines(caplog)[0]["seconds"] == 0.0


def test_log_tasks_is_all_or_failed() -> None:
    assert Settings(log_tasks="all").log_tasks == "all"
    with pytest.raises(ConfigError, match=r"log_tasks must be 'all' or 'failed'"):
        Settings(log_tasks="none")  # type: ignore[arg-type]
    assert WorkerOptions(app="shop:app").log_tasks is None
