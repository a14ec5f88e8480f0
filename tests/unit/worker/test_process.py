"""How a worker process starts and ends; if no thread can be started: one line that reports it, no traceback."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqpworker import App
from amqpworker.broker import single_start_thread
from amqpworker.cli import worker_check as check
from amqpworker.cli.pool_file import pool_spec
from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.ending import exit_code_of
from amqpworker.ipc.exit_status import FAILED, STOPPED
from amqpworker.ipc.pipes import Reporter
from amqpworker.lifecycle import ThreadLimitReached, start_thread
from amqpworker.supervisor.health import HealthServer
from amqpworker.testing import processes
from amqpworker.worker.assembly import ProcessSetup, assemble
from amqpworker.worker.event_loop import EventLoopRunner
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.main_thread import WorkerProcess
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.service import Service
from amqpworker.worker.start_queue import make_start_queue
from amqpworker.worker.task_processes import TaskProcesses
from tests.unit.worker.settling import Bench

FULL = "the limit of processes and threads is reached"


@pytest.fixture
def full() -> Iterator[None]:
    """
    Have no room for a thread: none gets a stack of that size.

    CPython 3.11 keeps a state of such a thread under the number of the one that wanted to start it: afterwards no time limit is
    raised in that one, so tests of limits come before, or run in another thread.
    """
    before = threading.stack_size(1 << 48)
    yield
    threading.stack_size(before)


@pytest.fixture
def worker() -> WorkerProcess:
    app = App("amqp://127.0.0.1:1/")
    app.task(name="t", queue="q")(lambda: None)
    return assemble(app, WorkerOptions(app="tests:app"))


def logged(caplog: pytest.LogCaptureFixture, event: str) -> list[str]:
    """Return the reasons in the lines of an event."""
    lines = [one.msg for one in caplog.records if isinstance(one.msg, dict)]
    return [line["reason"] for line in lines if line["event"] == event]


@pytest.mark.usefixtures("full")
def test_a_thread_that_cannot_be_started_raises_an_error_that_names_the_limits() -> None:
    with pytest.raises(ThreadLimitReached, match=rf"no thread can be started: {FULL} \(ulimit -u, TasksMax="):
        start_thread(threading.Thread(target=lambda: None))


@pytest.mark.usefixtures("full")
def test_a_worker_process_that_cannot_start_its_threads_fails_with_one_log_line(
    worker: WorkerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    assert exit_code_of(worker.run) == FAILED
    (reason,) = logged(caplog, "thread_not_started")
    assert FULL in reason
    assert not any(one.exc_info for one in caplog.records)


def test_a_worker_process_without_a_thread_for_its_connection_fails_and_does_not_hang(
    worker: WorkerProcess, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(single_start_thread._thread, "start_new_thread", refused)
        assert worker.run() == FAILED
    (reason,) = logged(caplog, "worker_broken")
    assert FULL in reason
    worker.runners.stop()


class Notes(Service):
    """A service that notes what is called."""

    def __init__(self, name: str, noted: list[str]) -> None:
        self.name = name
        self.noted = noted

    def start(self) -> None:
        self.noted.append(f"start {self.name}")

    def drain(self) -> None:
        self.noted.append(f"drain {self.name}")

    def stop(self, grace: float) -> None:
        self.noted.append(f"stop {self.name} within {grace:g} s")


def test_services_start_in_the_order_of_their_list_and_end_in_reverse_order(worker: WorkerProcess) -> None:
    noted: list[str] = []
    worker.services = [Notes("first", noted), *worker.services, Notes("last", noted)]
    worker.drain_timeout = 1.0
    worker.stop_requested.set()
    assert worker.run() == STOPPED
    assert noted == [
        *("start first", "start last", "drain first", "drain last"),
        *("stop last within 2 s", "stop first within 2 s"),
    ]


class NotedProcesses(TaskProcesses):
    """Processes of tasks; it notes that they are to be ended."""

    def __init__(self) -> None:
        super().__init__(ours=False)
        self.ended = 0

    def end(self, before: Callable[[], None] = lambda: None) -> None:  # noqa: ARG002
        self.ended += 1


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_second_ctrl_c_while_the_lifespan_exits_leaves_the_processes_of_tasks_to_the_supervisor(
    interrupted: bool,
) -> None:
    children = NotedProcesses()

    @contextmanager
    def lifespan() -> Iterator[None]:
        yield
        worker.stop_now = interrupted

    app = App("amqp://127.0.0.1:1/", lifespan=lifespan)
    app.task(name="t", queue="q")(lambda: None)
    reading, writing = os.pipe()
    try:
        setup = ProcessSetup(reporter=Reporter(writing), children=children)
        worker = assemble(app, WorkerOptions(app="tests:app", drain_timeout=1.0), setup)
        worker.stop_requested.set()
        assert worker.run() == STOPPED
    finally:
        os.close(reading)
        os.close(writing)
    assert children.ended == (0 if interrupted else 1)


def test_a_worker_that_cannot_start_the_thread_for_time_limits_does_not_start(full: None) -> None:
    app = App("amqp://127.0.0.1:1/")
    app.task(name="alone", queue="q", time_limit=1, isolated=True)(lambda: None)
    TaskExecutor(app.tasks, False).start()
    app.task(name="limited", queue="q", time_limit=1)(lambda: None)
    with pytest.raises(ThreadLimitReached):
        TaskExecutor(app.tasks, False).start()


def test_an_event_loop_whose_thread_could_not_be_started_can_be_started_later(full: None) -> None:
    coroutines = EventLoopRunner(Bench().pipeline, [], {}, make_start_queue(frozenset()))
    with pytest.raises(ThreadLimitReached):
        coroutines.start()
    threading.stack_size(0)
    coroutines.start()
    coroutines.stop()


@pytest.mark.usefixtures("full")
def test_a_health_server_that_cannot_start_its_thread_is_a_temporary_error(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(AmqpWorkerError, match=FULL) as caught:
        HealthServer(str(tmp_path / "health"), lambda: None)
    assert not isinstance(caught.value, ConfigError)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_process_that_the_command_line_cannot_start_is_reported_in_one_line(
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
