"""
Admit a delivery, and run its task.

Decides whether a message may run, by its headers, the gates and what the worker knows of its task. `outcomes` decides what
becomes of it, `pipeline` what precedes and follows that: the claim, and settling.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from amqpworker.errors import InvalidArguments, TaskCancelled
from amqpworker.lifecycle import ThreadLimitReached
from amqpworker.log.logger import get_logger, task_context
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.model.headers import (
    ATTEMPT,
    EXPIRES,
    FIRST_RUN,
    HARD_LIMIT,
    TIME_LIMIT,
    VERSION,
    UnusableHeader,
    now_text,
    read_headers,
    time_text,
    version_of,
)
from amqpworker.model.message import JSON, Delivery, Properties, new_id
from amqpworker.model.outcome import Discarded, Outcome
from amqpworker.policies.time_limit import UNLIMITED, TimeLimit, limit_of_message
from amqpworker.signature.signature import Call
from amqpworker.signature.versions import upgraded
from amqpworker.worker import outcomes
from amqpworker.worker.after_fork import exit_if_forked_child
from amqpworker.worker.context import Run
from amqpworker.worker.late_calls import LateCalls
from amqpworker.worker.limits.cancellation import await_within
from amqpworker.worker.limits.interruption import is_inside
from amqpworker.worker.limits.limits import CancelledRun, Limits, RunAbandoned
from amqpworker.worker.middleware import MiddlewareStack

if TYPE_CHECKING:
    from amqpworker.task import Task

log = get_logger(__name__)

# The number of the attempt after this one still fits into a header.
MAX_ATTEMPTS = 1_000_000_000

Gate: TypeAlias = Callable[[Delivery, Mapping[str, int]], Outcome | None]
"""Returns the outcome of a message that must not run now, else None; it gets our parsed headers."""


class TaskExecutor:
    """Runs tasks of deliveries, within `limits`; safe to use from many threads."""

    def __init__(
        self,
        tasks: Mapping[str, Task[Any, Any]],
        stores_results: bool,
        limits: Limits | None = None,
        middleware: MiddlewareStack | None = None,
        gates: Sequence[Gate] = (),
        clock: Clock = CLOCK,
    ) -> None:
        self._tasks = tasks
        self._gates = tuple(gates)
        self._limits = Limits() if limits is None else limits
        self._middleware = middleware
        self._stores_results = stores_results
        self._now, self._monotonic = clock
        self._late_calls = LateCalls()
        self._process = os.getpid()
        self.on_progress: Callable[[Run, bytes], None] | None = None
        """Is called with what tasks report of their progress; None if no store has it."""
        self.has_coroutines = any(map(is_coroutine, tasks.values()))
        self._keeps_returned = any(task.hooks.on_success or task.app.hooks.on_success for task in tasks.values())

    def start(self) -> None:
        """Start the thread that watches time limits, if a task has any here; raises ThreadLimitReached without room for it."""
        if any(task.time_limit is not UNLIMITED and not task.isolated for task in self._tasks.values()):
            self._limits.start()

    def is_coroutine(self, delivery: Delivery) -> bool:
        """Return whether a delivery's task runs in the event loop."""
        registered = self._tasks.get(delivery.properties.type or "")
        return registered is not None and is_coroutine(registered)

    def is_isolated(self, delivery: Delivery) -> bool:
        """Return whether a delivery's task always runs in an isolated process."""
        registered = self._tasks.get(delivery.properties.type or "")
        return registered is not None and registered.isolated

    # ---- admit ------------------------------------------------------------------------------------------------------

    def admit(self, delivery: Delivery) -> Run | Outcome:
        """Return the run of a delivery, or its outcome if it must not run; no user code runs here."""
        properties = delivery.properties
        kind = properties.content_type
        if delivery.problem or properties.content_encoding or (kind != JSON and kind is not None):
            return outcomes.unreadable(delivery)
        now = self._now()
        attempt, first_run = 1, now
        headers = properties.headers
        known: Mapping[str, int] = {}
        if headers:
            try:
                known = read_headers(headers)
            except UnusableHeader as error:
                return outcomes.malformed(str(error))
            outcome = outcomes.from_times(known, properties, now)
            if outcome is not None:
                if isinstance(outcome, Discarded):
                    self._log_discarded_call(properties, known[EXPIRES], now)
                return outcome
            attempt, first_run = attempt_and_first_run(known, now)
        for gate in self._gates:
            if (outcome := gate(delivery, known)) is not None:
                return outcome
        registered = self._tasks.get(properties.type or "")
        if registered is None:
            return outcomes.unknown_task(delivery, self._tasks, now)
        if VERSION in known and known[VERSION] > registered.version:
            return outcomes.newer_version(delivery, known[VERSION], registered.version, now)
        if properties.reply_to:
            self._late_calls.on_run(properties.app_id or "")
        task_id = properties.message_id or new_id()
        asks, reports = self._limits.is_cancelled, self.on_progress
        run = Run(registered, delivery, task_id, attempt, now, first_run, asks, None, reports)
        if TIME_LIMIT in known or HARD_LIMIT in known:
            run.message_limit = message_limit(registered.time_limit, known)
        return run

    def _log_discarded_call(self, properties: Properties, expired: int, now: float) -> None:
        count = self._late_calls.on_discarded(properties.app_id or "", self._monotonic())
        if count:
            log.warning(
                "calls_expired",
                sender=properties.app_id,
                discarded=count,
                expired=time_text(expired),
                now=now_text(now),
                reason="a clock is wrong, or the queue is behind",
            )

    # ---- run --------------------------------------------------------------------------------------------------------

    def call(self, run: Run) -> Outcome:
        """
        Run a task whose function is not a coroutine function, in this thread, and return its outcome.

        Raises RunAbandoned if it exceeded its hard limit, and its message has been settled.
        """
        try:
            call = run.registered.signature.decode(
                run.delivery.body if run.registered.upgrade is None else _upgraded(run)
            )
        except InvalidArguments as error:
            return outcomes.not_decoded(run.delivery, error, self._now())
        if run.message_limit is not None and not self._can_watch():
            return outcomes.NOT_WATCHED
        value, failure = None, None
        try:
            try:
                if run.registered.time_limit is UNLIMITED and run.message_limit is None:
                    value = self._invoke(run, call)
                else:
                    value = self._call_within_limits(run, call)
            except RunAbandoned:
                raise
            except BaseException as error:  # noqa: BLE001 - whatever a task raises is an outcome, SystemExit too
                failure = error
            if self._limits.interruptions:
                self._limits.end_interruptions()
        except TaskCancelled as late:  # at the very end; the next one is due in a few seconds at the earliest
            failure = late
            self._limits.end_interruptions()
        if failure is None:
            if self._keeps_returned:
                run.returned = value
            return outcomes.from_result(run, value, self._wants_result(run), self._now)
        try:
            return outcomes.from_exception(run, failure, self._now)
        finally:
            failure = None  # its traceback refers to this frame

    def interrupt(self, delivery: Delivery, thread: int, is_over: Callable[[], bool]) -> None:
        """Raise TaskCancelled in the run of a delivery in a thread, from another one; `is_over` returns whether it is settled."""
        self._limits.interrupt(CancelledRun(delivery, thread, is_over, partial(is_inside, thread, INVOKE)))

    async def call_async(self, run: Run) -> Outcome:
        """As `call`, for a coroutine function, in this event loop."""
        try:
            call = run.registered.signature.decode(
                run.delivery.body if run.registered.upgrade is None else _upgraded(run)
            )
        except InvalidArguments as error:
            return outcomes.not_decoded(run.delivery, error, self._now())
        if run.message_limit is not None and not self._can_watch():
            return outcomes.NOT_WATCHED
        try:
            if run.registered.time_limit is UNLIMITED and run.message_limit is None:
                value = await self._invoke_async(run, call)
            else:
                value = await self._await_within_limits(run, call)
        except RunAbandoned:
            raise
        except BaseException as error:  # noqa: BLE001 - as above; a cancelled task is one that failed
            return outcomes.from_exception(run, error, self._now)
        if self._keeps_returned:
            run.returned = value
        return outcomes.from_result(run, value, self._wants_result(run), self._now)

    def _can_watch(self) -> bool:
        """Start the thread that watches time limits, unless it runs; return false if there is no room for it."""
        try:
            self._limits.start()
        except ThreadLimitReached:
            return False
        return True

    def _call_within_limits(self, run: Run, call: Call) -> Any:
        limit = run.time_limit
        run.deadline = time.monotonic() + min(limit.soft, limit.hard)
        return self._limits.call(run, partial(self._invoke, run, call), limit.soft, limit.hard)

    async def _await_within_limits(self, run: Run, call: Call) -> Any:
        limit = run.time_limit
        run.deadline = time.monotonic() + min(limit.soft, limit.hard)
        deadline = self._limits.watch(run, limit.soft, limit.hard)
        try:
            return await await_within(self._invoke_async(run, call), limit.soft, self._limits.pace.repeat_after)
        finally:
            self._limits.unwatch(deadline)

    def _invoke(self, run: Run, call: Call) -> Any:
        """Call the function, inside the middleware: the only place that does so in a thread."""
        if self._middleware is not None:
            return self._middleware.call(run, partial(run.registered.function, *call.args, **call.kwargs))
        return run.registered.function(*call.args, **call.kwargs)

    def _invoke_async(self, run: Run, call: Call) -> Awaitable[Any]:
        """Call the coroutine function, inside the middleware: the only place that does so in an event loop."""
        if self._middleware is not None:
            return self._middleware.call_async(run, partial(run.registered.function, *call.args, **call.kwargs))
        return run.registered.function(*call.args, **call.kwargs)  # type: ignore[no-any-return]

    def _wants_result(self, run: Run) -> bool:
        return bool(run.delivery.properties.reply_to) or (self._stores_results and run.registered.stores_result)

    # ---- in an isolated child ---------------------------------------------------------------------------------------

    def run(self, run: Run, run_coroutine: Callable[[Coroutine[Any, Any, Outcome]], Outcome]) -> Outcome:
        """Run a task that was admitted elsewhere, and return its outcome; `run_coroutine` runs a coroutine to its end."""
        task_context.set(run)
        try:
            outcome = run_coroutine(self.call_async(run)) if run.registered.signature.is_async else self.call(run)
            outcome = outcomes.with_returned(outcome, run)
        except BaseException as error:  # noqa: BLE001 - an error of our own must not look like a crash of the task
            outcome = outcomes.internal_error(run.delivery, error)
        exit_if_forked_child(self._process)
        task_context.set(None)
        return outcome


