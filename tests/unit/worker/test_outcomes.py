"""Which outcome a crash has, and what replaces an outcome that cannot be settled."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import Retrying, retry_if_result, stop_after_attempt, wait_fixed

from amqpworker.errors import InvalidArguments, Reject, RetryLater, TaskCancelled, TimeLimitExceeded
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import (
    Cancelled,
    Dead,
    Done,
    Failure,
    Outcome,
    Postpone,
    Republish,
    Requeue,
    Retry,
    Snooze,
)
from amqpworker.policies.hook_functions import Hooks
from amqpworker.routing.queues import Plan
from amqpworker.signature.signature import Call
from amqpworker.worker import outcomes
from amqpworker.worker.context import Run
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.isolation.isolated_process import Crash
from amqpworker.worker.outcomes import failure_of, from_crash, from_settle_error
from tests.unit.worker.settling import DEAD, FAILURE, NAMES, RETRY, Bench, registered


def delivery(**headers: Any) -> Delivery:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(1, True, "", "work", Properties(headers=named or None), b"{}")


def test_a_crash_is_retried_after_growing_delays_and_dead_lettered_after_max_crashes() -> None:
    waits = []
    for before in range(2):
        outcome = from_crash(delivery(aw_crashes=before), Crash(-11, 100 << 20, "in f"), 3)
        assert isinstance(outcome, Snooze)
        assert outcome.crashes == before + 1
        waits.append(outcome.delay)
    assert waits == [1.0, 2.0]
    dead = from_crash(delivery(aw_crashes=2), Crash(-11, 100 << 20, "in f"), 3)
    assert isinstance(dead, Dead)
    assert (dead.reason, dead.crashes) == ("crashed", 3)
    assert dead.failure.error_type == "signal SIGSEGV"
    assert dead.failure.text == (
        "the isolated process that ran it ended by signal SIGSEGV, after it had held up to 100 MiB of memory: crash 3 of 3"
    )
    assert dead.failure.traceback == "in f"


def test_a_crash_names_the_reason_of_a_kill_and_no_password() -> None:
    outcome = from_crash(delivery(), Crash(None, 0, "amqp://u:secret@h/", "killed: it had not moved"), 1)
    assert isinstance(outcome, Dead)
    assert "unknown exit code: crash 1 of 1 (killed: it had not moved)" in outcome.failure.text
    assert "secret" not in outcome.failure.traceback


@given(st.one_of(st.integers(), st.text(), st.none(), st.floats()), st.integers(1, 100))
def test_a_message_is_dead_lettered_within_max_crashes_whatever_its_headers_claim(claim: Any, most: int) -> None:
    outcome: Any = from_crash(delivery(aw_crashes=claim), Crash(1), most)
    seen = 0
    while isinstance(outcome, Snooze):
        assert 0 < outcome.delay <= 60
        seen += 1
        assert seen <= most
        outcome = from_crash(delivery(aw_crashes=outcome.crashes), Crash(1), most)
    assert isinstance(outcome, Dead)


TOO_LARGE = InvalidArguments("no room")


@pytest.mark.parametrize(
    ("outcome", "following"),
    [
        (RETRY, Dead("failed", Failure(FAILURE.error_type, "no room"))),
        (Snooze(1.0, FAILURE), Dead("failed", Failure(FAILURE.error_type, "no room"))),
        (Postpone(1.0, "too early"), Dead("failed", Failure("", "no room"))),
        (Republish(), Requeue()),
        (DEAD, Requeue()),
    ],
    ids=repr,
)
def test_a_copy_that_does_not_fit_becomes_a_dead_letter_and_if_that_does_not_fit_either_the_message_is_requeued(
    outcome: Outcome, following: Outcome
) -> None:
    assert from_settle_error(delivery(), outcome, TOO_LARGE) == following


@pytest.mark.parametrize("outcome", [Done(), RETRY, Republish(), Requeue()], ids=repr)
def test_an_internal_error_in_settling_makes_a_dead_letter(outcome: Outcome) -> None:
    following = from_settle_error(delivery(), outcome, RuntimeError("a defect"))
    assert isinstance(following, Dead)
    assert following.failure.error_type == "RuntimeError"


def test_a_retry_whose_headers_do_not_fit_becomes_a_dead_letter() -> None:
    """It must not run again without its sender's headers, nor without its wait."""
    bench = Bench()
    delivered = bench.delivery(headers={"tenant": "x" * 1000})
    bench.publisher.refusals.append(InvalidArguments("no room"))
    bench.settle(delivered, RETRY, bench.started(delivered))
    assert bench.publisher.underway[0].publication.exchange == NAMES.dead
    bench.publisher.confirm()
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle
    assert bench.store.reply("id-1")["reason"] == "failed"


