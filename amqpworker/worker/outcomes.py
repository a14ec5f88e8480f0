"""
Decide how a delivery ends: the only place that makes outcomes.

Before the task runs, by what it returns or raises, by the end of its process, and if settling fails. `settle` acts on them.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from amqpworker.errors import (
    ConfigError,
    InvalidArguments,
    InvalidResult,
    Reject,
    RetryLater,
    TaskCancelled,
    TimeLimitExceeded,
)
from amqpworker.log.logger import get_logger
from amqpworker.log.redaction import redact_text
from amqpworker.model.headers import CRASHES, ETA, EXPIRES, RETURNED, UNKNOWN_SINCE, count_of, time_of
from amqpworker.model.message import JSON, Delivery, Properties, plain
from amqpworker.model.outcome import (
    AlreadyDone,
    Cancelled,
    Dead,
    Deferred,
    Discarded,
    Done,
    Failure,
    Outcome,
    Postpone,
    Republish,
    Requeue,
    Retry,
    Snooze,
)
from amqpworker.policies.retry import BROKEN, ResultRefused, RunInfo
from amqpworker.policies.unknown_wait import next_wait
from amqpworker.routing.envelope import MAX_TEXT, MAX_TRACEBACK
from amqpworker.signature.signature import UnknownParameter
from amqpworker.text import name_of_class, truncated
from amqpworker.worker.context import Run
from amqpworker.worker.isolation.isolated_process import Crash
from amqpworker.worker.tracebacks import TracebackFormatter
from amqpworker.worker.unknown_tasks import advice

log = get_logger(__name__)

DONE = Done()
REQUEUE = Requeue()
REPUBLISH = Republish()
# A clock that differs by less than this is not worth a round through the delay ladder (docs/guarantees.md).
CLOCK_TOLERANCE = 1.0
# A call is discarded only this long after it has expired: the clocks of its caller and of its worker may be apart.
CLOCKS_APART = 5.0
# A process ends this soon after it has settled a task over its hard limit, which runs in it until then.
HARD_LIMIT_DELAY = 1.0
# No isolated process could be started: the message is not to blame.
NOT_ISOLATED = Postpone(5.0, "no isolated process could be started")
# No thread could be started that watches the limits of a message, of a worker whose tasks have none.
NOT_WATCHED = Snooze(5.0, Failure("", "no thread could be started that watches the time limit of the message"))
# Each wait in the delay ladder is a power of two units, which is one level; nothing but the place in the queue changes.
PAUSED = Deferred(64.0, "the task is paused")
CANCELLED = Cancelled(Failure("", "the message was cancelled before its task started"))
_CANCELLED_ERROR = f"{TaskCancelled.__module__}.{TaskCancelled.__qualname__}"
INTERRUPTED = Cancelled(Failure(_CANCELLED_ERROR, str(TaskCancelled())))
# The result store, which knows what is cancelled and what is done, cannot be read.
NOT_CHECKED = Deferred(4.0, "the result store cannot be read, so it is not known whether the message may still run")
FIRST_CRASH_DELAY = 1.0
MAX_CRASH_DELAY = 60.0
MAX_CRASHES = 1000
_TRACEBACKS = TracebackFormatter()

# ---- before the task runs -------------------------------------------------------------------------------------------


def unreadable(delivery: Delivery) -> Dead:
    """Return the outcome of a message that cannot be read, whatever its body contains."""
    properties = delivery.properties
    if delivery.problem:
        return malformed(delivery.problem)
    if properties.content_encoding:
        return malformed(f"content_encoding is {properties.content_encoding!r}: only plain JSON is accepted")
    return malformed(f"content_type is {properties.content_type!r}: only {JSON} is accepted")


def malformed(text: str, error_type: str = "") -> Dead:
    """Return the outcome of a message that cannot be understood."""
    return Dead("malformed", _failure(error_type, text))


def unknown_task(delivery: Delivery, known: Iterable[str], now: float) -> Dead | Deferred:
    """Return the outcome of a message whose task is not one of the `known` ones."""
    name = delivery.properties.type
    if not name:
        return malformed("the message has no `type`: it is the name of the task to run")
    text = f"no task {name!r} is registered in this worker: {advice(name, known)}"
    return _deferred_or_dead(delivery, Dead("unknown-task", _failure("", text)), now)


def newer_version(delivery: Delivery, version: int, known: int, now: float) -> Dead | Deferred:
    """Return the outcome of a message whose arguments have a newer version than the worker's task."""
    text = (
        f"its arguments have version {version} of task {delivery.properties.type!r}, this worker knows version {known}"
    )
    return _deferred_or_dead(delivery, Dead("unknown-task", _failure("", text)), now)


