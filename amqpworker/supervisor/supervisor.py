"""
The parent of the worker processes: hears what happens, and does what `fleet` decides.

It imports no user code and holds no connection, so that whatever a task does, it is there to replace the process that
did it.
"""

from __future__ import annotations

import os
import random
import select
import signal
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Literal, assert_never

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.descendants import adopt_orphans
from amqpworker.ipc.kernel import missing_calls
from amqpworker.ipc.recorder import Recording
from amqpworker.ipc.report import DUMP_SIGNAL, MISCONFIGURED, Leave, Report, WriteStacks
from amqpworker.log.logger import get_logger
from amqpworker.supervisor.crash_history import Suspects
from amqpworker.supervisor.fleet import KILL_GRACE, Fleet
from amqpworker.supervisor.fleet_events import (
    Action,
    Consuming,
    Drain,
    DumpStacks,
    Ended,
    Event,
    Finish,
    Grow,
    Interrupt,
    Kill,
    Leaving,
    Misconfigured,
    NotStarted,
    Ready,
    Reload,
    Replace,
    Shrink,
    Start,
    Stop,
    StopNow,
    Tell,
    Tick,
)
from amqpworker.supervisor.health import answering
from amqpworker.supervisor.launch import SIGNALS
from amqpworker.supervisor.monitor import Monitor
from amqpworker.supervisor.notify import notifier_from
from amqpworker.supervisor.orphans import LOOK, Orphans
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.supervisor.status import condition
from amqpworker.supervisor.will import Will
from amqpworker.supervisor.worker_process import Child

__all__ = ["Supervisor"]

log = get_logger(__name__)

ANSWER_PAUSE = 0.02
# Messages that one line of the log names.
MOST_NAMED = 20


