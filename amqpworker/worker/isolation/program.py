"""
The program of an isolated process: it runs one task after the other for the worker process that has started it.

Decides nothing about messages: it sends the outcome of a task, and its worker process settles it. It ends with its worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from amqpworker.app import App
from amqpworker.ipc.ending import exit_code_of, exit_now
from amqpworker.ipc.exit_status import FAILED
from amqpworker.ipc.interpreter import VERSION_MISMATCH, version_mismatch, without_version
from amqpworker.ipc.stray_signals import DUMP_SIGNAL, STRAY, ignore, ignore_stray
from amqpworker.lifecycle import ThreadLimitReached, start_thread
from amqpworker.log.format import configure, log_uncaught
from amqpworker.log.logger import get_logger
from amqpworker.model.headers import read_headers
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Outcome
from amqpworker.worker import outcomes
from amqpworker.worker.after_fork import default_signals_in_forks
from amqpworker.worker.app_loader import load_app
from amqpworker.worker.context import Run
from amqpworker.worker.executor import TaskExecutor, message_limit
from amqpworker.worker.isolation.protocol import (
    BEAT,
    CANCELLED_FLAG,
    PROGRESS,
    READY,
    SPENT,
    Request,
    frame,
    outcome_to,
    requested,
)
from amqpworker.worker.lifespan import Lifespan
from amqpworker.worker.middleware import MiddlewareStack
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.progress_reports import ProgressReports
from amqpworker.worker.signals import OwnSignals
from amqpworker.worker.stdout import print_by_line
from amqpworker.worker.task_processes import TaskProcesses

log = get_logger("amqpworker.worker.isolation.program")

BEAT_SECONDS = 1.0
PR_SET_PDEATHSIG = 1
# If memory runs out, the kernel is to end this process rather than its worker or supervisor.
OOM_SCORE = "500"


class IsolatedProgram:
    """The parts of an isolated process."""

    def __init__(
        self, app: App, connection: socket.socket, cancel_flag: int, signals: OwnSignals, children: TaskProcesses
    ) -> None:
        self._app = app
        self._cancel_flag = cancel_flag
        self._signals = signals
        self._children = children
        app.users.worker_started()
        self._connection = connection
        middleware = MiddlewareStack.of(app.middleware, self._run_coroutine)
        self._executor = TaskExecutor(app.tasks, app.results is not None, middleware=middleware)
        self._loop = asyncio.Runner()
        self._lifespan = Lifespan(None if app.lifespan is None else app.lifespan(), self._run_coroutine)
        self._reports = ProgressReports(lambda _, progress: self._send(frame(PROGRESS, progress)))
        self._sending = threading.Lock()
        self._busy = threading.Event()

    def serve(self) -> None:
        """Run each task that is requested, until the connection ends."""
        self._lifespan.enter()
        self._signals.check("the app's lifespan")
        start_thread(threading.Thread(target=self._beat, name="amqpworker-beat", daemon=True))
        self._send(frame(READY))
        requests = self._connection.makefile("rb")
        while (request := requested(requests)) is not None:
            self._busy.set()
            outcome = self._run(request)
            self._busy.clear()
            self._children.on_run_ended()
            self._signals.check(f"task {request[0].properties.type!r}")
            if self._lifespan.has_ended:
                log.error("lifespan_lost", effect="this isolated process ends")
                self._send(frame(SPENT) + outcome_to(outcome))
                break
            self._send(outcome_to(outcome))
        self._lifespan.leave()
        self._app.users.worker_stopped()
        self._app.close()

    def _run(self, request: Request) -> Outcome:
        properties = request[0].properties
        registered = self._app.tasks.get(properties.type or "")
        if registered is None:
            return outcomes.unknown_task(request[0], self._app.tasks, time.time())
        limit = message_limit(registered.time_limit, read_headers(properties.headers or {}))
        reports = None if self._app.results is None else self._reports.report
        run = Run(registered, *request, self._is_cancelled, limit, reports)
        outcome = self._executor.run(run, self._run_coroutine)
        self._reports.flush(run)
        return outcome

    def _is_cancelled(self, _: Delivery) -> bool:
        return os.pread(self._cancel_flag, 1, 0) == CANCELLED_FLAG

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        if timeout is not None:
            coroutine = asyncio.wait_for(coroutine, timeout)
        # Else the loop would use the context that it was made in, in which no task runs.
        return self._loop.run(coroutine, context=contextvars.copy_context())

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._connection.sendall(data)

    def _beat(self) -> None:
        """Send a heartbeat each second while a task runs: it shows that this interpreter does not hang."""
        pause = threading.Event()
        while self._busy.wait():
            with suppress(OSError):
                self._send(frame(BEAT))
            self._children.tidy(time.monotonic())
            pause.wait(BEAT_SECONDS)


def main(arguments: Sequence[str]) -> int:
    """Run an isolated process: the options as JSON, the descriptors of its socket, stacks and cancel flag, the worker's id."""
    if version_mismatch(arguments):
        return VERSION_MISMATCH
    arguments = without_version(arguments)
    options = WorkerOptions.model_validate_json(arguments[0])
    connection, stacks, cancel_flag, worker = map(int, arguments[1:])
    faulthandler.enable(stacks, all_threads=False)
    faulthandler.register(DUMP_SIGNAL, stacks, all_threads=True)
    _end_with(worker)
    children = TaskProcesses(tasks_here=True)
    # The worker decides when it ends. Not SIG_IGN, which programs that a task starts would inherit.
    signals = OwnSignals()
    signals.set(ignore)
    ignore_stray()
    default_signals_in_forks((signal.SIGTERM, signal.SIGINT, *STRAY))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
    os.set_inheritable(connection, False)
    os.set_inheritable(stacks, False)
    os.set_inheritable(cancel_flag, False)
    print_by_line()
    configure(options.log_level, options.log_json)
    log_uncaught()
    try:
        app = load_app(options.app)
        signals.check("the app's import")
        app.producer.owner = options.app
        IsolatedProgram(app, _patient(connection), cancel_flag, signals, children).serve()
    except ThreadLimitReached:
        raise
    except (Exception, SystemExit) as error:
        log.error("isolated_process_failed", app=options.app, exc_info=error)
        return FAILED
    return 0


def _patient(descriptor: int) -> socket.socket:
    """Return the socket; it waits without a timeout, whatever the app has passed to `socket.setdefaulttimeout`."""
    connection = socket.socket(fileno=descriptor)
    connection.settimeout(None)
    return connection


def _end_with(worker: int) -> None:
    """
    Have the kernel end this process with the thread that has started it.

    https://man7.org/linux/man-pages/man2/pr_set_pdeathsig.2const.html
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != worker:
            os._exit(FAILED)


if __name__ == "__main__":
    exit_now(exit_code_of(lambda: main(sys.argv[1:])))