def not_decoded(delivery: Delivery, error: InvalidArguments, now: float) -> Dead | Deferred:
    """Return the outcome of a message whose arguments do not fit its task."""
    if isinstance(error, UnknownParameter):
        return _deferred_or_dead(delivery, malformed(str(error), InvalidArguments.__name__), now)
    if error.__cause__ is not None:  # an upgrade has failed
        found = failure_of(error.__cause__)
        return Dead(
            "malformed", _failure(found.error_type, f"{str(error).removesuffix('.')}: {found.text}", found.traceback)
        )
    return malformed(str(error), type(error).__name__)


def _deferred_or_dead(delivery: Delivery, dead: Dead, now: float) -> Dead | Deferred:
    """
    Return the outcome of a message from newer code than the worker's: it waits for a worker that has it, or is `dead`.

    A call is answered at once, since its caller waits.
    """
    properties = delivery.properties
    wait = None if properties.reply_to else next_wait(time_of((properties.headers or {}).get(UNKNOWN_SINCE)), now)
    return dead if wait is None else Deferred(wait.delay, dead.failure.text, wait.since)


def from_times(headers: Mapping[str, int], properties: Properties, now: float) -> Outcome | None:
    """Return the outcome of a message that is delivered too late or too early, else None; `headers` are our parsed ones."""
    expires = headers.get(EXPIRES)
    if expires is not None and expires / 1000 <= now - (CLOCKS_APART if properties.reply_to else 0.0):
        if properties.reply_to:
            return Discarded("its caller no longer waits for the reply")
        return Dead("expired", Failure("", f"it expired {now - expires / 1000:.3f} s before it could start"))
    eta = headers.get(ETA)
    if eta is None or eta / 1000 - now <= CLOCK_TOLERANCE:
        return None
    # Once only: the second time it runs, so that two clocks that disagree cannot keep a message forever.
    if RETURNED in headers:
        log.warning("task_runs_early", id=properties.message_id, task=properties.type, early=round(eta / 1000 - now, 3))
        return None
    return Postpone(eta / 1000 - now, "it was delivered before its time")


# ---- after the task has run -----------------------------------------------------------------------------------------


def from_result(run: Run, value: Any, wanted: bool, now: Callable[[], float] = time.time) -> Outcome:
    """Return the outcome of a task that returned a value; `wanted` is whether a caller or the store gets it."""
    registered = run.registered
    if value is not None and hasattr(type(value), "__await__"):
        return Dead("failed", _never_awaited(registered.name, value))
    if registered.policy.asks_about_results:
        try:
            delay = registered.policy.decide_result(value, _run_info(run, now))
        except ResultRefused as error:
            return Dead("failed", failure_of(error))
        if delay is not None:
            return unless_cancelled(run, Retry(delay, Failure("", "the retry policy asked for another result")))
    if not wanted:
        return DONE
    try:
        return Done(registered.signature.encode_result(value))
    except InvalidResult as error:
        # The task has done its work: another run would do it twice, and return the same.
        return Done(None, failure_of(error))


def within(most: int, done: Done) -> Done:
    """Return the outcome of a task that returned, whose result may have at most this many bytes."""
    if done.value is None or len(done.value) <= most:
        return done
    return Done(
        None, Failure("", f"the result has {len(done.value)} bytes: the setting max_result_bytes allows {most}")
    )


