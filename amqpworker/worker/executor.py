"""
Run a delivery and decide how it ends.

`admit` decides whether it runs at all, `conclude` and `fail` what a return value or an exception means. No broker
call, no store, no acknowledgement: all of that is `settle`'s, which acts on the outcome.
"""

from __future__ import annotations

import inspect
import math
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from amqpworker.errors import InvalidArguments, InvalidResult, Reject, RetryLater, TimeLimitExceeded
from amqpworker.log.logger import get_logger
from amqpworker.log.redaction import redact_text
from amqpworker.model.headers import UnusableHeader, now_text, read_headers, time_text
from amqpworker.model.message import (
    ATTEMPT,
    ETA,
    EXPIRES,
    FIRST_RUN,
    JSON,
    RETURNED,
    Delivery,
    Properties,
    new_id,
)
from amqpworker.model.outcome import Dead, Discarded, Done, Failure, Outcome, Retry
from amqpworker.policies.retry import BROKEN, Policy, ResultRefused, RunInfo
from amqpworker.policies.time_limit import UNLIMITED, TimeLimit
from amqpworker.routing.envelope import MAX_TEXT, MAX_TRACEBACK, capped
from amqpworker.signature.signature import Call, Signature
from amqpworker.worker.context import Run
from amqpworker.worker.late_calls import LateCalls
from amqpworker.worker.limits.cancellation import await_within
from amqpworker.worker.limits.deadlines import Limits, RunAbandoned
from amqpworker.worker.unknown_tasks import advice

__all__ = ["DONE", "Registered", "TaskExecutor"]

log = get_logger(__name__)

DONE = Done()
# A clock that differs by less than this is not worth a round through the ladder (docs/guarantees.md).
EARLY = 1.0
# A call is dropped only so long after it has expired: the clocks of its caller and of its worker may be apart.
CLOCKS_APART = 5.0
# A process ends so soon after it has taken care of a task over its hard limit, which runs in it to the very end.
GONE_AFTER = 1.0
# What is one more than this can still be carried in a header.
MOST_ATTEMPTS = 1_000_000_000


class Registered(Protocol):
    """What the worker knows of a task."""

    name: str
    function: Any
    signature: Signature
    policy: Policy
    stores_result: bool
    time_limit: TimeLimit
    isolated: bool


