"""
The threads that call the hooks of an app: `on_success`, `on_retry` and `on_dead`.

Decides when a hook has had its time, and what becomes of those that wait: none delays a message. `hook_calls` decides which are
called. The consumer's I/O thread only adds to a queue.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple

from amqpworker.hooks import Settled
from amqpworker.lifecycle import ThreadLimitReached, start_thread
from amqpworker.log.logger import get_logger, task_context
from amqpworker.model.outcome import Done
from amqpworker.policies.hook_functions import Hook, HookKind
from amqpworker.routing.envelope import MAX_TRACEBACK
from amqpworker.text import name_of
from amqpworker.worker.after_fork import exit_if_forked_child
from amqpworker.worker.hook_calls import HookTable, arguments_of
from amqpworker.worker.middleware import RunCoroutine
from amqpworker.worker.service import Service

if TYPE_CHECKING:
    from amqpworker.task import Task

log = get_logger(__name__)

THREADS = 4
HOOK_SECONDS = 10.0
# After the limit: by then a coroutine is cancelled.
GRACE = 0.5
# A thread cannot be ended. With this many that hooks never return from, no more are started.
MAX_ABANDONED = 16
MAX_WAITING = 10_000
MAX_WAITING_BYTES = 64 << 20
WARN_AFTER = 60.0


class Job(NamedTuple):
    """The hooks to call for one delivery, one after the other."""

    event: Settled
    hooks: tuple[Hook, ...]


class _Caller:
    """A thread that calls hooks; what it does is read and written with the lock of `HookThreads`."""

    def __init__(self, run: Callable[[_Caller], None]) -> None:
        self.thread = threading.Thread(target=run, args=(self,), name="amqpworker-hooks", daemon=True)
        self.job: Job | None = None
        self.began = 0.0
        self.is_abandoned = False


class HookThreads(Service):
    """
    Calls hooks, each at most once and for `seconds`; safe to use from many threads.

    `run_coroutine` runs what an `async def` hook returns in the process's event loop. Once `stop` was called, that loop is about
    to end, and coroutines run in loops of their own.
    """

    def __init__(
        self,
        table: HookTable,
        run_coroutine: RunCoroutine,
        seconds: float = HOOK_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._run_coroutine = run_coroutine
        self._seconds = seconds
        self._monotonic = monotonic
        self.is_used = not table.is_empty
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._callers: list[_Caller] = []
        self._abandoned = 0
        self._process = os.getpid()
        # How many jobs were added, by the I/O thread only, and how many of them have ended; and the bytes of their messages.
        self._added = self._added_bytes = 0
        self._ended = self._ended_bytes = 0
        self._dropped = 0
        self._warn_at = 0.0

    # ---- in the consumer's I/O thread -------------------------------------------------------------------------------

    def on_settled(self, events: Sequence[Settled]) -> None:
        """Have the hooks of these deliveries called soon."""
        for event in events:
            if hooks := self._table.hooks_for(event):
                if self.waiting < MAX_WAITING and self._added_bytes - self._ended_bytes < MAX_WAITING_BYTES:
                    self._added += 1
                    self._added_bytes += _size_of(event)
                    self._jobs.put(Job(event, hooks))
                else:
                    self._dropped += 1
        if self._dropped and self._monotonic() >= self._warn_at:
            log.error(
                "hooks_dropped",
                count=self._dropped,
                waiting=self.waiting,
                reason="too many deliveries wait for their hooks",
            )
            self._dropped = 0
            self._warn_at = self._monotonic() + WARN_AFTER

    # ---- in the main thread -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the threads, if there are hooks; raises ThreadLimitReached if there is no room for all of them."""
        for _ in range(THREADS if self.is_used else 0):
            self._start_caller()

    def beat(self, now: float) -> None:
        """Abandon the threads whose hooks have had their time, and have others take their place."""
        for caller in list(self._callers):
            if (job := self._abandon_if_late(caller, now)) is not None:
                log.error("hook_abandoned", **_names(job), seconds=self._seconds, effect="its thread is left behind")
        while self.is_used and len(self._callers) < THREADS and self._abandoned < MAX_ABANDONED:
            try:
                self._start_caller()
            except ThreadLimitReached:
                return

    def has_hooks(self, task: Task[Any, Any], kind: HookKind) -> bool:
        """Return whether there are hooks of one kind for the messages of a task."""
        return bool(self._table.hooks_of(task, kind))

    @property
    def waiting(self) -> int:
        """How many deliveries have hooks that were not called yet, or are being called."""
        ended = self._ended  # first: so a job that is added meanwhile is counted
        return self._added - ended

    def are_done(self) -> bool:
        """Return whether no hook waits or runs, after abandoning those that are late."""
        self.beat(self._monotonic())
        return not self.waiting or not self._callers

    def stop(self, grace: float) -> None:  # noqa: ARG002 - they have had their time
        """Use the event loop of the process no longer."""
        self._run_coroutine = _run_in_own_loop

    def end(self) -> None:
        """End the threads; hooks that wait are not called."""
        if self.is_used and (waiting := self.waiting):
            log.warning("hooks_abandoned", waiting=waiting, effect="they are not called")
        with suppress(Empty):
            while True:
                self._jobs.get_nowait()
        for _ in self._callers:
            self._jobs.put(None)

    def call_waiting(self) -> None:
        """Call the hooks that wait, in this thread: for a process without their threads."""
        with suppress(Empty):
            while (job := self._jobs.get_nowait()) is not None:
                rest: Job | None = job
                while rest is not None:
                    self._call(rest)
                    rest = self._rest_of(rest)

    def _start_caller(self) -> None:
        caller = _Caller(self._work)
        start_thread(caller.thread)
        self._callers.append(caller)

    def _abandon_if_late(self, caller: _Caller, now: float) -> Job | None:
        """Abandon a thread if its hook is late, and return the job; what is left of it goes to another thread."""
        with self._lock:
            job = caller.job
            if job is None or now < caller.began + self._seconds + GRACE:
                return None
            caller.is_abandoned = True
            self._abandoned += 1
            self._callers.remove(caller)
            if (rest := self._rest_of(job)) is not None:
                self._jobs.put(rest)
        return job

    def _rest_of(self, job: Job) -> Job | None:
        """Return the job without the hook that was called; None if that was its last, so that it has ended."""
        if len(job.hooks) > 1:
            return job._replace(hooks=job.hooks[1:])
        self._ended += 1
        self._ended_bytes += _size_of(job.event)
        return None

    # ---- in the threads that call hooks -----------------------------------------------------------------------------

    def _work(self, caller: _Caller) -> None:
        while (job := self._jobs.get()) is not None:
            rest: Job | None = job
            while rest is not None:
                with self._lock:
                    caller.job, caller.began = rest, self._monotonic()
                self._call(rest)
                with self._lock:
                    caller.job = None
                    if caller.is_abandoned:
                        self._abandoned -= 1
                        return
                    rest = self._rest_of(rest)

    def _call(self, job: Job) -> None:
        """Call the first hook of a job; what it raises is logged."""
        until = time.monotonic() + self._seconds
        task_context.set(job.event.run)
        try:
            returned = job.hooks[0](*arguments_of(job.event))
            if inspect.isawaitable(returned):
                self._await(returned, max(0.0, until - time.monotonic()))
        except BaseException as error:
            exit_if_forked_child(self._process)
            log.error("hook_failed", **_names(job), exc_info=error)
        exit_if_forked_child(self._process)
        task_context.set(None)

    def _await(self, returned: Awaitable[Any], timeout: float) -> None:
        try:
            error = self._run_coroutine(_error_of(returned), timeout)
        except TimeoutError:
            error = TimeoutError(f"it has not ended within {self._seconds:g} s, and was cancelled")
        if error is not None:
            raise error


def _size_of(event: Settled) -> int:
    """Return the bytes of what is kept for the hooks of a delivery, as far as that is known without looking into objects."""
    returned = getattr(event.run, "returned", None)
    letter = 0 if event.letter is None else MAX_TRACEBACK
    value = event.outcome.value if isinstance(event.outcome, Done) else None
    kept = len(returned) if isinstance(returned, str | bytes) else 0
    return len(event.delivery.body) + len(value or b"") + kept + letter


def _names(job: Job) -> dict[str, Any]:
    return {"hook": name_of(job.hooks[0]), "task": job.event.task, "id": job.event.id}


async def _error_of(returned: Awaitable[Any]) -> BaseException | None:
    """Await what a hook has returned, and return what it raises: SystemExit would end the event loop."""
    try:
        await returned
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - as above
        return error
    return None


def _run_in_own_loop(coroutine: Any, timeout: float | None) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, timeout))
