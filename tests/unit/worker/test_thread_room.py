"""A machine without room for another thread or process: one line that says so, no traceback, and another attempt."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqpworker import App
from amqpworker.broker import single_start_thread
from amqpworker.cli import worker_check as check
from amqpworker.cli.pool_file import pool_spec
from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.exit_status import FAILED
from amqpworker.lifecycle import ThreadLimitReached, start_thread
from amqpworker.supervisor.health import HealthServer
from amqpworker.testing import processes
from amqpworker.worker.event_loop import EventLoopRunner
from amqpworker.worker.executor import Pipeline, TaskExecutor
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.process import WorkerProcess
from amqpworker.worker.thread_room import room_permitting
from tests.unit.worker.settling import Bench, NoIsolation

FULL = "the limit of processes and threads is reached"


@pytest.fixture
def full() -> Iterator[None]:
    """Have no room for a thread: none gets a stack of that size."""
    before = threading.stack_size(1 << 48)
    yield
    threading.stack_size(before)


@pytest.fixture
def worker() -> WorkerProcess:
    app = App("amqp://127.0.0.1:1/")
    app.task(name="t", queue="q")(lambda: None)
    return WorkerProcess(app, WorkerOptions(app="tests:app"))


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """Return the reasons in the lines of an event."""
    lines = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    return [line["reason"] for line in lines if line["event"] == event]


@pytest.mark.usefixtures("full")
def test_a_thread_that_finds_no_room_is_an_error_of_the_system_that_names_the_limits() -> None:
    with pytest.raises(ThreadLimitReached, match=rf"no thread can be started: {FULL} \(ulimit -u, TasksMax="):
        start_thread(threading.Thread(target=lambda: None))


@pytest.mark.usefixtures("full")
def test_a_worker_process_that_finds_no_room_for_its_threads_ends_with_one_line_to_be_started_again(
    worker: WorkerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    assert room_permitting(worker.run) == FAILED
    (reason,) = logged(caplog, "thread_not_started")
    assert FULL in reason
    assert not any(one.exc_info for one in caplog.records)


def test_a_worker_process_without_a_thread_for_its_connection_ends_and_does_not_wait_for_ever(
    worker: WorkerProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(single_start_thread, "start_new_thread", refused)
        assert worker.run() == FAILED
    (reason,) = logged(caplog, "worker_broken")
    assert FULL in reason
    worker.runners.stop()


def test_a_worker_without_room_for_the_thread_that_keeps_limits_begins_nothing(full: None) -> None:
    app = App("amqp://127.0.0.1:1/")
    app.task(name="alone", queue="q", time_limit=1, isolated=True)(lambda: None)
    TaskExecutor(app.tasks, False).start()
    app.task(name="limited", queue="q", time_limit=1)(lambda: None)
    with pytest.raises(ThreadLimitReached):
        TaskExecutor(app.tasks, False).start()


def test_an_event_loop_that_found_no_room_for_its_thread_starts_once_there_is(full: None) -> None:
    coroutines = EventLoopRunner(Pipeline(TaskExecutor({}, False), Bench().settler, NoIsolation()), [], {})
    with pytest.raises(ThreadLimitReached):
        coroutines.start()
    threading.stack_size(0)
    coroutines.start()
    coroutines.stop()


@pytest.mark.usefixtures("full")
def test_a_health_address_without_a_thread_is_an_error_that_may_pass(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AmqpWorkerError, match=FULL) as caught:
        HealthServer(str(tmp_path / "health"), lambda: None)
    assert not isinstance(caught.value, ConfigError)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_cannot_be_started_by_the_command_line_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="/not/there cannot be started: No such file"):
        processes.spawn(["/not/there"], {}, tmp_path / "log")
    monkeypatch.setattr(sys, "executable", "/not/there")
    found = check.dry_run(pool_spec("main", WorkerOptions(app="shop:app")))
    assert found.problem == "Cannot start a process to import 'shop:app': No such file or directory."


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
