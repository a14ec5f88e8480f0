"""
Whether and when a task runs again, as its retry policy decides.

A policy is a `tenacity.Retrying`; short forms are converted to one. Its `retry`, `wait` and `stop` are called in tenacity's
order, with a true `RetryCallState`. The broker does the waiting, so any other option would be ignored and is refused. If
a policy is broken (one of the three raises, or returns nonsense), the task does not run again.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypeVar

import tenacity
from tenacity import Future, RetryCallState, Retrying, TryAgain

from amqpworker.errors import AmqpWorkerError, ConfigError, InvalidArguments, RetryLater
from amqpworker.policies.durations import duration
from amqpworker.routing.delay import clamp, units

PolicySpec: TypeAlias = Retrying | int | Sequence[float | timedelta] | None
"""What `retry=` accepts: a policy, a number of retries, the wait before each of them, or `None` for no retry."""

DEFAULT: Final = 3
"""The number of retries of a task without `retry=`, after about 1, 4 and 16 seconds."""

BROKEN: Final = "The retry policy is broken"
"""The beginning of the note that an error gets if its policy fails."""

_STRATEGIES = ("retry", "wait", "stop")
_IGNORED = ("sleep", "before", "after", "before_sleep", "reraise", "retry_error_cls", "retry_error_callback")
_LOOP = ("__call__", "__iter__", "begin", "iter")
# A header can have any attempt, and tenacity computes 2 ** attempt as an integer before it applies a maximum.
_MAX_ATTEMPTS = 100_000
# By exact type: a subclass may decide otherwise.
_EXCEPTIONS_ONLY = (
    tenacity.retry_if_exception,
    tenacity.retry_if_exception_type,
    tenacity.retry_if_not_exception_type,
    tenacity.retry_if_exception_cause_type,
    tenacity.retry_if_exception_message,
    type(tenacity.retry_never),
)

_COUNTING_WAITS = (
    tenacity.wait_none,
    tenacity.wait_fixed,
    tenacity.wait_random,
    tenacity.wait_incrementing,
    tenacity.wait_exponential,
    tenacity.wait_random_exponential,
    tenacity.wait_exponential_jitter,
)
# More than any chain has, but 2 ** attempt is still in the range of a float.
_MANY_ATTEMPTS = 1000
_TRIES = 16

_Value = TypeVar("_Value")


class ResultRefused(AmqpWorkerError):
    """A task returned, but its retry policy does not accept the result and has no retry left for it."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Which run has just ended; times are seconds since the epoch."""

    attempt: int
    first_run: float
    now: float


