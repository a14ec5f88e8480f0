"""What a retry policy decides, against what tenacity does with the same policy."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from tenacity import RetryCallState, Retrying, TryAgain

from amqpworker.errors import RetryLater
from amqpworker.policies.retry import Policy, ResultRefused, policy
from amqpworker.routing.delay import MAX_DELAY
from tests.unit.policies.retry_policies import ERROR, run, waits

# Against tenacity itself

Script = list[Exception | int]

errors = st.sampled_from([OSError("os"), ConnectionError("refused"), ValueError("value"), TryAgain()])
scripts = st.lists(errors | st.integers(0, 3), min_size=1, max_size=12)
predicates = st.recursive(
    st.sampled_from(
        [
            tenacity.retry_if_exception_type(),
            tenacity.retry_if_exception_type(OSError),
            tenacity.retry_if_not_exception_type(ValueError),
            tenacity.retry_unless_exception_type(ValueError),
            tenacity.retry_if_exception_message(match="re"),
            tenacity.retry_if_not_exception_message(match="re"),
            tenacity.retry_if_exception(lambda error: "o" in str(error)),
            tenacity.retry_if_result(lambda value: value > 1),
            tenacity.retry_if_not_result(lambda value: value > 1),
            tenacity.retry_always,
            tenacity.retry_never,
        ]
    ),
    lambda part: st.builds(lambda a, b: a | b, part, part) | st.builds(lambda a, b: a & b, part, part),
    max_leaves=4,
)
seconds = st.integers(0, 100)
wait_rules = st.recursive(
    st.builds(tenacity.wait_fixed, seconds)
    | st.builds(tenacity.wait_incrementing, seconds, seconds, st.integers(100, 500))
    | st.builds(tenacity.wait_exponential, st.integers(1, 5), st.integers(1, 500)),
    lambda part: st.builds(lambda a, b: a + b, part, part) | st.builds(tenacity.wait_chain, part, part),
    max_leaves=4,
)
# tenacity's own clock hardly moves in these runs, and ours does not: the half second keeps the two together.
stops = st.recursive(
    st.builds(tenacity.stop_after_attempt, st.integers(1, 10))
    | st.builds(lambda limit: tenacity.stop_before_delay(limit + 0.5), seconds),
    lambda part: st.builds(lambda a, b: a | b, part, part) | st.builds(lambda a, b: a & b, part, part),
    max_leaves=3,
)


def tenacitys_own_run(retrying: Retrying, script: Script) -> tuple[list[float], str]:
    """Let tenacity run the script, and return what it would have slept and how it ended."""
    slept: list[float] = []
    steps = iter(script)

    def task() -> int:
        step = next(steps, 0)
        if isinstance(step, Exception):
            raise step
        return step

    try:
        retrying.copy(sleep=slept.append)(task)
    except tenacity.RetryError as error:
        return slept, "failed" if error.last_attempt.failed else "refused"
    except Exception:
        return slept, "failed"
    return slept, "done"


def our_run(asked: Policy, script: Script) -> tuple[list[float], str]:
    """Decide after each step of the script, and return the waits and how it ended."""
    waited: list[float] = []
    for attempt in count(1):
        step = script[attempt - 1] if attempt <= len(script) else 0
        if isinstance(step, Exception):
            wait, end = asked.decide(step, run(attempt)), "failed"
        else:
            try:
                wait, end = asked.decide_result(step, run(attempt)) if asked.asks_about_results else None, "done"
            except ResultRefused:
                wait, end = None, "refused"
        if wait is None:
            return waited, end
        waited.append(wait)
    raise AssertionError


@given(predicates, wait_rules, stops, scripts)
def test_a_policy_decides_what_tenacity_would_do(predicate: Any, wait: Any, stop: Any, script: Script) -> None:
    retrying = Retrying(retry=predicate, wait=wait, stop=stop | tenacity.stop_after_attempt(15))
    assert our_run(policy(retrying), script) == tenacitys_own_run(retrying, script)


# The state that a policy is asked with


def seen_by(part: str, error: BaseException = ERROR, attempt: int = 3, since: float = 90.0) -> RetryCallState:
    """Return the state that this part of a policy is asked with; its `wait` answers 7."""
    states: list[RetryCallState] = []

    def record(name: str, answer: Any) -> Any:
        def asked(state: RetryCallState) -> Any:
            if name == part:
                states.append(state)
            return answer

        return asked

    recording = Retrying(retry=record("retry", True), wait=record("wait", 7), stop=record("stop", False))
    assert policy(recording).decide(error, run(attempt, since)) == 7
    (state,) = states
    return state


@pytest.mark.parametrize("part", ["retry", "wait", "stop"])
def test_each_part_is_asked_once_with_a_true_state(part: str) -> None:
    state = seen_by(part)
    assert type(state) is RetryCallState
    assert state.attempt_number == 3
    assert state.seconds_since_start == 90
    assert state.idle_for == 90
    assert state.outcome is not None
    assert state.outcome.failed
    assert state.outcome.exception() is ERROR
    assert state.outcome.attempt_number == 3
    assert state.get_fn_name() == "<unknown>"
    assert repr(state)


def test_stop_knows_the_wait_that_would_come() -> None:
    assert seen_by("stop").upcoming_sleep == 7


def test_a_first_run_has_not_waited() -> None:
    assert seen_by("wait", attempt=1, since=5).idle_for == 0


def test_a_clock_that_was_ahead_at_the_first_run_does_not_make_time_negative() -> None:
    assert seen_by("stop", since=-30).seconds_since_start == 0


def test_time_counts_from_the_first_run() -> None:
    asked = policy(Retrying(stop=tenacity.stop_after_delay(600), wait=tenacity.wait_fixed(30)))
    assert asked.decide(ERROR, run(20, since=599)) == 30
    assert asked.decide(ERROR, run(2, since=600)) is None
    before = policy(Retrying(stop=tenacity.stop_before_delay(600), wait=tenacity.wait_fixed(30)))
    assert before.decide(ERROR, run(2, since=569)) == 30
    assert before.decide(ERROR, run(2, since=570)) is None


def test_a_wait_by_the_exception_is_asked_with_it() -> None:
    asked = policy(Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_exception(lambda e: len(str(e)))))
    assert asked.decide(ERROR, run()) == len("no route")


def test_try_again_is_retried_against_the_predicate_but_not_past_the_stop() -> None:
    asked = policy(Retrying(retry=tenacity.retry_never, stop=tenacity.stop_after_attempt(3)))
    assert waits(asked, TryAgain()) == [0, 0]


@pytest.mark.parametrize(("wait", "clamped"), [(1e12, MAX_DELAY), (float("inf"), MAX_DELAY), (-5, 0), (3, 3)])
def test_a_wait_is_clamped_to_the_ladder(wait: float, clamped: float) -> None:
    assert policy(Retrying(wait=lambda _: wait)).decide(ERROR, run()) == clamped


@pytest.mark.parametrize("attempt", [2**31, 2**62])
@pytest.mark.parametrize("wait", [tenacity.wait_exponential_jitter(), tenacity.wait_exponential()])
def test_a_forged_attempt_costs_no_time(attempt: int, wait: Any) -> None:
    assert policy(Retrying(wait=wait)).decide(ERROR, run(attempt)) == MAX_DELAY
    assert policy(3).decide(ERROR, run(attempt)) is None


# Broken policies


def broken(state: RetryCallState) -> Any:
    raise ZeroDivisionError("by mistake")


def leaving(state: RetryCallState) -> Any:
    raise SystemExit(3)


def nonsense(state: RetryCallState) -> Any:
    return "soon"


def not_a_number(state: RetryCallState) -> float:
    return float("nan")


async def truly(state: RetryCallState) -> bool:
    return True


def coroutine(state: RetryCallState) -> Any:
    return truly(state)


@pytest.mark.parametrize(
    ("part", "function", "told"),
    [
        *((part, broken, "ZeroDivisionError: by mistake") for part in ("retry", "wait", "stop")),
        *((part, leaving, "SystemExit: 3") for part in ("retry", "wait", "stop")),
        *((part, coroutine, "TypeError: it is asynchronous") for part in ("retry", "stop")),
        ("wait", nonsense, "ValueError: could not convert"),
        ("wait", not_a_number, "ValueError: the wait is not a number"),
    ],
)
def test_a_broken_policy_gives_up_with_the_tasks_error_and_a_note(part: str, function: Any, told: str) -> None:
    error = OSError("no route")
    asked = policy(Retrying(**{"stop": tenacity.stop_after_attempt(9), part: function}))
    assert asked.decide(error, run()) is None
    (note,) = error.__notes__
    assert note.startswith(f"The retry policy is broken: its {part!r} failed with {told}")


def test_an_error_that_is_raised_again_and_again_has_one_note() -> None:
    error = OSError("no route")
    asked = policy(Retrying(wait=broken))
    assert [asked.decide(error, run(attempt)) for attempt in (1, 1, 1)] == [None, None, None]
    assert len(error.__notes__) == 1


def test_an_error_that_takes_no_note_does_no_harm() -> None:
    class Closed(Exception):
        def add_note(self, _: str) -> None:
            raise RuntimeError

    assert policy(Retrying(wait=broken)).decide(Closed(), run()) is None


def test_a_broken_policy_refuses_a_result() -> None:
    asked = policy(Retrying(retry=broken, wait=tenacity.wait_fixed(1)))
    with pytest.raises(ResultRefused, match="its 'retry' failed with ZeroDivisionError") as caught:
        asked.decide_result(42, run())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


# Results

TYPES = tenacity.retry_if_exception_type(OSError)
MESSAGE = tenacity.retry_if_exception_message(match="x")
RESULT = tenacity.retry_if_result(lambda value: value is None)


class Subclass(tenacity.retry_if_exception_type):
    def __call__(self, _: RetryCallState) -> bool:
        return True


@pytest.mark.parametrize(
    ("predicate", "asks"),
    [
        (tenacity.retry_if_exception_type(), False),
        (TYPES | MESSAGE, False),
        (TYPES & MESSAGE, False),
        (tenacity.retry_if_not_exception_type(ValueError), False),
        (tenacity.retry_if_exception_cause_type(ValueError), False),
        (tenacity.retry_if_exception(bool), False),
        (tenacity.retry_never, False),
        (TYPES & RESULT, False),
        (RESULT, True),
        (TYPES | RESULT, True),
        (TYPES & MESSAGE | RESULT, True),
        (RESULT & RESULT, True),
        (tenacity.retry_if_not_result(bool), True),
        (tenacity.retry_unless_exception_type(OSError), True),
        (tenacity.retry_if_not_exception_message(match="x"), True),
        (tenacity.retry_always, True),
        (Subclass(), True),
        (lambda _: False, True),
    ],
)
def test_only_a_predicate_that_can_mind_a_result_is_asked_about_results(predicate: Any, asks: bool) -> None:
    assert policy(Retrying(retry=predicate, stop=tenacity.stop_after_attempt(3))).asks_about_results is asks


def test_short_forms_do_not_ask_about_results() -> None:
    assert not any(policy(spec).asks_about_results for spec in (None, 0, 3, [1, 5]))


def test_a_result_that_the_policy_minds_is_retried_until_it_stops() -> None:
    asked = policy(Retrying(retry=RESULT, stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_fixed(5)))
    assert asked.decide_result("good", run()) is None
    assert [asked.decide_result(None, run(attempt)) for attempt in (1, 2)] == [5, 5]
    with pytest.raises(ResultRefused, match="stops after attempt 3"):
        asked.decide_result(None, run(3))


# RetryLater


def test_retry_later_asks_only_the_stop() -> None:
    asked = policy(Retrying(retry=broken, wait=broken, stop=tenacity.stop_after_attempt(3)))
    assert [asked.allows(run(attempt), RetryLater(60)) for attempt in (1, 2, 3)] == [True, True, False]


def test_the_delay_of_retry_later_counts_for_the_stop() -> None:
    asked = policy(Retrying(stop=tenacity.stop_before_delay(100)))
    assert asked.allows(run(2, since=30), RetryLater(69))
    assert not asked.allows(run(2, since=30), RetryLater(70))


def test_a_stop_that_reads_the_outcome_sees_the_signal() -> None:
    def by_outcome(state: RetryCallState) -> bool:
        assert state.outcome is not None
        return not isinstance(state.outcome.exception(), RetryLater)

    asked = policy(Retrying(stop=by_outcome))
    assert asked.allows(run(), RetryLater(60))


def test_a_broken_stop_does_not_allow_retry_later() -> None:
    signal = RetryLater(60)
    assert not policy(Retrying(stop=broken)).allows(run(), signal)
    assert "its 'stop' failed with ZeroDivisionError" in signal.__notes__[0]


# ---- the last attempt -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "last"),
    [
        (None, [True, True, True]),
        (1, [False, True, True]),
        ([5, 5], [False, False, True]),
        (
            Retrying(stop=tenacity.stop_after_attempt(2), retry=tenacity.retry_if_exception_type(KeyError)),
            [False, True, True],
        ),
        (Retrying(retry=tenacity.retry_never, wait=tenacity.wait_fixed(1)), [True, True, True]),
        (Retrying(wait=tenacity.wait_fixed(1)), [False, False, False]),
    ],
    ids=["none", "one", "list", "attempts", "never", "forever"],
)
def test_an_attempt_is_the_last_one_if_the_stop_of_the_policy_ends_it(spec: Any, last: list[bool]) -> None:
    assert [policy(spec).is_last(run(attempt)) for attempt in (1, 2, 3)] == last


def test_a_stop_that_depends_on_time_is_asked_for_a_failure_at_this_moment() -> None:
    by_time = policy(Retrying(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(10)))
    assert [by_time.is_last(run(2, since)) for since in (59, 60)] == [False, True]
    before = policy(Retrying(stop=tenacity.stop_before_delay(60), wait=tenacity.wait_fixed(10)))
    assert [before.is_last(run(2, since)) for since in (49, 51)] == [False, True]


def test_what_depends_on_the_error_or_fails_without_it_is_not_known_to_be_the_last() -> None:
    by_error = Retrying(
        stop=lambda state: state.outcome.exception().status == 404,
        wait=lambda state: state.outcome.exception().retry_after,
    )
    assert not policy(by_error).is_last(run(5))
    asks = policy(Retrying(stop=tenacity.stop_after_attempt(2), wait=lambda state: state.outcome.exception().seconds))
    assert [asks.is_last(run(attempt)) for attempt in (1, 2)] == [False, True]
