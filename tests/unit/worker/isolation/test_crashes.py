"""What is made of a message that was delivered before, and of one whose process has crashed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Retry
from amqpworker.worker.isolation.crashes import Crash, RedeliveryAction, crashed, redelivery_action


def delivery(redelivered: bool = True, **headers: Any) -> Delivery:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(1, redelivered, "", "work", Properties(headers=named or None), b"{}")


@pytest.mark.parametrize(
    ("one", "triage"),
    [
        (delivery(redelivered=False), RedeliveryAction.RUN),
        (delivery(redelivered=False, x_delivery_count=9), RedeliveryAction.RUN),
        (delivery(), RedeliveryAction.ASK),
        (delivery(x_delivery_count=1), RedeliveryAction.ASK),
        (delivery(x_delivery_count=2), RedeliveryAction.ASK),
        (delivery(x_delivery_count=50), RedeliveryAction.ASK),
        (delivery(x_delivery_count=51), RedeliveryAction.RENEW),
        (delivery(redelivered=False, aw_crashes=1), RedeliveryAction.ISOLATE),
        (delivery(redelivered=False, aw_crashes="2"), RedeliveryAction.ISOLATE),
        (delivery(redelivered=False, aw_crashes=0), RedeliveryAction.RUN),
        (delivery(redelivered=False, aw_crashes="often"), RedeliveryAction.RUN),
        (delivery(aw_crashes=-5, x_delivery_count="1"), RedeliveryAction.ASK),
        (delivery(aw_crashes=1, x_delivery_count=51), RedeliveryAction.ISOLATE),
    ],
)
def test_who_has_taken_a_process_down_runs_alone_and_who_may_have_is_asked_about(
    one: Delivery, triage: RedeliveryAction
) -> None:
    assert redelivery_action(one, supervised=True) is triage


@pytest.mark.parametrize(
    ("one", "triage"),
    [
        (delivery(redelivered=False), RedeliveryAction.RUN),
        (delivery(), RedeliveryAction.RUN),
        (delivery(x_delivery_count=1), RedeliveryAction.RUN),
        (delivery(x_delivery_count=2), RedeliveryAction.ISOLATE),
        (delivery(x_delivery_count=50), RedeliveryAction.ISOLATE),
        (delivery(x_delivery_count=51), RedeliveryAction.RENEW),
        (delivery(redelivered=False, aw_crashes=1), RedeliveryAction.ISOLATE),
    ],
)
def test_only_where_nobody_can_be_asked_what_was_delivered_three_times_runs_alone(
    one: Delivery, triage: RedeliveryAction
) -> None:
    assert redelivery_action(one, supervised=False) is triage


def test_a_crash_is_tried_again_later_each_time_and_is_dead_in_the_end() -> None:
    waits = []
    for before in range(2):
        outcome = crashed(delivery(aw_crashes=before), Crash(-11, 100 << 20, "in f"), 3)
        assert isinstance(outcome, Retry)
        assert (outcome.counts, outcome.crashes) == (False, before + 1)
        waits.append(outcome.delay)
    assert waits == [1.0, 2.0]
    dead = crashed(delivery(aw_crashes=2), Crash(-11, 100 << 20, "in f"), 3)
    assert isinstance(dead, Dead)
    assert (dead.reason, dead.crashes) == ("crashed", 3)
    assert dead.failure.error_type == "signal SIGSEGV"
    assert dead.failure.text == (
        "the isolated process that ran it ended by signal SIGSEGV, after it had held up to 100 MiB of memory: crash 3 of 3"
    )
    assert dead.failure.traceback == "in f"


def test_a_crash_tells_why_we_ended_it_and_no_password() -> None:
    outcome = crashed(delivery(), Crash(None, 0, "amqp://u:secret@h/", "killed: it had not moved"), 1)
    assert isinstance(outcome, Dead)
    assert "unknown exit code: crash 1 of 1 (killed: it had not moved)" in outcome.failure.text
    assert "secret" not in outcome.failure.traceback


@given(st.one_of(st.integers(), st.text(), st.none(), st.floats()), st.integers(1, 100))
def test_whatever_a_message_claims_about_its_crashes_it_comes_to_an_end(claim: Any, most: int) -> None:
    outcome: Any = crashed(delivery(aw_crashes=claim), Crash(1), most)
    seen = 0
    while isinstance(outcome, Retry):
        assert 0 < outcome.delay <= 60
        seen += 1
        assert seen <= most
        outcome = crashed(delivery(aw_crashes=outcome.crashes), Crash(1), most)
    assert isinstance(outcome, Dead)
