"""What a pool writes: log lines whatever the app does to logging, and what tasks print."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.cli import environment, started
from tests.pools import SHOP, Pool, pool
from tests.support import Broker, wait_until

SILENCING = """
import logging.config
from contextlib import contextmanager

def configure_logging():
    logging.config.dictConfig({"version": 1, "handlers": {}, "loggers": {"shop": {"level": "INFO"}}})

@contextmanager
def lifespan():
    configure_logging()
    yield

@app.task(name="shop.fails", queue="work", retry=None)
def fails() -> None:
    raise ValueError("no such user")

@app.task(name="shop.configures", queue="work", retry=None)
def configures() -> None:
    configure_logging()

configure_logging()
app.lifespan = lifespan
"""

PRINTING = """
@app.task(name="shop.prints", queue="work", retry=None)
def prints(mark: str) -> None:
    print("printed", mark)
    print("complained", mark, file=sys.stderr)
    sys.stdout.write("written " + mark + "\\n")
    sys.stdout.buffer.write(b"bytes\\n")
    note(f"printed {mark}")

@app.task(name="shop.prints_alone", queue="work", retry=None, isolated=True)
def prints_alone(mark: str) -> None:
    prints.function(mark)
"""


def test_an_app_that_configures_logging_silences_no_line_of_its_worker(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", "--log-tasks", "all", broker=vhost, more=SILENCING) as workers:
        workers.wait_for("queue_consuming")
        workers.send("fails")
        (dead,) = workers.wait_for("task_dead")
        assert dead["error_text"] == "no such user"
        workers.send("configures")
        (done,) = workers.wait_for("task_done")
        assert (done["task"], done["outcome"], done["queue"]) == ("shop.configures", "done", "work")
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0
        assert workers.events("worker_stopped")


def test_a_print_of_a_task_is_visible_while_its_process_runs(
    tmp_path: Path, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with pool(tmp_path, vhost.url, "-p", "1", "-t", "1", broker=vhost, more=PRINTING) as workers:
        workers.wait_for("process_started")
        for task in ("prints", "prints_alone"):
            workers.send(task, mark=task)
            wait_until(lambda task=task: f"printed {task}\n" in workers.log, what="the print")  # type: ignore[misc]
            wait_until(lambda task=task: f"written {task}\nbytes\n" in workers.log, what="the write")  # type: ignore[misc]
        workers.signal(signal.SIGTERM)
        assert workers.end() == 0


def test_a_print_whose_reader_is_gone_fails_no_task(
    tmp_path: Path, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "shop.py").write_text(SHOP.format(url=vhost.url, drain=20.0) + PRINTING)
    reading, writing = os.pipe()
    command = ("worker", "shop:app", "-p", "1", "-t", "1")
    with started(tmp_path, environment(), *command, stdout=writing, stderr=writing) as process:
        os.close(writing)
        workers = Pool(process, tmp_path, vhost)
        with open(reading, errors="replace") as reader:
            wait_until(lambda: "process_started" in reader.readline(), what="the start")
        for task in ("prints", "prints_alone"):
            workers.send(task, mark=task)
            wait_until(lambda task=task: f"printed {task}" in workers.ledger(), what="the end of the task")  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert not vhost.count("work.dead")