def test_a_message_is_requeued_if_no_outcome_can_be_settled() -> None:
    bench = Bench()
    delivered = bench.delivery()
    bench.publisher.refusals += [InvalidArguments("no room")] * 5
    bench.settle(delivered, RETRY, bench.started(delivered))
    assert bench.flush()[-1] == ("nack", 1)


def test_a_traceback_begins_at_the_task() -> None:
    def fail() -> None:
        raise OSError

    executor = TaskExecutor({}, stores_results=False)
    with pytest.raises(OSError) as caught:
        executor._invoke(SimpleNamespace(registered=SimpleNamespace(function=fail)), Call((), {}))  # type: ignore[arg-type]
    traceback = failure_of(caught.value.with_traceback(caught.tb.tb_next)).traceback
    assert "in fail" in traceback
    assert "executor.py" not in traceback


# ---- cancelled messages ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ValueError("broken"), RetryLater(5), RetryLater(5, count=False), Reject("no"), TimeLimitExceeded(), SystemExit(1)],
)
def test_a_run_of_a_cancelled_message_that_fails_is_neither_retried_nor_dead(error: BaseException) -> None:
    outcome = outcomes.from_exception(cancelled_run(), error)
    assert isinstance(outcome, Cancelled)
    assert outcome.failure.error_type.endswith(type(error).__name__)


def test_a_coroutine_that_was_ended_by_a_cancel_and_a_task_that_raises_it_itself_are_cancelled() -> None:
    outcome = outcomes.from_exception(cancelled_run(), asyncio.CancelledError())
    assert outcome == Cancelled(Failure("amqpworker.errors.TaskCancelled", "the task was cancelled while it ran"))
    outcome = outcomes.from_exception(cancelled_run(False), TaskCancelled("as asked"))
    assert isinstance(outcome, Cancelled)
    assert outcome.failure.text == "as asked"


def test_a_cancelled_message_has_no_other_run_after_a_hard_limit_or_a_result_that_is_to_be_retried() -> None:
    assert isinstance(outcomes.from_hard_limit(cancelled_run(), "stack"), Cancelled)
    again = Retrying(retry=retry_if_result(lambda value: value == 1), stop=stop_after_attempt(3), wait=wait_fixed(1))
    assert isinstance(outcomes.from_result(cancelled_run(retry=again), 1, wanted=False), Cancelled)
    assert isinstance(outcomes.from_result(cancelled_run(False, retry=again), 1, wanted=False), Retry)
    assert outcomes.from_result(cancelled_run(), 1, wanted=False) == Done()


def cancelled_run(cancelled: bool = True, retry: Any = 3) -> Run:
    bench = Bench()
    return Run(registered(lambda: None, retry), bench.delivery(), "id", 1, 0.0, 0.0, lambda _: cancelled)


# ---- another queue, and expected errors -----------------------------------------------------------------------------


def failed_run(attempt: int = 1, **changed: Any) -> Run:
    plan = Plan("amqpworker", declare=True)
    plan.add_queue("slow")
    task = registered(lambda: None, changed.pop("retry", [5]), app=SimpleNamespace(plan=plan, hooks=Hooks()), **changed)
    return Run(task, Bench().delivery(), "id", attempt, 0.0, 0.0)


