"""What a worker does with a message that was delivered before."""

from __future__ import annotations

from typing import Any

import pytest

from amqpworker.model.message import Delivery, Properties
from amqpworker.worker.redelivery import RedeliveryAction, redelivery_action


def delivery(redelivered: bool = True, **headers: Any) -> Delivery:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(1, redelivered, "", "work", Properties(headers=named or None), b"{}")


@pytest.mark.parametrize(
    ("one", "action"),
    [
        (delivery(redelivered=False), RedeliveryAction.RUN),
        (delivery(redelivered=False, x_delivery_count=9), RedeliveryAction.RUN),
        (delivery(), RedeliveryAction.ASK),
        (delivery(x_delivery_count=1), RedeliveryAction.ASK),
        (delivery(x_delivery_count=2), RedeliveryAction.ASK),
        (delivery(x_delivery_count=50), RedeliveryAction.ASK),
        (delivery(x_delivery_count=51), RedeliveryAction.REPUBLISH),
        (delivery(redelivered=False, aw_crashes=1), RedeliveryAction.ISOLATE),
        (delivery(redelivered=False, aw_crashes="2"), RedeliveryAction.ISOLATE),
        (delivery(redelivered=False, aw_crashes=0), RedeliveryAction.RUN),
        (delivery(redelivered=False, aw_crashes="often"), RedeliveryAction.RUN),
        (delivery(aw_crashes=-5, x_delivery_count="1"), RedeliveryAction.ASK),
        (delivery(aw_crashes=1, x_delivery_count=51), RedeliveryAction.ISOLATE),
    ],
)
def test_a_message_that_crashed_a_process_runs_isolated_and_one_that_may_have_is_asked_about(
    one: Delivery, action: RedeliveryAction
) -> None:
    assert redelivery_action(one, supervised=True) is action


@pytest.mark.parametrize(
    ("one", "action"),
    [
        (delivery(redelivered=False), RedeliveryAction.RUN),
        (delivery(), RedeliveryAction.RUN),
        (delivery(x_delivery_count=1), RedeliveryAction.RUN),
        (delivery(x_delivery_count=2), RedeliveryAction.ISOLATE),
        (delivery(x_delivery_count=50), RedeliveryAction.ISOLATE),
        (delivery(x_delivery_count=51), RedeliveryAction.REPUBLISH),
        (delivery(redelivered=False, aw_crashes=1), RedeliveryAction.ISOLATE),
    ],
)
def test_only_without_a_supervisor_a_message_that_was_delivered_three_times_runs_isolated(
    one: Delivery, action: RedeliveryAction
) -> None:
    assert redelivery_action(one, supervised=False) is action


def test_deliveries_that_a_delay_level_may_have_counted_make_no_suspect() -> None:
    """A tool that read a level and was killed has them counted; the copy of the message is counted from zero."""
    waited = [{"queue": "amqpworker.delay.05", "reason": "expired", "count": 1}]
    one = delivery(x_delivery_count=2, x_death=waited)
    assert redelivery_action(one, supervised=False) is RedeliveryAction.REPUBLISH
    assert redelivery_action(one, supervised=True) is RedeliveryAction.ASK
    assert redelivery_action(delivery(x_delivery_count=1, x_death=waited), supervised=False) is RedeliveryAction.RUN
    for other in ([], None, "forged", [1, {}], [{"queue": "emails", "reason": "rejected"}], [{"queue": b"\xff"}]):
        one = delivery(x_delivery_count=2, x_death=other)
        assert redelivery_action(one, supervised=False) is RedeliveryAction.ISOLATE