class TaskExecutor:
    """Runs deliveries of the tasks that it knows, within `limits`; safe to use from many threads."""

    def __init__(self, tasks: Mapping[str, Registered], stores_results: bool, limits: Limits | None = None) -> None:
        self._tasks = tasks
        self._limits = Limits(lambda _: None) if limits is None else limits
        self._stores_results = stores_results
        self._late_calls = LateCalls()
        self.has_coroutines = any(map(in_event_loop, tasks.values()))

    def start(self) -> None:
        """
        Make ready for tasks that have limits here, if there are any.

        Raises:
            ThreadLimitReached: there is no room for the thread that keeps limits.
        """
        if any(task.time_limit is not UNLIMITED and not task.isolated for task in self._tasks.values()):
            self._limits.start()

    def is_coroutine(self, delivery: Delivery) -> bool:
        """Tell whether a delivery's task runs in the event loop."""
        registered = self._tasks.get(delivery.properties.type or "")
        return registered is not None and in_event_loop(registered)

    def is_isolated(self, delivery: Delivery) -> bool:
        """Tell whether a delivery's task runs in an isolated process, whoever sent it."""
        registered = self._tasks.get(delivery.properties.type or "")
        return registered is not None and registered.isolated

    def call(self, run: Run) -> Outcome:
        """
        Run a task that is no coroutine function, in this thread, and return how it ends.

        Raises:
            RunAbandoned: it was over its hard limit, and its message has been taken care of.
        """
        registered = run.registered
        try:
            call = registered.signature.decode(run.delivery.body)
        except InvalidArguments as error:
            return refused("malformed", str(error), type(error).__name__)
        try:
            if registered.time_limit is not UNLIMITED:
                value = self._call_within_limits(run, call)
            else:
                value = registered.function(*call.args, **call.kwargs)
        except RunAbandoned:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is an outcome, SystemExit too
            return self.fail(run, error)
        return self.conclude(run, value)

    def _call_within_limits(self, run: Run, call: Call) -> Any:
        registered = run.registered
        limit = registered.time_limit
        run.deadline = time.monotonic() + min(limit.soft, limit.hard)
        return self._limits.call(run, lambda: registered.function(*call.args, **call.kwargs), limit.soft, limit.hard)

    async def await_call(self, run: Run) -> Outcome:
        """
        Run a task that is a coroutine function, in this event loop, and return how it ends.

        Raises:
            RunAbandoned: as above.
        """
        try:
            call = run.registered.signature.decode(run.delivery.body)
        except InvalidArguments as error:
            return refused("malformed", str(error), type(error).__name__)
        try:
            if run.registered.time_limit is not UNLIMITED:
                value = await self._await_within_limits(run, call)
            else:
                value = await run.registered.function(*call.args, **call.kwargs)
        except RunAbandoned:
            raise
        except BaseException as error:  # noqa: BLE001 - as above; a cancelled task is one that failed
            return self.fail(run, error)
        return self.conclude(run, value)

    async def _await_within_limits(self, run: Run, call: Call) -> Any:
        limit = run.registered.time_limit
        run.deadline = time.monotonic() + min(limit.soft, limit.hard)
        watch = self._limits.begin(run, limit.soft, limit.hard)
        try:
            awaited = run.registered.function(*call.args, **call.kwargs)
            return await await_within(awaited, limit.soft, self._limits.pace.again)
        finally:
            self._limits.end(watch)

    def overrun(self, run: Run, stack: str) -> Outcome:
        """Decide what it means that a task has run for too long and is given up; `stack` shows where it is."""
        text = f"the task has run for longer than {run.registered.time_limit.longest}"
        failure = Failure(TimeLimitExceeded.__name__, text, capped(redact_text(stack), MAX_TRACEBACK))
        wait = run.registered.policy.decide(TimeLimitExceeded(text), info(run))
        return Dead("timeout", failure) if wait is None else Retry(max(wait, GONE_AFTER), failure)

    def admit(self, delivery: Delivery) -> Run | Outcome:
        """Return the run to make, or how the delivery ends without one; no code of the user's is run here."""
        properties = delivery.properties
        if delivery.problem or properties.content_encoding or properties.content_type not in {JSON, None}:
            return unreadable(delivery)
        registered = self._tasks.get(properties.type or "")
        if registered is None:
            return unknown(properties, self._tasks)
        now = time.time()
        attempt, first_run = 1, now
        headers = properties.headers
        if headers:
            try:
                known = read_headers(headers)
            except UnusableHeader as error:
                return refused("malformed", str(error))
            ended = ended_by_time(known, properties, now)
            if ended is not None:
                if isinstance(ended, Discarded):
                    self._note_dropped(properties, known[EXPIRES], now)
                return ended
            attempt, first_run = attempt_and_first_run(known, now)
        if properties.reply_to:
            self._late_calls.note_run(properties.app_id or "")
        return Run(registered, delivery, properties.message_id or new_id(), attempt, now, first_run)

    def _note_dropped(self, properties: Properties, expired: int, now: float) -> None:
        """Warn where none of a sender's calls has run for a while."""
        count = self._late_calls.note_dropped(properties.app_id or "", time.monotonic())
        if count:
            log.warning(
                "calls_expired",
                sender=properties.app_id,
                dropped=count,
                expired=time_text(expired),
                now=now_text(now),
                reason="a clock is off, or the queue is behind",
            )

    def conclude(self, run: Run, value: Any) -> Outcome:
        """Decide what a task's return value means."""
        registered = run.registered
        if value is not None and hasattr(type(value), "__await__"):
            return Dead("failed", never_awaited(registered.name, value))
        if registered.policy.asks_about_results:
            try:
                wait = registered.policy.decide_result(value, info(run))
            except ResultRefused as error:
                return Dead("failed", failure_of(error))
            if wait is not None:
                return Retry(wait, Failure("", "the retry policy asked for another result"))
        if not self.wants_result(run):
            return DONE
        try:
            return Done(registered.signature.encode_result(value))
        except InvalidResult as error:
            return Dead("failed", failure_of(error))

    def wants_result(self, run: Run) -> bool:
        """Tell whether anybody will see what the task returns."""
        if run.delivery.properties.reply_to:
            return True
        return self._stores_results and bool(run.registered.stores_result)

    def fail(self, run: Run, error: BaseException) -> Outcome:
        """Decide what an exception of a task means."""
        policy = run.registered.policy
        match error:
            case Reject():
                return Dead("rejected", failure_of(error))
            case RetryLater() if says_when(error):
                if not error.count or policy.allows(info(run), error.delay, error):
                    return Retry(error.delay, retried_for(error), counts=bool(error.count))
                return Dead("failed", none_left(error, run.attempt))
        wait = policy.decide(error, info(run))
        reason = "timeout" if isinstance(error, TimeLimitExceeded) else "failed"
        return Dead(reason, failure_of(error)) if wait is None else Retry(wait, failure_of(error))

    def defect(self, delivery: Delivery, error: BaseException) -> Dead:
        """Return how a delivery ends at an error of our own."""
        log.error("worker_defect", id=delivery.properties.message_id, queue=delivery.queue, exc_info=error)
        return Dead("failed", failure_of(error))


def in_event_loop(registered: Registered) -> bool:
    """Tell whether a task runs in the event loop of its process, beside others."""
    return registered.signature.is_async and not registered.isolated


def unreadable(delivery: Delivery) -> Dead:
    """Return why a message cannot be read, whatever its body says."""
    properties = delivery.properties
    if delivery.problem:
        return refused("malformed", delivery.problem)
    if properties.content_encoding:
        return refused("malformed", f"content_encoding is {properties.content_encoding!r}: only plain JSON")
    return refused("malformed", f"content_type is {properties.content_type!r}: only {JSON}")


