"""
The parent of a pool: starts worker processes, replaces the dead, passes signals on.

Decides when a child is started again and when the pool ends. It imports no user code and holds no connection, so that
whatever a task does, it is there to replace the process that did it. The first process goes ahead: the others start once
it consumes, so that a mistake is told once, and the topology is declared once.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from amqpworker.errors import ConfigError
from amqpworker.logs import get_logger
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.report import ABANDONED, MISCONFIGURED, STOPPED, Report, heard

__all__ = ["Supervisor"]

log = get_logger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 10.0
DRAIN_TIMEOUT = 30.0
KILL_GRACE = 10.0
IMPATIENT_GRACE = 2.0
IDLE_LOOK = 5.0
# A child that writes without end must not keep us from hearing signals; a dead one's pipe holds less than this.
MOST_READS = 16


@dataclass(slots=True)
class Child:
    """
    One place in the pool, and the process in it.

    `reports` is our end of the pipe that it tells of itself by, `leash` that of the one whose end tells it that we are gone.
    """

    number: int
    process: subprocess.Popen[bytes] | None = None
    reports: int = -1
    leash: int = -1
    unread: bytes = b""
    strange: bool = False
    ready: bool = False
    consumed: bool = False
    told: str = ""
    started: float = 0.0
    start_at: float = 0.0
    pause: float = FIRST_PAUSE


class Supervisor:
    """A pool of worker processes, each a fresh interpreter."""

    def __init__(self, options: WorkerOptions, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._children = [Child(number) for number in range(1, processes + 1)]
        self._drain_timeout = DRAIN_TIMEOUT if options.drain_timeout is None else options.drain_timeout
        self._signals: list[int] = []
        self._up = False
        self._stopping: float | None = None
        self._impatient = False
        self._misconfigured = ""
        self._worst = STOPPED
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)

    def run(self) -> int:
        """
        Run the pool until a signal ends it; return the exit code.

        Raises:
            ConfigError: nothing could ever run; what the first process said about it.
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._note)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        while True:
            self._act_on_signals()
            self._hear()
            self._reap()
            alive = [child for child in self._children if child.process is not None]
            if self._stopping is not None and not alive:
                break
            if self._stopping is None:
                self._start_due()
            elif self._clock() > self._stopping:
                self._kill(alive)
            self._wait()
        if self._misconfigured:
            raise ConfigError(self._misconfigured)
        log.info("pool_stopped", code=self._worst)
        return self._worst

    def _wait(self) -> None:
        """Wait for a signal, a report, or the time when something is due."""
        waiting = select.poll()
        for pipe in (self._read_end, *(child.reports for child in self._children if child.reports >= 0)):
            waiting.register(pipe, select.POLLIN)
        if any(pipe == self._read_end for pipe, _ in waiting.poll(self._patience() * 1000)):
            os.read(self._read_end, 4096)

    def _patience(self) -> float:
        """Return the seconds until something is due without a signal."""
        due = [child.start_at for child in self._startable() if child.process is None]
        if self._stopping is not None:
            due = [self._stopping]
        return max(0.0, min([*due, self._clock() + IDLE_LOOK]) - self._clock())

    # ---- signals ----------------------------------------------------------------------------------------------------

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Only note a signal: the loop acts on it."""
        self._signals.append(number)

    def _act_on_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGCHLD:
                continue
            if self._stopping is None:
                log.info("pool_stopping", why=f"signal {name_of(number)}", timeout=self._drain_timeout)
                self._stop()
            elif number == signal.SIGINT and not self._impatient:
                log.warning("pool_ends_at_once")
                self._impatient = True
                # The children see a second signal, and abandon what runs.
                self._signal_all(signal.SIGINT)
                self._stopping = min(self._stopping, self._clock() + IMPATIENT_GRACE)

    def _stop(self) -> None:
        self._stopping = self._clock() + self._drain_timeout + KILL_GRACE
        self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: int) -> None:
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(number)

    def _kill(self, alive: list[Child]) -> None:
        for child in alive:
            assert child.process is not None
            log.error("process_killed", number=child.number, pid=child.process.pid, why="it did not stop in time")
            child.process.kill()
            child.process.wait()
            self._clear(child)
            self._worst = max(self._worst, ABANDONED)

    # ---- children ---------------------------------------------------------------------------------------------------

    def _startable(self) -> list[Child]:
        return self._children if self._up else self._children[:1]

    def _start_due(self) -> None:
        now = self._clock()
        for child in self._startable():
            if child.process is None and child.start_at <= now:
                child.started = now
                try:
                    child.process = self._spawn(child)
                except OSError as error:
                    self._clear(child)
                    again_in = self._put_off(child, now)
                    log.error("process_not_started", number=child.number, reason=str(error), again_in=again_in)

    def _spawn(self, child: Child) -> subprocess.Popen[bytes]:
        """
        Start a fresh interpreter in a process group of its own; its leash ends when we do, however we end.

        Raises:
            OSError: the machine has no room for another process or pipe, as it may have in a moment.
        """
        theirs: list[int] = []
        try:
            leashed, child.leash = os.pipe()
            theirs.append(leashed)
            child.reports, reporting = os.pipe()
            theirs.append(reporting)
            os.set_blocking(child.reports, False)
            command = [sys.executable, "-m", "amqpworker.worker.process", self._options.model_dump_json()]
            return subprocess.Popen(  # noqa: S603 - our own command
                # Not by standard input: that is the tasks', and whoever reads it must find its end.
                [*command, *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                process_group=0,
                pass_fds=theirs,
            )
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    def _hear(self) -> None:
        for child in self._children:
            for _ in range(MOST_READS):
                if child.reports < 0:
                    break
                try:
                    data = os.read(child.reports, 65536)
                except BlockingIOError:
                    break
                if not data:
                    os.close(child.reports)
                    child.reports = -1
                found = heard(child.unread + data)
                child.unread = found.rest
                if found.strange and not child.strange:
                    child.strange = True
                    log.warning("report_unreadable", number=child.number, effect="what is no report is ignored")
                for report in found.reports:
                    self._take(child, report)

    def _take(self, child: Child, report: Report) -> None:
        match report.event:
            case "ready":
                child.ready = True
                self._drain_timeout = report.drain_timeout
            case "misconfigured":
                child.told = report.text
            case "consuming":
                child.consumed = True
                if not self._up:
                    self._up = True
                    log.info("pool_started", processes=len(self._children), app=self._options.app, pid=os.getpid())
                pid = child.process.pid if child.process is not None else None
                log.info("process_started", number=child.number, pid=pid)

    def _reap(self) -> None:
        for child in self._children:
            process = child.process
            if process is None or process.poll() is None:
                continue
            self._hear()
            self._on_end(child, process.returncode)
            self._clear(child)
        self._reap_strangers()

    def _reap_strangers(self) -> None:
        """Reap what others left to us: as the first process of a container we are given every orphan."""
        ours = {child.process.pid for child in self._children if child.process is not None}
        with suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid in ours:
                    return  # it ended since we looked: the next round takes it
                os.waitpid(found.si_pid, 0)

    def _clear(self, child: Child) -> None:
        for descriptor in (child.reports, child.leash):
            if descriptor >= 0:
                os.close(descriptor)
        child.process, child.reports, child.leash, child.unread, child.told = None, -1, -1, b"", ""
        child.ready = child.consumed = child.strange = False

    def _on_end(self, child: Child, code: int) -> None:
        """Decide what the end of a process means."""
        if self._stopping is not None:
            # One that was still starting has nothing to abandon.
            killed = ABANDONED if child.ready else STOPPED
            self._worst = max(self._worst, code if code >= 0 else killed)
        elif code == MISCONFIGURED and not self._up:
            self._misconfigured = child.told or "A worker process ended with exit code 2."
            self._stop()
        else:
            self._start_again(child, code)

    def _start_again(self, child: Child, code: int) -> None:
        """Plan the next process: at once after one that did its work, else after a pause that doubles."""
        now = self._clock()
        if child.consumed and now - child.started >= STEADY_SECONDS:
            child.pause = FIRST_PAUSE
            child.start_at, again_in = now, 0.0
        else:
            again_in = self._put_off(child, now)
        told = f"signal {name_of(-code)}" if code < 0 else f"exit code {code}"
        log.error("process_died", number=child.number, how=told, reason=child.told or None, again_in=again_in)

    def _put_off(self, child: Child, now: float) -> float:
        """Plan a start after a pause that doubles from one to the next; return the seconds until it."""
        pause = child.pause
        child.start_at = now + pause
        child.pause = min(pause * 2, LONGEST_PAUSE)
        return round(pause, 1)


def name_of(number: int) -> str:
    """Return the name of a signal; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