def from_exception(run: Run, error: BaseException, now: Callable[[], float] = time.time) -> Outcome:
    """Return the outcome of a task that raised an exception; if its message is cancelled, it has no other run and no letter."""
    if isinstance(error, TaskCancelled) or run.cancelled:
        # A coroutine is ended by CancelledError.
        return INTERRUPTED if isinstance(error, asyncio.CancelledError) else Cancelled(failure_of(error))
    match error:
        case Reject():
            return Dead("rejected", failure_of(error))
        case RetryLater() if _has_delay(error):
            return _from_retry_later(run, error, now)
    reason = "timeout" if isinstance(error, TimeLimitExceeded) else "failed"
    if isinstance(error, run.registered.throws):
        return Dead(reason, failure_of(error), is_expected=True)
    delay = run.registered.policy.decide(error, _run_info(run, now))
    return Dead(reason, failure_of(error)) if delay is None else Retry(delay, failure_of(error))


def _from_retry_later(run: Run, signal: RetryLater, now: Callable[[], float]) -> Outcome:
    # A subclass with its own `__init__` may not have set it.
    queue = plain(getattr(signal, "queue", None))
    if queue is not None and (unknown := _unknown_queue(run, queue)):
        return Dead("failed", replace(failure_of(signal), text=truncated(unknown, MAX_TEXT)))
    if not signal.count:
        return Snooze(signal.delay, _failure_of_retry_later(signal), queue=queue)
    if run.registered.policy.allows(_run_info(run, now), signal):
        return Retry(signal.delay, _failure_of_retry_later(signal), queue)
    return Dead("failed", _no_attempt_left(signal, run.attempt))


def _unknown_queue(run: Run, queue: Any) -> str:
    """Return why a message cannot continue in a queue; "" if the app has it."""
    try:
        run.registered.app.plan.check_known(queue)
    except (ConfigError, TypeError) as error:
        return f"RetryLater(queue={queue!r:.60}): {error}"
    return ""


def with_returned(outcome: Outcome, run: Run) -> Outcome:
    """Return the outcome of an isolated run with what the task has returned, if the hooks of its success are to get it."""
    if isinstance(outcome, Done) and outcome.value is None and hasattr(run, "returned"):
        # If JSON cannot carry it, the task has succeeded all the same: no store and no caller wants it.
        with suppress(InvalidResult):
            return Done(run.registered.signature.encode_result(run.returned))
    return outcome


def unless_cancelled(run: Run, outcome: Outcome) -> Outcome:
    """Return the outcome of a failed run, which is another if its message is cancelled: that never runs again."""
    if isinstance(outcome, Retry | Snooze | Dead) and run.cancelled:
        return Cancelled(outcome.failure)
    return outcome


def from_hard_limit(run: Run, stack: str, least: float = HARD_LIMIT_DELAY) -> Outcome:
    """
    Return the outcome of a task that exceeded its hard limit and is abandoned; `stack` shows where it is.

    If it is run again, then after `least` seconds at the earliest.
    """
    text = f"the task has run for longer than {run.time_limit.longest}"
    failure = _failure(TimeLimitExceeded.__name__, text, stack)
    error, late = TimeLimitExceeded(text), Dead("timeout", failure)
    if not isinstance(error, run.registered.throws):
        delay = run.registered.policy.decide(error, _run_info(run, time.time))
        if delay is not None:
            return unless_cancelled(run, Retry(max(delay, least), failure))
    return unless_cancelled(run, late)


def already_done(reply: bytes) -> AlreadyDone:
    """Return the outcome of a message whose task is done, by its row in the result store, which has this reply."""
    return AlreadyDone(reply)


def internal_error(delivery: Delivery, error: BaseException) -> Dead:
    """Return the outcome of a delivery if our own code failed."""
    log.error("internal_error", id=delivery.properties.message_id, queue=delivery.queue, exc_info=error)
    return Dead("failed", failure_of(error))


# ---- in an isolated process -----------------------------------------------------------------------------------------