def unknown(properties: Properties, known: Iterable[str]) -> Dead:
    """Return why no task of ours takes this message."""
    if not properties.type:
        return refused("malformed", "the message has no `type`: it is the name of the task to run")
    text = f"no task {properties.type!r} is registered in this worker: {advice(properties.type, known)}"
    return refused("unknown-task", text)


def refused(reason: str, text: str, error_type: str = "") -> Dead:
    """Return the end of a message whose task did not begin; the text may quote what a stranger wrote."""
    return Dead(reason, Failure(error_type, capped(redact_text(text), MAX_TEXT)))


def ended_by_time(known: Mapping[str, int], properties: Properties, now: float) -> Outcome | None:
    """Return how a message ends that comes too late, or goes on that comes too early; `known` is what its headers say."""
    expires = known.get(EXPIRES)
    if expires is not None and expires / 1000 <= now - (CLOCKS_APART if properties.reply_to else 0.0):
        if properties.reply_to:
            return Discarded("nobody waits for the answer any more")
        return Dead("expired", Failure("", f"it was to start {now - expires / 1000:.3f} s ago at the latest"))
    eta = known.get(ETA)
    if eta is None or eta / 1000 - now <= EARLY:
        return None
    # Once only: the second time it runs, so that two clocks that disagree cannot keep a message for ever.
    if RETURNED in known:
        log.warning("task_runs_early", id=properties.message_id, task=properties.type, early=round(eta / 1000 - now, 3))
        return None
    return Retry(eta / 1000 - now, Failure("", "it came before its time"), counts=False, returned=True)


def attempt_and_first_run(known: Mapping[str, int], now: float) -> tuple[int, float]:
    """Return which attempt a message is and when the first began, within bounds whatever its headers claim."""
    since = known.get(FIRST_RUN)
    return min(known.get(ATTEMPT, 1), MOST_ATTEMPTS), now if since is None else min(max(0.0, since / 1000), now)


def never_awaited(name: str, value: Any) -> Failure:
    """Return why a task did nothing that returned something to await, as a coroutine function behind a decorator does."""
    if inspect.iscoroutine(value):
        value.close()
    kind = type(value).__name__
    told = f"task {name!r} returned a {kind} that nobody awaits: its decorators hide that it is an async def function"
    return Failure("TypeError", told)


def says_when(error: Any) -> bool:
    """Tell whether a `RetryLater` can be followed: one with an `__init__` of its own may lack what ours gives it."""
    with suppress(Exception):  # not there, or a property that fails
        if isinstance(error.delay, int | float) and 0 <= float(error.delay) < math.inf and error.count in {True, False}:
            return True
    with suppress(Exception):
        error.add_note("It says not when: its __init__ must call that of RetryLater, with a delay in seconds.")
    return False


def retried_for(signal: RetryLater) -> Failure:
    """Return why a task asked to run again, with the error that led to it."""
    failure = failure_of(signal)
    if (cause := cause_of(signal)) is None:
        return failure
    found = failure_of(cause)
    return replace(failure, text=capped(f"{failure.text} ({found.error_type}: {found.text})", MAX_TEXT))


def none_left(signal: RetryLater, attempt: int) -> Failure:
    """Return the failure of a task that asked to run again and has no attempt left: the error that led to it, if there is one."""
    failure = failure_of(signal)
    why = f"no attempt is left after attempt {attempt}"
    for note in getattr(signal, "__notes__", ()):
        why = note if isinstance(note, str) and note.startswith(BROKEN) else why
    if (cause := cause_of(signal)) is None:
        return replace(failure, text=capped(f"{why} ({failure.text})", MAX_TEXT))
    found = failure_of(cause)
    text = capped(f"{found.text} ({type(signal).__name__}, and {why})", MAX_TEXT)
    return Failure(found.error_type, text, failure.traceback)


def cause_of(error: BaseException) -> BaseException | None:
    """Return the exception that another was raised from, or in whose handling it was raised."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def info(run: Run) -> RunInfo:
    """Return what the retry policy is asked about."""
    return RunInfo(run.attempt, run.first_run, time.time())


def failure_of(error: BaseException) -> Failure:
    """Return an exception as text: its type, what it says, and its traceback without our own frames, no passwords."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    # It goes where only UTF-8 can: a class can be given any name.
    name = name.encode("utf-8", "backslashreplace").decode()
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - user code, which may raise SystemExit here as well
        text = "(its text could not be made)"
    try:
        below = error.__traceback__.tb_next if error.__traceback__ else None
        shown = "".join(traceback.format_exception(kind, error, below))
    except BaseException:  # noqa: BLE001 - as above
        shown = ""
    return Failure(name, capped(redact_text(text), MAX_TEXT), capped(redact_text(shown), MAX_TRACEBACK))