class Supervisor:
    """
    Pools of worker processes, each process a fresh interpreter.

    `health` is where it answers how it stands, beside the socket by which `amqpworker status` finds it; at most `most_starts`
    processes start at once, in `folder` if it is there, else in the current one.
    """

    def __init__(
        self,
        pools: Sequence[PoolSpec],
        clock: Callable[[], float] = time.monotonic,
        health: str | None = None,
        most_starts: int | None = None,
        folder: str | None = None,
    ) -> None:
        self._folder = folder
        self._pools = {pool.name: pool for pool in pools}
        self._clock = clock
        self.fleet = Fleet(
            {pool.name: pool.processes for pool in pools},
            lambda: random.uniform(0.8, 1.2),  # noqa: S311
            {pool.name: pool.start_timeout for pool in pools},
            most_starts,
        )
        self._children: dict[int, Child] = {}
        self._will = Will()
        self._orphans = Orphans()
        self._signals: list[int] = []
        self._events: list[Event] = []
        self._finish: Finish | None = None
        self._lookout = Monitor(self._pools, clock())
        self._suspects = Suspects()
        self._notifier, self._announcer = notifier_from(os.environ)
        self._health = health
        self._on_terminal = has_terminal()
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)

    def run(self) -> int:
        """
        Run the pools until a signal ends them; return the exit code.

        Raises:
            ConfigError: nothing could ever run, and what the first process said about it; or nothing can be opened
                where it is to answer.
            AmqpWorkerError: no process ever came so far as to consume.
        """
        for number in SIGNALS:
            signal.signal(number, self._note)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held up by `launch`
        adopt_orphans()
        for call, effect in missing_calls().items():
            log.warning("system_call_missing", call=call, effect=effect)
        with answering(self._health, lambda: self._lookout.latest), closing(self._will), closing(self._notifier):
            finish = self._run()
        if finish.problem:
            kind = ConfigError if finish.code == MISCONFIGURED else AmqpWorkerError
            raise kind(finish.problem)
        log.info("supervisor_stopped", code=finish.code)
        return finish.code

    def _run(self) -> Finish:
        while True:
            self._hear_signals()
            self._hear_children()
            self._reap()
            self._answer()
            self._look()
            self._handle(Tick())
            self._update_will()
            if self._finish is not None and not self._orphans.active:
                return self._finish
            self._wait()

    def _update_will(self) -> None:
        """See to it that no process survives us by more than it has to drain."""
        drains = {serial: one.drain_timeout or 0.0 for serial, one in self.fleet.processes.items()}
        self._will.update({child.pid: drains.get(serial, 0.0) + KILL_GRACE for serial, child in self._children.items()})

    def _wait(self) -> None:
        """Wait for a signal, a report, or the time when something is due."""
        waiting = select.poll()
        for pipe in (self._read_end, *(child.reports for child in self._children.values() if child.reports >= 0)):
            waiting.register(pipe, select.POLLIN)
        due = self.fleet.next_due(self._clock())
        until = self._lookout.due if due is None else min(due, self._lookout.due)
        # What these wait for does not tell of itself.
        if self._suspects.asked or any(child.answers.waiting for child in self._children.values()):
            until = min(until, self._clock() + ANSWER_PAUSE)
        if self._orphans.active:
            until = min(until, self._clock() + LOOK)
        # Rounded up: a wait that ends a moment too early would be followed by many.
        patience = int(max(0.0, until - self._clock()) * 1000) + 1
        if any(pipe == self._read_end for pipe, _ in waiting.poll(patience)):
            os.read(self._read_end, 4096)

    # ---- what happens -----------------------------------------------------------------------------------------------

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Only note a signal: the loop acts on it."""
        self._signals.append(number)

    def _hear_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            match number:
                case signal.SIGTERM:
                    self._handle(Stop("signal SIGTERM"))
                case signal.SIGINT:
                    self._handle(Stop("signal SIGINT") if self.fleet.stopping is None else StopNow())
                case signal.SIGHUP if self._on_terminal and not has_terminal():
                    self._handle(Stop("its terminal is gone"))
                case signal.SIGHUP:
                    self._handle(Reload())
                case signal.SIGUSR1:
                    self._lookout.hasten()
                    self._look()
                    self._dump()
                case signal.SIGTTIN:
                    self._handle(Grow())
                case signal.SIGTTOU:
                    self._handle(Shrink())

    def _hear_children(self) -> None:
        for serial, child in list(self._children.items()):
            was_strange = child.strange
            for report in child.hear():
                if report.event == "asks":
                    self._suspects.ask(serial, report.keys, self._clock())
                elif report.event == "waits":
                    child.waits = report.text
                else:
                    self._handle(event_of(serial, report.event, report))
            if child.strange and not was_strange:
                log.warning("report_unreadable", pid=child.pid, effect="what is no report is ignored")

    @property
    def _ours(self) -> set[int]:
        """The processes that we have started ourselves."""
        return {child.pid for child in self._children.values()} | self._will.pids

    def _reap(self) -> None:
        self._orphans.look(self._ours, self._clock())
        for serial, child in list(self._children.items()):
            code = child.ended()
            if code is not None:
                self._hear_children()
                recording = child.recording()
                self._handle(Ended(serial, code, ran=recording is not None and bool(recording.running)))
                self._suspects.note_death(recording)
                if recording is not None:
                    log_suspects(child.pid, recording)
                keys = () if recording is None else [one.key for one in recording.running]
                self._orphans.note_death(child.pid, keys, self._clock())
                self._lookout.note_death(serial, recording)
                child.close()
                del self._children[serial]
        self._orphans.proceed(self._ours, self._clock())
        self._reap_strangers()

    def _answer(self) -> None:
        """Tell who has asked which messages ran in a process that has died; the dead are reaped before."""
        if self._suspects.asked:
            recordings = {serial: child.recording() for serial, child in self._children.items()}
            for serial, verdict in self._suspects.verdicts(recordings, self._clock(), self._orphans.awaited):
                self._children[serial].answers.add(verdict)
        for child in self._children.values():
            child.answers.flush()

    def _reap_strangers(self) -> None:
        """Reap what others left to us: as the first process of a container we are given every orphan."""
        ours = self._ours
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in ours:
                    return  # it ended since we looked: the next round takes it
                os.waitpid(found.si_pid, 0)

    def _look(self) -> None:
        """Act on what is wrong with processes, and tell systemd how all of them stand."""
        now = self._clock()
        if now < self._lookout.due:
            return
        for event in self._lookout.look(self.fleet, self._children, now):
            self._handle(event)
        state = self._lookout.sum_up(self.fleet, now)
        self._notifier.send(self._announcer.next(now, condition(state)))

    def _dump(self) -> None:
        """Write to the log how it stands, and what each thread of each process does."""
        assert self._lookout.latest is not None
        for one in self._lookout.latest.processes:
            fields = {name: value for name, value in asdict(one).items() if name not in {"running", "counts"}}
            log.info("process_status", **fields, running=[f"{task.task} {task.key}" for task in one.running])
        for child in self._children.values():
            # Not by a signal: reading stacks in a signal handler may crash the process.
            child.answers.add(WriteStacks())

    # ---- what is done about it --------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """Do what an event leads to; what fails on the way is an event, too."""
        if isinstance(event, Consuming | Ended | Stop | Reload):
            self._lookout.hasten()
        self._events.append(event)
        while self._events:
            for action in self.fleet.on(self._events.pop(0), self._clock()):
                self._act(action)

    def _act(self, action: Action) -> None:
        match action:
            case Start(serial, pool):
                try:
                    self._children[serial] = Child(self._pools[pool], self._folder)
                except OSError as error:
                    self._events.append(NotStarted(serial, str(error)))
            case Drain(serial) | Replace(serial) | Interrupt(serial) | DumpStacks(serial) | Kill(serial) if (
                serial not in self._children
            ):
                pass  # it could not be started, and the fleet is yet to hear of it
            case Drain(serial):
                self._children[serial].signal(signal.SIGTERM)
            case Replace(serial):
                self._children[serial].answers.add(Leave())
            case Interrupt(serial):
                self._children[serial].signal(signal.SIGINT)
            case DumpStacks(serial):
                self._children[serial].signal(DUMP_SIGNAL)
            case Kill(serial):
                self._children[serial].kill()
            case Tell(level, event, serial, fields):
                child = self._children.get(serial) if serial is not None else None
                getattr(log, level)(event, **fields, **({} if child is None else {"pid": child.pid}))
                if level == "error":
                    self._lookout.past.errors.append(error_line(event, fields, time.time()))
            case Finish():
                self._finish = action
            case _:
                assert_never(action)


def event_of(serial: int, kind: Literal["ready", "consuming", "misconfigured", "leaving"], report: Report) -> Event:
    """Return what a process tells of itself as an event."""
    match kind:
        case "ready":
            return Ready(serial, report.drain_timeout)
        case "consuming":
            return Consuming(serial)
        case "misconfigured":
            return Misconfigured(serial, report.text)
        case "leaving":
            return Leaving(serial, report.text)
        case _:
            assert_never(kind)


def log_suspects(pid: int, recording: Recording) -> None:
    """Say in the log what was running in a process that has ended; nothing where it had told that nothing runs."""
    if recording.running:
        named = [f"{one.task} {one.key}" for one in recording.running[:MOST_NAMED]]
        log.warning("suspects_noted", pid=pid, messages=len(recording.running), running=named)


def error_line(event: str, fields: Mapping[str, Any], now: float) -> str:
    """Return what went wrong as a line of text, with its time."""
    values = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC {event}: {values}"


def has_terminal() -> bool:
    """Tell whether standard input is a terminal, and is still there."""
    try:
        termios.tcgetattr(0)
    except (termios.error, OSError, ValueError):
        return False
    return True
