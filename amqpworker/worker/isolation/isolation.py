"""
Run tasks in isolated processes: those with `isolated=True`, and messages that may have crashed a process.

Decides which process runs what, how many wait for work, and when one is replaced.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Outcome
from amqpworker.model.progress import decode_progress, encode_progress
from amqpworker.worker import outcomes
from amqpworker.worker.context import Run
from amqpworker.worker.isolation.isolated_process import Arrived, Crash, IsolatedProcess, Late
from amqpworker.worker.isolation.protocol import Unreadable, outcome_from, request_to
from amqpworker.worker.limits.limits import RunAbandoned
from amqpworker.worker.service import Service

log = get_logger(__name__)

# Seconds; a process that was started ahead and has failed before it ran anything would do so again.
RETRY_AHEAD_AFTER = 60.0
IDLE_SECONDS = 60.0
# What tasks leak is freed with their process.
MAX_RUNS = 1000
OUTDATED = "another version of amqpworker is installed: restart the pool"
# How long leaving its lifespan may take.
SHUTDOWN_GRACE = 2.0
# How long it may take to end the processes that its tasks have left running.
LEFTOVERS_GRACE = 8.0


class Isolation(Service):
    """
    The isolated processes of a worker process, each started by `start`; safe to use from many threads.

    With `ahead`, an idle one is kept ready. Each has `start_timeout` seconds to become ready.
    """

    def __init__(
        self,
        start: Callable[[], IsolatedProcess],
        max_crashes: int,
        start_timeout: float,
        ahead: bool = False,
    ) -> None:
        self._start = start
        self._max_crashes = max_crashes
        self._ahead = ahead
        self._ahead_at = 0.0
        self._start_timeout = start_timeout
        self._lock = threading.Lock()
        self._idle: list[IsolatedProcess] = []
        self._busy: set[IsolatedProcess] = set()
        self._running: dict[IsolatedProcess, Delivery] = {}
        self._leaving: list[tuple[float, IsolatedProcess]] = []
        self._closed = False

    @property
    def in_use(self) -> int:
        """How many isolated processes run a task, or are about to."""
        return len(self._busy)

    def run(self, run: Run) -> Outcome:
        """Run a task in an isolated process, and return how it ends; raises RunAbandoned if the worker ends meanwhile."""
        process = self._ready_process()
        if not run.delivery.channel.is_open:
            # Starting a process may have taken seconds: its message is redelivered, and may be running elsewhere by now.
            if process is not None:
                self._release(process)
            return outcomes.REQUEUE
        if process is None:
            return outcomes.NOT_ISOLATED
        if self._begin(process, run):
            return self._run_in(process, run)
        self._release(process)
        return outcomes.CANCELLED

    def _run_in(self, process: IsolatedProcess, run: Run) -> Outcome:
        outcome: Outcome | None = None
        try:
            answer = process.run(request_to(run), run.time_limit.end, partial(_report, run))
            if isinstance(answer, Arrived) and not self._closed:
                outcome = outcome_from(answer.data)
        except Unreadable as error:
            answer = Crash(None, reason=str(error))
        finally:
            with self._lock:
                self._running.pop(process, None)
            if outcome is None or process.killed_by_cancel:  # it is being killed
                self._discard(process)
            else:
                self._release(process)
        if outcome is not None:
            return outcome
        if self._closed:
            raise RunAbandoned
        if isinstance(answer, Late):
            reason = f"its task has run for longer than {run.time_limit.longest}"
            log.warning("isolated_killed", child=process.pid, reason=reason)
            return outcomes.from_hard_limit(run, answer.stack)
        assert isinstance(answer, Crash)
        if process.killed_by_cancel:
            log.warning("isolated_killed", child=process.pid, reason="its task was cancelled with force")
            return outcomes.INTERRUPTED
        log.error(
            "isolated_crashed",
            child=process.pid,
            exit_status=answer.how,
            memory=answer.memory,
            reason=answer.reason or None,
        )
        return outcomes.unless_cancelled(run, outcomes.from_crash(run.delivery, answer, self._max_crashes))

    def _begin(self, process: IsolatedProcess, run: Run) -> bool:
        """Note which process is about to run a task; return false if it was cancelled since it was admitted."""
        with self._lock:
            if run.cancelled:
                return False
            process.show_cancelled(False)
            self._running[process] = run.delivery
            return True

    def cancel(self, delivery: Delivery, force: bool) -> bool:
        """Inform the process that runs a delivery that it is cancelled, or with `force` kill it; return whether one runs it."""
        with self._lock:
            for process, running in self._running.items():
                if running is delivery:
                    process.show_cancelled(True)
                    if force:
                        process.killed_by_cancel = True
                        process.kill()
                    return True
        return False

    # ---- which process ----------------------------------------------------------------------------------------------

    def _ready_process(self) -> IsolatedProcess | None:
        """Return an idle process, or a new one; None if none can be started."""
        while True:
            with self._lock:
                if self._closed:
                    raise RunAbandoned
                waited = bool(self._idle)
                process = self._idle.pop() if waited else self._started()
                if process is not None:
                    self._busy.add(process)
            if process is None:
                return None
            if process.alive() and process.wait_ready(self._start_timeout):
                return process
            self._discard(process)
            if self._closed:
                raise RunAbandoned
            if not waited:
                reason = OUTDATED if process.outdated else None
                log.error("isolated_not_started", child=process.pid, reason=reason, effect="its message is requeued")
                return None

    def _started(self) -> IsolatedProcess | None:
        try:
            return self._start()
        except OSError as error:
            log.error("isolated_not_started", reason=str(error), effect="its message is requeued")
            return None

    def _release(self, process: IsolatedProcess) -> None:
        process.idle_since = time.monotonic()
        with self._lock:
            self._busy.discard(process)
            if not self._closed and (process.spent or process.runs >= MAX_RUNS):
                self._dismiss(process)
                return
            if not self._closed:
                self._idle.append(process)
                return
        process.close()

    def _discard(self, process: IsolatedProcess) -> None:
        with self._lock:
            self._busy.discard(process)
        process.close()

    def beat(self, now: float) -> None:
        """Remove processes that have ended or were idle for long, and start one ahead."""
        with self._lock:
            spare = 1 if self._ahead else 0
            kept = [one for one in self._idle if one.alive()]
            over = [one for one in kept if now - one.idle_since > IDLE_SECONDS][: max(0, len(kept) - spare)]
            ended = [one for one in self._idle if one not in kept]
            for one in over:
                self._dismiss(one)
            self._idle = [one for one in kept if one not in over]
            if any(not one.runs for one in ended):
                log.error("isolated_not_started", effect="none is kept ready for a while", retry_in=RETRY_AHEAD_AFTER)
                self._ahead_at = now + RETRY_AHEAD_AFTER
            if self._ahead and now >= self._ahead_at and not (self._closed or self._idle or self._busy):
                self._start_ahead(now)
            ended += [one for until, one in self._leaving if until <= now or not one.alive()]
            self._leaving = [(until, one) for until, one in self._leaving if one not in ended]
        _close_all(ended)

    def _dismiss(self, process: IsolatedProcess) -> None:
        process.dismiss()
        self._leaving.append((time.monotonic() + SHUTDOWN_GRACE, process))

    def _start_ahead(self, now: float) -> None:
        ahead = self._started()
        if ahead is None:
            self._ahead_at = now + RETRY_AHEAD_AFTER
        else:
            self._idle.append(ahead)

    def stop(self, grace: float) -> None:
        """End all of them; tasks that still run in them are abandoned."""
        until = time.monotonic() + min(grace, SHUTDOWN_GRACE)
        with self._lock:
            self._closed = True
            for process in self._idle:
                self._dismiss(process)
            self._idle = []
            leaving, self._leaving = self._leaving, []
            busy = list(self._busy)
        for process in busy:
            process.kill()
        for _, process in leaving:
            process.exited(max(0.0, until - time.monotonic()))
        for thread in _close_all([process for _, process in leaving]):
            thread.join(grace and LEFTOVERS_GRACE)


def _report(run: Run, data: bytes) -> None:
    """Pass on what a task has reported from its process, unless it is not understood: user code has run there."""
    progress = decode_progress(data)
    if progress is not None and run.on_progress is not None:
        run.on_progress(run, encode_progress(progress))


def _close_all(processes: Iterable[IsolatedProcess]) -> list[threading.Thread]:
    """Close isolated processes; those with leftovers in separate threads, since that may take seconds."""
    threads = []
    for process in processes:
        if process.leftovers.any():
            thread = threading.Thread(target=process.close, name="amqpworker-isolated-end", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there is no room for one
                process.close()
            else:
                threads.append(thread)
        else:
            process.close()
    return threads
