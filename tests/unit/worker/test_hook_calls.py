"""Which hooks are called for a delivery, and what they get: decided by its event."""

from __future__ import annotations

import os
from typing import Any

import pytest

from amqpworker.hooks import Settled
from amqpworker.model.outcome import Cancelled, Dead, Deferred, Discarded, Done, Outcome, Postpone, Requeue, Snooze
from amqpworker.policies.hook_functions import Hooks
from amqpworker.results.store import ResultNotStorable
from amqpworker.worker.hook_calls import HookTable, arguments_of
from tests.unit.worker.settling import DEAD, EXAMPLE, FAILURE, RETRY, Bench, registered


def first(*_: Any) -> None: ...


def second(*_: Any) -> None: ...


def settled(outcome: Outcome, task: Any = EXAMPLE, started: bool = True, **properties: Any) -> Settled:
    """Settle a message with this outcome, and return its event."""
    bench = Bench()
    delivery = bench.delivery(b'{"n":1}', **properties)
    run = bench.started(delivery, attempt=2) if started else None
    if run is not None:
        run.registered = task
    bench.settle(delivery, outcome, run)
    while bench.publisher.underway:
        bench.publisher.confirm()
    bench.flush()
    (event,) = bench.events
    return event


def test_the_hooks_of_the_task_are_called_before_those_of_the_app() -> None:
    task = registered(hooks=Hooks(on_success=[second]))
    table = HookTable(Hooks(on_success=[first]), {"example": task})
    assert table.hooks_for(settled(Done(), task)) == (second, first)
    assert table.hooks_for(settled(RETRY, task)) == ()
    assert not table.is_empty


@pytest.mark.parametrize("refusals", [1, 2])
def test_no_hook_of_a_success_is_called_if_the_store_has_refused_its_result(refusals: int) -> None:
    """The sender sees a failure; with two refusals not even that is stored."""
    table = HookTable(Hooks(on_success=[first], on_dead=[second]), {})
    bench = Bench()
    bench.store.failures, bench.store.failure = refusals, ResultNotStorable("string or blob too big")
    delivery = bench.delivery(b'{"n":1}')
    bench.settle(delivery, Done(b"5"), bench.started(delivery))
    bench.flush()
    (event,) = bench.events
    assert event.outcome == Done(b"5")
    assert table.hooks_for(event) == ()


def test_the_hook_of_a_death_is_called_although_the_store_has_refused_the_failure() -> None:
    table = HookTable(Hooks(on_dead=[first]), {})
    bench = Bench()
    bench.store.failures, bench.store.failure = 1, ResultNotStorable("string or blob too big")
    delivery = bench.delivery(b'{"n":1}')
    bench.settle(delivery, DEAD, bench.started(delivery))
    bench.publisher.confirm()
    bench.flush()
    (event,) = bench.events
    assert table.hooks_for(event) == (first,), "its letter is confirmed"


def test_a_message_that_never_ran_has_the_hooks_of_the_task_that_it_names() -> None:
    task = registered(hooks=Hooks(on_dead=[second]))
    table = HookTable(Hooks(on_dead=[first]), {"example": task})
    expired = Dead("expired")
    assert table.hooks_for(settled(expired, started=False)) == (second, first)
    assert table.hooks_for(settled(expired, started=False, type="unknown")) == (first,)
    assert table.hooks_for(settled(expired, started=False, type=None)) == (first,)


@pytest.mark.parametrize(
    "outcome", [Requeue(), Postpone(1.0, "why"), Deferred(4.0, "why"), Cancelled(), Discarded("why")]
)
def test_no_hook_is_called_for_a_message_that_has_neither_run_nor_died(outcome: Outcome) -> None:
    table = HookTable(Hooks([first], [first], [first]), {})
    assert table.hooks_for(settled(outcome)) == ()


def test_a_table_without_hooks_is_empty() -> None:
    assert HookTable(Hooks(), {"example": registered()}).is_empty


# ---- the arguments --------------------------------------------------------------------------------------------------


def test_a_hook_of_a_success_gets_the_very_value_that_the_task_has_returned() -> None:
    event = settled(Done())
    assert event.run is not None
    event.run.returned = value = object()
    assert arguments_of(event) == (event.run, value)


def test_the_value_of_an_isolated_task_has_come_as_json() -> None:
    def listed() -> tuple[int, ...]:
        return (1, 2)

    event = settled(Done(b"[1,2]"), registered(listed))
    assert arguments_of(event) == (event.run, (1, 2))
    assert arguments_of(settled(Done()))[1] is None, "JSON could not carry it"


@pytest.mark.parametrize("outcome", [RETRY, Snooze(2.0, FAILURE), Snooze(2.0, FAILURE, crashes=1)])
def test_a_hook_of_a_retry_gets_the_run_with_its_error_and_the_delay(outcome: Outcome) -> None:
    event = settled(outcome, headers={"tenant": "acme", "aw-attempt": 2})
    (retried,) = arguments_of(event)
    found: Any = retried
    assert (found.run, found.delay) == (event.run, 2.0)
    assert (found.error_type, found.error, found.traceback) == ("OSError", "no route to host", "Traceback …")
    assert (found.id, found.task, found.queue, found.attempt) == (event.id, "example", "work", 2)
    assert found.headers == {"tenant": "acme"}


@pytest.mark.parametrize("started", [True, False])
def test_a_hook_of_a_death_gets_the_letter_as_it_is_in_the_dead_letter_queue(started: bool) -> None:
    event = settled(DEAD, started=started, message_id=None, headers={"aw-attempt": 2})
    assert event.letter is not None
    (letter,) = arguments_of(event)
    found: Any = letter
    assert (found.queue, found.position, found.task, found.reason) == ("work.dead", 0, "example", "failed")
    assert (found.error_type, found.error, found.attempt) == ("OSError", "no route to host", 2)
    assert found.id == event.letter.properties.message_id != ""
    assert found.worker.endswith(f":{os.getpid()}")
    assert found.message.body == b'{"n":1}'
    assert not found.by_broker