@dataclass(frozen=True, slots=True)
class Policy:
    """
    The retry policy of a task; `policy` makes it.

    `asks_about_results` is false if only exceptions can lead to a retry: `decide_result` need not be called then.
    """

    retrying: Retrying
    asks_about_results: bool

    def decide(self, error: BaseException, run: RunInfo) -> float | None:
        """
        Return the seconds to wait before the next run, or `None` to give up.

        If the policy itself is broken, `error` gets a note of it: format its traceback afterwards.
        """
        state = self._state(run, error, failed=True)
        try:
            # tenacity retries on TryAgain whatever its predicate returns.
            if not isinstance(error, TryAgain) and not self._call("retry", state, _boolean):
                return None
            return self._next_wait(state)
        except _Broken as broken:
            _note(error, str(broken))
            return None

    def decide_result(self, value: object, run: RunInfo) -> float | None:
        """
        Return the seconds to wait before the next run, or `None` if the policy accepts the result.

        Raises ResultRefused if the policy neither accepts the result nor retries, or is broken.
        """
        state = self._state(run, value, failed=False)
        try:
            if not self._call("retry", state, _boolean):
                return None
            wait = self._next_wait(state)
        except _Broken as broken:
            raise ResultRefused(str(broken)) from broken.__cause__
        if wait is None:
            raise ResultRefused(f"The retry policy asks for another result, but stops after attempt {run.attempt}.")
        return wait

    def allows(self, run: RunInfo, signal: RetryLater) -> bool:
        """
        Return whether a task that raised `RetryLater` may run again: only `stop` is called.

        A broken policy does not allow it, and the signal gets a note of it.
        """
        state = self._state(run, signal, failed=True)
        state.upcoming_sleep = signal.delay
        try:
            return not self._call("stop", state, _boolean)
        except _Broken as broken:
            _note(signal, str(broken))
            return False

    def is_last(self, run: RunInfo) -> bool:
        """
        Return whether no failure of a run would be retried: the policy has no retry left at `run.now`, or never has one.

        Only `stop` is asked, after `wait`, since the error is not known: what depends on the error is answered with false.
        """
        if type(self.retrying.retry) is type(tenacity.retry_never):
            return True
        state = self._state(run, Exception("any failure"), failed=True)
        with contextlib.suppress(_Broken):
            state.upcoming_sleep = self._call("wait", state, _seconds)
        try:
            return self._call("stop", state, _boolean)
        except _Broken:
            return False

    def _next_wait(self, state: RetryCallState) -> float | None:
        # `wait` is called once, and before `stop`: stop_before_delay uses its result.
        state.upcoming_sleep = self._call("wait", state, _seconds)
        return None if self._call("stop", state, _boolean) else state.upcoming_sleep

    def _call(self, name: str, state: RetryCallState, read: Callable[[Any], _Value]) -> _Value:
        try:
            return read(getattr(self.retrying, name)(state))
        except (Exception, SystemExit) as error:
            shown = traceback.format_exception_only(error)[0].strip()
            raise _Broken(f"{BROKEN}: its {name!r} failed with {shown}") from error

    def _state(self, run: RunInfo, value: Any, *, failed: bool) -> RetryCallState:
        state = RetryCallState(self.retrying, fn=None, args=(), kwargs={})
        state.attempt_number = min(run.attempt, _MAX_ATTEMPTS)
        # Another machine's clock may have been ahead when the task ran first.
        state.start_time = min(run.first_run, run.now)
        state.outcome_timestamp = run.now
        state.outcome = Future.construct(run.attempt, value, failed)
        if run.attempt > 1:
            # The duration of the runs is not known: all of the time counts as waiting.
            state.idle_for = run.now - state.start_time
        return state


def policy(spec: PolicySpec = DEFAULT) -> Policy:
    """Make the policy of a task from the value of `retry=`; raises ConfigError if it is not one, or would not be obeyed."""
    retrying = _retrying(spec)
    return Policy(retrying, _asks_about_results(retrying.retry))


def _retrying(spec: PolicySpec) -> Retrying:
    match spec:
        case None:
            return _retries(0, tenacity.wait_none())
        case Retrying():
            _check(spec)
            return spec if getattr(spec, "enabled", True) else _retries(0, tenacity.wait_none())
        case bool() | str() | bytes():
            pass
        case int():
            if spec < 0:
                raise ConfigError(f"retry={spec}: the number of retries must be zero or more.")
            return _retries(spec, tenacity.wait_exponential_jitter(exp_base=4.0, max=300))
        case Sequence():
            return _retries(len(spec), _waits(spec))
    raise ConfigError(f"retry={spec!r}: {_hint(spec)}")


def _retries(number: int, wait: tenacity.wait.wait_base) -> Retrying:
    return Retrying(stop=tenacity.stop_after_attempt(number + 1), wait=wait)


def _waits(spec: Sequence[float | timedelta]) -> tenacity.wait.wait_base:
    try:
        waits = [tenacity.wait_fixed(duration(wait, f"retry[{index}]")) for index, wait in enumerate(spec)]
    except InvalidArguments as error:
        raise ConfigError(str(error)) from None
    return tenacity.wait_chain(*waits) if waits else tenacity.wait_none()


def _hint(spec: object) -> str:
    if isinstance(spec, tenacity.AsyncRetrying):
        return "a policy is never awaited; use a tenacity.Retrying for async def tasks too."
    if isinstance(getattr(spec, "retry", None), tenacity.BaseRetrying):
        return "this is a decorated function; give the policy itself, a tenacity.Retrying."
    if isinstance(spec, tenacity.stop.stop_base | tenacity.wait.wait_base | tenacity.retry_base):
        return "this is a part of a policy; give tenacity.Retrying(stop=…, wait=…, retry=…)."
    return "it takes a tenacity.Retrying, a number of retries, a list of waits in seconds, or None."