def attempt_and_first_run(known: Mapping[str, int], now: float) -> tuple[int, float]:
    """Return which attempt a message is and when the first one began; both are within bounds, whatever its headers claim."""
    first_run = known.get(FIRST_RUN)
    attempt = min(known.get(ATTEMPT, 1), MAX_ATTEMPTS)
    return attempt, now if first_run is None else min(max(0.0, first_run / 1000), now)


def message_limit(own: TimeLimit, known: Mapping[str, int]) -> TimeLimit | None:
    """Return the limits that the headers of a message state, None if they state none; `own` are those of its task."""
    soft, hard = known.get(TIME_LIMIT), known.get(HARD_LIMIT)
    return None if soft is None and hard is None else limit_of_message(own, soft, hard)


INVOKE = TaskExecutor._invoke.__code__  # noqa: SLF001
"""A thread in this code is inside a task."""


def _upgraded(run: Run) -> bytes:
    """Return the body of a message as its task has it now; raises InvalidArguments if the upgrade fails."""
    registered, body = run.registered, run.delivery.body
    version = version_of(run.delivery.properties.headers)
    if registered.upgrade is None or version >= registered.version:
        return body
    return upgraded(registered.name, registered.upgrade, version, body)


def is_coroutine(registered: Task[Any, Any]) -> bool:
    """Return whether a task runs in the event loop."""
    return registered.signature.is_async and not registered.isolated