def from_crash(delivery: Delivery, crash: Crash, max_crashes: int) -> Outcome:
    """Return the outcome of a delivery whose task crashed its isolated process: another run, or dead after the last crash."""
    before = count_of((delivery.properties.headers or {}).get(CRASHES)) or 0
    crashes = min(max(0, before), MAX_CRASHES) + 1
    held = f", after it had held up to {-(-crash.memory // (1 << 20))} MiB of memory" if crash.memory else ""
    text = f"the isolated process that ran it ended by {crash.how}{held}: crash {crashes} of {max_crashes}"
    if crash.reason:
        text = f"{text} ({crash.reason})"
    failure = _failure(crash.how, text, crash.stack)
    if crashes >= max_crashes:
        return Dead("crashed", failure, crashes)
    return Snooze(min(FIRST_CRASH_DELAY * 2.0 ** (crashes - 1), MAX_CRASH_DELAY), failure, crashes)


# ---- if an outcome cannot be settled --------------------------------------------------------------------------------


def from_settle_error(delivery: Delivery, outcome: Outcome, error: BaseException) -> Outcome:
    """Return what to settle instead of an outcome that could not be settled; `InvalidArguments` means a copy is too large."""
    if isinstance(error, InvalidArguments):
        match outcome:
            case Retry(failure=failure) | Snooze(failure=failure):
                # Its own headers fill the frame, so that there is no room for what a retry adds.
                return Dead("failed", Failure(failure.error_type, str(error)))
            case Postpone() | Deferred():
                return Dead("failed", Failure("", str(error)))
            case Republish() | Dead():
                return REQUEUE
    return internal_error(delivery, error)


# ---- failures as text -----------------------------------------------------------------------------------------------


def _never_awaited(name: str, value: Any) -> Failure:
    """Return the failure of a task that returned an awaitable, as a coroutine function may that a decorator hides."""
    if inspect.iscoroutine(value):
        value.close()
    kind = type(value).__name__
    text = (
        f"task {name!r} returned a {kind} that is never awaited: its decorators hide that it is an async def function"
    )
    return Failure("TypeError", text)


def _has_delay(error: Any) -> bool:
    """Return whether a `RetryLater` has a usable delay: a subclass with its own `__init__` may have none."""
    with suppress(Exception):  # not there, or a property that fails
        if isinstance(error.delay, int | float) and 0 <= float(error.delay) < math.inf and error.count in {True, False}:
            return True
    with suppress(Exception):
        error.add_note("It has no delay: its __init__ must call that of RetryLater, with a delay in seconds.")
    return False


def _failure_of_retry_later(signal: RetryLater) -> Failure:
    failure = failure_of(signal)
    if (cause := _cause_of(signal)) is None:
        return failure
    found = failure_of(cause)
    return replace(failure, text=truncated(f"{failure.text} ({found.error_type}: {found.text})", MAX_TEXT))


def _no_attempt_left(signal: RetryLater, attempt: int) -> Failure:
    """Return the failure of a task that asked to run again with no attempt left: the error that led to this, if any."""
    failure = failure_of(signal)
    why = f"no attempt is left after attempt {attempt}"
    for note in getattr(signal, "__notes__", ()):
        why = note if isinstance(note, str) and note.startswith(BROKEN) else why
    if (cause := _cause_of(signal)) is None:
        return replace(failure, text=truncated(f"{why} ({failure.text})", MAX_TEXT))
    found = failure_of(cause)
    text = truncated(f"{found.text} ({type(signal).__name__}, and {why})", MAX_TEXT)
    return Failure(found.error_type, text, failure.traceback)


def _cause_of(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _run_info(run: Run, now: Callable[[], float]) -> RunInfo:
    return RunInfo(run.attempt, run.first_run, now())


def failure_of(error: BaseException) -> Failure:
    """Return an exception as text: its type, its message, and its traceback without our own frames, without passwords."""
    try:
        text = str(error)
    except BaseException:  # noqa: BLE001 - user code, which may raise SystemExit here as well
        text = "(its message could not be read)"
    try:
        shown = _TRACEBACKS.format(error)
    except BaseException:  # noqa: BLE001 - as above
        shown = ""
    return _failure(name_of_class(type(error)), text, shown)


def _failure(error_type: str, text: str, trace: str = "") -> Failure:
    """Return a failure whose texts, which may quote anything, have bounds and no passwords."""
    return Failure(error_type, truncated(redact_text(text), MAX_TEXT), truncated(redact_text(trace), MAX_TRACEBACK))