def _check(spec: Retrying) -> None:
    plain = Retrying()
    for name in _IGNORED:
        if getattr(spec, name) is not getattr(plain, name):
            raise ConfigError(
                f"retry=Retrying({name}=…) would be ignored: the broker waits, not tenacity. Leave it out."
            )
    for name in _LOOP:
        if getattr(type(spec), name) is not getattr(Retrying, name):
            raise ConfigError(f"retry={type(spec).__name__}: its own {name!r} would be ignored.")
    for name in _STRATEGIES:
        _check_strategy(name, getattr(spec, name))
    if _never_stops(spec.stop) and _never_waits(spec):
        raise ConfigError("retry=Retrying(…) never stops and retries without a pause: give it a `stop` or a `wait`.")


def _check_strategy(name: str, strategy: object) -> None:
    if isinstance(strategy, type) or not callable(strategy):
        raise ConfigError(f"retry=Retrying({name}={strategy!r}): give an instance, such as those in tenacity.{name}.")
    if any(map(inspect.iscoroutinefunction, (strategy, strategy.__call__))):
        raise ConfigError(f"retry=Retrying({name}={strategy!r}) is asynchronous: a policy is never awaited.")


def _never_stops(stop: object) -> bool:
    """Return whether tenacity's own strategies never stop; a user's own may stop at any time."""
    if type(stop) is tenacity.stop_any:
        return all(map(_never_stops, stop.stops))
    if type(stop) is tenacity.stop_all:
        return any(map(_never_stops, stop.stops))
    if type(stop) is tenacity.stop_after_attempt:
        return stop.max_attempt_number == math.inf
    if type(stop) in (tenacity.stop_after_delay, tenacity.stop_before_delay):
        return stop.max_delay == math.inf  # type: ignore[attr-defined, no-any-return]
    return type(stop) is type(tenacity.stop_never)


def _never_waits(spec: Retrying) -> bool:
    """Return whether tenacity's own strategies have no pause after many attempts."""
    if not _is_tenacitys(spec.wait):
        return False
    state = RetryCallState(spec, fn=None, args=(), kwargs={})
    state.attempt_number = _MANY_ATTEMPTS
    # Some of them are random.
    return all(units(clamp(spec.wait(state))) == 0 for _ in range(_TRIES))


def _is_tenacitys(wait: object) -> bool:
    """Return whether a wait consists only of tenacity's own parts that depend on nothing but the number of attempts."""
    if type(wait) is tenacity.wait_chain:
        return all(map(_is_tenacitys, wait.strategies))
    if type(wait) is tenacity.wait_combine:
        return all(map(_is_tenacitys, wait.wait_funcs))
    return type(wait) in _COUNTING_WAITS


def _asks_about_results(predicate: object) -> bool:
    """Return whether this predicate could ask for a retry after a run that raised nothing."""
    if type(predicate) is tenacity.retry_any:
        return any(_asks_about_results(part) for part in predicate.retries)
    if type(predicate) is tenacity.retry_all:
        return all(_asks_about_results(part) for part in predicate.retries)
    return type(predicate) not in _EXCEPTIONS_ONLY


class _Broken(Exception):
    """A policy's own code failed."""


def _boolean(value: Any) -> bool:
    if inspect.iscoroutine(value):
        value.close()
        raise TypeError("it is asynchronous, and a policy is never awaited")
    return bool(value)


def _seconds(value: Any) -> float:
    seconds = float(value)
    if math.isnan(seconds):
        raise ValueError("the wait is not a number")
    return clamp(seconds)


def _note(error: BaseException, text: str) -> None:
    # One error object may be raised many times: it must not gather notes.
    with contextlib.suppress(Exception):
        if text not in getattr(error, "__notes__", ()):
            error.add_note(text)
