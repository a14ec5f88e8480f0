"""
The parent of the worker processes: passes signals, reports and ends of processes to `fleet`, and performs what that decides.

It imports no user code and has no connection to the broker, so that whatever a task does, the supervisor can replace the
process that ran it.
"""

from __future__ import annotations

import os
import random
import select
import signal
import termios
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from types import FrameType
from typing import Any, assert_never

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.descendants import adopt_orphans
from amqpworker.ipc.exit_status import MISCONFIGURED
from amqpworker.ipc.kernel import missing_calls
from amqpworker.ipc.pipes import BareCommand, Report
from amqpworker.ipc.stray_signals import DUMP_SIGNAL
from amqpworker.log.logger import get_logger
from amqpworker.supervisor import actions
from amqpworker.supervisor.actions import Action
from amqpworker.supervisor.crash_history import CrashHistory
from amqpworker.supervisor.fleet import KILL_GRACE, Fleet
from amqpworker.supervisor.health import serve_status
from amqpworker.supervisor.launch import SIGNALS
from amqpworker.supervisor.monitor import Monitor
from amqpworker.supervisor.notify import notifier_from
from amqpworker.supervisor.orphan_guard import OrphanGuard
from amqpworker.supervisor.orphans import ORPHAN_CHECK_INTERVAL, Orphans
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.supervisor.worker_handle import WorkerHandle

log = get_logger(__name__)

ANSWER_INTERVAL = 0.02
# Messages in one log line.
MAX_NAMED = 20