def test_a_run_that_is_to_continue_in_another_queue_is_retried_there_and_with_count_false_as_the_same_attempt() -> None:
    outcome: Any = outcomes.from_exception(failed_run(), RetryLater(5, queue="slow"))
    assert (type(outcome), outcome.delay, outcome.queue) == (Retry, 5.0, "slow")
    outcome = outcomes.from_exception(failed_run(9), RetryLater(5, queue="slow", count=False))
    assert (type(outcome), outcome.delay, outcome.queue) == (Snooze, 5.0, "slow")
    outcome = outcomes.from_exception(failed_run(2), RetryLater(5, queue="slow"))
    assert isinstance(outcome, Dead)
    assert "no attempt is left after attempt 2 (again in 5 s in queue 'slow')" in outcome.failure.text


@pytest.mark.parametrize("count", [True, False])
def test_a_queue_that_the_app_does_not_have_is_a_clear_failure(count: bool) -> None:
    outcome = outcomes.from_exception(failed_run(), RetryLater(queue="slwo", count=count))
    assert isinstance(outcome, Dead)
    assert outcome.reason == "failed"
    assert outcome.failure.error_type == "amqpworker.errors.RetryLater"
    assert "RetryLater(queue='slwo'): The app has no queue 'slwo': did you mean slow?" in outcome.failure.text


@pytest.mark.parametrize("queue", ["", 5, b"slow"])
def test_a_queue_that_is_not_a_name_is_refused_in_the_task(queue: Any) -> None:
    with pytest.raises(ValueError, match=r"RetryLater\(queue=.*\): it must be the name of a queue"):
        RetryLater(queue=queue)


def test_an_exception_that_a_task_expects_is_not_retried_and_neither_are_its_subclasses() -> None:
    expecting = failed_run(throws=(LookupError,))
    for error in (LookupError("gone"), KeyError("gone")):
        outcome = outcomes.from_exception(expecting, error)
        assert isinstance(outcome, Dead)
        assert (outcome.reason, outcome.is_expected, outcome.failure.error_type) == (
            "failed",
            True,
            type(error).__name__,
        )
    assert isinstance(outcomes.from_exception(expecting, OSError()), Retry)
    late = failed_run(throws=(TimeLimitExceeded,))
    for outcome in (outcomes.from_exception(late, TimeLimitExceeded()), outcomes.from_hard_limit(late, "stack")):
        assert isinstance(outcome, Dead)
        assert outcome.reason == "timeout"


@pytest.mark.parametrize(("expected", "level"), [(True, "INFO"), (False, "WARNING")])
def test_the_dead_letter_of_an_expected_exception_is_logged_at_info(
    caplog: pytest.LogCaptureFixture, expected: bool, level: str
) -> None:
    bench = Bench()
    delivered = bench.delivery()
    with caplog.at_level("INFO", "amqpworker"):
        bench.settle(delivered, Dead("failed", FAILURE, is_expected=expected), bench.started(delivered))
    (line,) = (record for record in caplog.records if record.getMessage().startswith("task_dead"))
    assert line.levelname == level


@pytest.mark.parametrize("outcome", [Retry(5.0, FAILURE, "slow"), Snooze(5.0, FAILURE, queue="slow")], ids=repr)
def test_a_copy_for_another_queue_goes_there_with_the_attempt_that_it_is(outcome: Outcome) -> None:
    bench = Bench()
    delivered = bench.delivery()
    bench.settle(delivered, outcome, bench.started(delivered, 3))
    (copy,) = bench.publisher.underway
    assert copy.publication.routing_key == "slow"
    assert copy.publication.properties.headers is not None
    assert copy.publication.properties.headers["aw-attempt"] == (4 if isinstance(outcome, Retry) else 3)
