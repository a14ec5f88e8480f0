"""
The parent of a pool: starts worker processes, replaces the dead, passes signals on.

Decides when a child is started again and when the pool ends. It imports no user code and holds no connection, so that
whatever a task does, it is there to replace the process that did it.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from amqpworker.logs import get_logger
from amqpworker.worker.options import WorkerOptions

__all__ = ["Supervisor"]

log = get_logger(__name__)

STOPPED = 0
FAILED = 1
MISCONFIGURED = 2
ABANDONED = 3

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
STEADY_SECONDS = 10.0
KILL_GRACE = 10.0


@dataclass(slots=True)
class Child:
    """One place in the pool, and the process in it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    start_at: float = 0.0
    pause: float = FIRST_PAUSE
    codes: list[int] = field(default_factory=list)


class Supervisor:
    """A pool of worker processes, each a fresh interpreter."""

    def __init__(self, options: WorkerOptions, processes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._children = [Child(number) for number in range(1, processes + 1)]
        self._signals: list[int] = []
        self._stopping: float | None = None
        self._worst = STOPPED
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)

    def run(self) -> int:
        """Run the pool until a signal ends it; return the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, self._note)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        log.info("pool_started", processes=len(self._children), app=self._options.app, pid=os.getpid())
        while True:
            self._act_on_signals()
            self._reap()
            alive = [child for child in self._children if child.process is not None]
            if self._stopping is not None and not alive:
                break
            if self._stopping is None:
                self._start_due()
            elif self._clock() > self._stopping:
                self._kill(alive)
            select.select([self._read_end], [], [], self._patience())
            self._drain_pipe()
        log.info("pool_stopped", code=self._worst)
        return self._worst

    def _note(self, number: int, _frame: FrameType | None) -> None:
        """Only note a signal: the loop acts on it."""
        self._signals.append(number)

    def _drain_pipe(self) -> None:
        if select.select([self._read_end], [], [], 0)[0]:
            os.read(self._read_end, 4096)

    def _act_on_signals(self) -> None:
        while self._signals:
            number = self._signals.pop(0)
            if number == signal.SIGCHLD:
                continue
            if self._stopping is None:
                self._stop(f"signal {signal.Signals(number).name}")
            elif number == signal.SIGINT:
                log.warning("pool_ends_at_once")
                self._signal_all(signal.SIGINT)
                self._stopping = min(self._stopping, self._clock() + KILL_GRACE / 5)

    def _stop(self, why: str) -> None:
        log.info("pool_stopping", why=why)
        drain = self._options.drain_timeout
        self._stopping = self._clock() + (30.0 if drain is None else drain) + KILL_GRACE
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
            child.process = None
            self._worst = max(self._worst, ABANDONED)

    def _start_due(self) -> None:
        now = self._clock()
        for child in self._children:
            if child.process is None and child.start_at <= now:
                child.process = self._spawn()
                child.started = now
                log.info("process_started", number=child.number, pid=child.process.pid)

    def _spawn(self) -> subprocess.Popen[bytes]:
        """Start a fresh interpreter in a process group of its own; the pipe to it ends when we do, however we end."""
        command = [sys.executable, "-m", "amqpworker.worker.process", self._options.model_dump_json()]
        return subprocess.Popen(command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603 - our own command

    def _reap(self) -> None:
        for child in self._children:
            process = child.process
            if process is None or process.poll() is None:
                continue
            child.process = None
            if process.stdin is not None:
                process.stdin.close()
            self._on_end(child, process.returncode)

    def _on_end(self, child: Child, code: int) -> None:
        """Decide what the end of a process means."""
        if self._stopping is not None:
            self._worst = max(self._worst, code if code >= 0 else ABANDONED)
            return
        lived = self._clock() - child.started
        if code == MISCONFIGURED:
            self._worst = MISCONFIGURED
            self._stop("a worker process is misconfigured")
            return
        child.pause = FIRST_PAUSE if lived >= STEADY_SECONDS else min(child.pause * 2, LONGEST_PAUSE)
        child.start_at = self._clock() + (0.0 if lived >= STEADY_SECONDS else child.pause / 2)
        told = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        log.error("process_died", number=child.number, how=told, again_in=round(child.start_at - self._clock(), 1))

    def _patience(self) -> float:
        """Return the seconds until something is due without a signal."""
        waiting = [child.start_at for child in self._children if child.process is None]
        if self._stopping is not None:
            waiting.append(self._stopping)
        return max(0.0, min([*waiting, self._clock() + 5.0]) - self._clock())