class Supervisor:
    """
    Pools of worker processes, each process a new interpreter.

    `health` is the address at which it serves its status, beside the socket for `amqpworker status`. At most `max_starts`
    processes start at once, in `folder` if that exists, else in the current folder.
    """

    def __init__(
        self,
        pools: Sequence[PoolSpec],
        health: str | None = None,
        max_starts: int | None = None,
        folder: str | None = None,
    ) -> None:
        self._folder = folder
        self._pools = {pool.name: pool for pool in pools}
        self.fleet = Fleet(
            {pool.name: pool.processes for pool in pools},
            lambda: random.uniform(0.8, 1.2),  # noqa: S311
            {pool.name: pool.start_timeout for pool in pools},
            max_starts,
            {pool.name for pool in pools if pool.kind == "scheduler"},
        )
        self._workers: dict[int, WorkerHandle] = {}
        self._guard = OrphanGuard()
        self._orphans = Orphans()
        self._signals: list[int] = []
        self._finish: actions.Finish | None = None
        self._monitor = Monitor(self._pools, time.monotonic())
        self._crash_history = CrashHistory()
        self._notifier, self._announcer = notifier_from(os.environ)
        self._health = health
        self._on_terminal = _has_terminal()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)

    def run(self) -> int:
        """
        Run the pools until a signal ends them; return the exit code.

        Raises AmqpWorkerError if no process has ever consumed, ConfigError if none ever can or `health` cannot be used.
        """
        for number in SIGNALS:
            signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # blocked by `launch`
        adopt_orphans()
        for call, effect in missing_calls().items():
            log.warning("system_call_missing", call=call, effect=effect)
        with serve_status(self._health, lambda: self._monitor.latest), closing(self._guard), closing(self._notifier):
            finish = self._run()
        if finish.reason:
            kind = ConfigError if finish.code == MISCONFIGURED else AmqpWorkerError
            raise kind(finish.reason)
        log.info("supervisor_stopped", code=finish.code)
        return finish.code

    def _run(self) -> actions.Finish:
        while True:
            self._handle_signals()
            self._read_reports()
            self._reap()
            self._answer_queries()
            self._check()
            self._perform(self.fleet.tick(time.monotonic()))
            self._update_guard()
            if self._finish is not None and not self._orphans.active:
                return self._finish
            self._wait()

    def _update_guard(self) -> None:
        """Limit how long each process may survive this one: its drain timeout, and a grace period."""
        drains = {serial: process.drain_timeout or 0.0 for serial, process in self.fleet.processes.items()}
        self._guard.update(
            {worker.pid: drains.get(serial, 0.0) + KILL_GRACE for serial, worker in self._workers.items()}
        )

    def _wait(self) -> None:
        """Wait for a signal or a report, or until something is due."""
        poll = select.poll()
        for pipe in (
            self._read_end,
            *(worker.reports for worker in self._workers.values() if not worker.reports_ended),
        ):
            poll.register(pipe, select.POLLIN)
        due = self.fleet.next_due(time.monotonic())
        until = self._monitor.due if due is None else min(due, self._monitor.due)
        # These conditions do not wake the poll.
        if self._crash_history.has_queries or any(worker.commands.pending for worker in self._workers.values()):
            until = min(until, time.monotonic() + ANSWER_INTERVAL)
        if self._orphans.active:
            until = min(until, time.monotonic() + ORPHAN_CHECK_INTERVAL)
        # Rounded up: if it ended a moment too early, many short waits would follow.
        timeout = int(max(0.0, until - time.monotonic()) * 1000) + 1
        if any(pipe == self._read_end for pipe, _ in poll.poll(timeout)):
            os.read(self._read_end, 4096)

    # ---- what happens -----------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _handle_signals(self) -> None:
        while self._signals:
            number, now = self._signals.pop(0), time.monotonic()
            match number:
                case signal.SIGINT if self.fleet.stopping is not None:
                    self._perform(self.fleet.stop_now(now))
                case signal.SIGTERM | signal.SIGINT:
                    self._stop(f"signal {signal.Signals(number).name}", now)
                case signal.SIGHUP if self._on_terminal and not _has_terminal():
                    self._stop("terminal closed", now)
                case signal.SIGHUP:
                    self._monitor.check_soon()
                    self._perform(self.fleet.reload(now))
                case signal.SIGUSR1:
                    self._monitor.check_soon()
                    self._check()
                    self._log_status()
                case signal.SIGTTIN:
                    self._perform(self.fleet.grow(now))
                case signal.SIGTTOU:
                    self._perform(self.fleet.shrink(now))

    def _stop(self, reason: str, now: float) -> None:
        self._monitor.check_soon()
        self._perform(self.fleet.stop(reason, now))

    def _read_reports(self) -> None:
        for serial, worker in list(self._workers.items()):
            was_garbled = worker.garbled
            for report in worker.read_reports():
                self._on_report(serial, report)
            if worker.garbled and not was_garbled:
                log.warning("report_unreadable", pid=worker.pid, effect="it is ignored")

    def _on_report(self, serial: int, report: Report) -> None:
        now = time.monotonic()
        match report.event:
            case "suspect_query":
                self._crash_history.add_queries(serial, report.keys, now)
            case "waiting":
                self._workers[serial].waits = report.reason
            case "paused":
                self._workers[serial].paused = report.keys
                self._monitor.check_soon()
            case "unknown_tasks":
                self._workers[serial].unknown = report.waiting
            case "leading":
                self._workers[serial].leading = report
            case "ready":
                self._perform(self.fleet.on_ready(serial, report.drain_timeout, now))
            case "consuming":
                self._monitor.check_soon()
                self._perform(self.fleet.on_consuming(serial, now))
            case "misconfigured":
                self._perform(self.fleet.on_misconfigured(serial, report.reason, now))
            case "exiting":
                self._perform(self.fleet.on_exiting(serial, report.reason, now))
            case _:
                assert_never(report.event)

    @property
    def _own_pids(self) -> set[int]:
        """The processes that this supervisor has started."""
        return {worker.pid for worker in self._workers.values()} | self._guard.pids

    def _reap(self) -> None:
        self._orphans.discover(self._own_pids, time.monotonic())
        for serial, worker in list(self._workers.items()):
            code = worker.process.poll()
            if code is not None:
                self._read_reports()
                recording = worker.recording()
                running = () if recording is None else recording.running
                self._monitor.check_soon()
                self._perform(self.fleet.on_ended(serial, code, time.monotonic(), ran=bool(running)))
                self._crash_history.record_death(recording)
                if running:
                    named = [f"{run.task} {run.key}" for run in running[:MAX_NAMED]]
                    log.warning("suspects_noted", pid=worker.pid, messages=len(running), running=named)
                self._orphans.terminate_children_of(worker.pid, [run.key for run in running], time.monotonic())
                self._monitor.record_death(serial, recording)
                worker.close()
                del self._workers[serial]
        self._orphans.proceed(self._own_pids, time.monotonic())
        self._reap_orphans()

    def _answer_queries(self) -> None:
        """Answer which messages ran in a process that has died; dead processes must have been reaped before."""
        if self._crash_history.has_queries:
            recordings = {serial: worker.recording() for serial, worker in self._workers.items()}
            for serial, answer in self._crash_history.answers(recordings, time.monotonic(), self._orphans.blocked):
                self._workers[serial].commands.add(answer)
        for worker in self._workers.values():
            worker.commands.flush()

    def _reap_orphans(self) -> None:
        """Reap adopted processes: as process 1 of a container, the supervisor adopts every orphan."""
        own_pids = self._own_pids
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in own_pids:
                    return  # it has just ended: the next round reaps it
                os.waitpid(found.si_pid, 0)

    def _check(self) -> None:
        """Check the processes if that is due, and notify systemd of the status."""
        now = time.monotonic()
        if now < self._monitor.due:
            return
        self._perform(self._monitor.check(self.fleet, self._workers, now))
        state = self._monitor.update_status(self.fleet, now)
        self._notifier.send(self._announcer.next(now, state))

    def _log_status(self) -> None:
        """Log the status of each process, and have each log the stacks of its threads."""
        assert self._monitor.latest is not None
        for process in self._monitor.latest.processes:
            view = asdict(process)
            hidden = {"running", "counts", *(() if process.scheduler else ("scheduler",))}
            fields = {name: value for name, value in view.items() if name not in hidden}
            log.info("process_status", **fields, running=[f"{run.task} {run.key}" for run in process.running])
        for worker in self._workers.values():
            # Not by a signal: reading stacks in a signal handler may crash the process.
            worker.commands.add(BareCommand.WRITE_STACKS)

    # ---- actions ----------------------------------------------------------------------------------------------------

    def _perform(self, first: Iterable[Action]) -> None:
        """Perform actions, and what follows if a process cannot be started."""
        waiting = deque(first)
        while waiting:
            match waiting.popleft():
                case actions.Start(serial, pool):
                    try:
                        self._workers[serial] = WorkerHandle(self._pools[pool], self._folder)
                    except OSError as error:
                        waiting += self.fleet.on_not_started(serial, str(error), time.monotonic())
                case actions.Log() as line:
                    self._write(line)
                case actions.Finish() as finish:
                    self._finish = finish
                case action:
                    if (worker := self._workers.get(action.serial)) is not None:  # else it could not be started
                        _perform_on(worker, action)

    def _write(self, line: actions.Log) -> None:
        worker = self._workers.get(line.serial) if line.serial is not None else None
        getattr(log, line.level)(line.event, **line.fields, **({} if worker is None else {"pid": worker.pid}))
        if line.level == "error":
            self._monitor.history.errors.append(_error_line(line.event, line.fields, time.time()))


def _perform_on(worker: WorkerHandle, action: actions.ProcessAction) -> None:
    match action:
        case actions.Drain():
            worker.process.send_signal(signal.SIGTERM)
        case actions.Interrupt():
            worker.process.send_signal(signal.SIGINT)
        case actions.EndOverdue():
            worker.commands.add(BareCommand.END_OVERDUE)
        case actions.DumpStacks():
            worker.process.send_signal(DUMP_SIGNAL)
        case actions.Kill():
            worker.kill()
        case _:
            assert_never(action)


def _error_line(event: str, fields: Mapping[str, Any], now: float) -> str:
    values = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC {event}: {values}"


def _has_terminal() -> bool:
    """Return whether standard input is a terminal that still exists."""
    try:
        termios.tcgetattr(0)
    except (termios.error, OSError, ValueError):
        return False
    return True
