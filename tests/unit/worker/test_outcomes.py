"""Which outcome a crash has, and what replaces an outcome that cannot be settled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.errors import InvalidArguments
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Done, Failure, Outcome, Postpone, Republish, Requeue, Snooze
from amqpworker.signature.signature import Call
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.isolation.isolated_process import Crash
from amqpworker.worker.outcomes import failure_of, from_crash, from_settle_error
from tests.unit.worker.settling import DEAD, FAILURE, NAMES, RETRY, Bench


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
