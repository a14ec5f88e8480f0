"""What a worker process knows of cancels: by the stream, and by the result store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import pytest

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.model.cancel import HOLDS, Cancel, decode_cancel, encode_cancel, stored_id
from amqpworker.model.headers import ETA, FIRST_SENT, REPLAYED, read_headers, time_text
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Cancelled, Deferred, Requeue
from amqpworker.results.row import ResultRow
from amqpworker.worker.cancels import FIRST_PRUNING, Cancels
from amqpworker.worker.context import Run
from amqpworker.worker.stored_checks import StoredChecks
from tests.unit.worker.settling import Store, registered

NOW = 1_790_000_000.0
AT = int(NOW * 1000)


def delivery_of(task_id: str | None = "m-1", **headers: Any) -> Delivery:
    names = {"sent": FIRST_SENT, "replayed": REPLAYED, "eta": ETA}
    written = {names[name]: time_text(value) for name, value in headers.items()}
    properties = Properties(type="example", message_id=task_id, headers=written or None)
    return Delivery(1, False, "amqpworker.tasks", "work", properties, b"{}")


def gated(cancels: Cancels, delivery: Delivery) -> bool:
    outcome = cancels.gate(delivery, read_headers(delivery.properties.headers or {}))
    assert outcome is None or isinstance(outcome, Cancelled)
    assert cancels.is_cancelled(delivery) == (outcome is not None)
    return outcome is not None


def test_a_message_is_cancelled_from_the_time_of_its_cancel_until_that_is_over() -> None:
    now = [NOW]
    cancels = Cancels(lambda: now[0])
    assert not gated(cancels, delivery_of(sent=AT - 1))
    cancels.add(Cancel("m-1", AT, AT + HOLDS))
    assert gated(cancels, delivery_of(sent=AT - 1))
    assert not gated(cancels, delivery_of(sent=AT + 1)), "its id was used again"
    assert not gated(cancels, delivery_of(sent=AT - 1, replayed=AT + 1))
    assert not gated(cancels, delivery_of("m-2", sent=AT - 1))
    assert not gated(cancels, delivery_of(None))
    now[0] = NOW + HOLDS / 1000
    assert not gated(cancels, delivery_of(sent=AT - 1))


def test_a_second_cancel_of_an_id_adds_to_the_first() -> None:
    cancels = Cancels(lambda: NOW)
    for at in (AT + 5000, AT, AT):
        cancels.add(Cancel("m-1", at, AT + HOLDS))
    assert gated(cancels, delivery_of(sent=AT + 1000, replayed=AT + 4000))
    assert len(cancels) == 1


def test_cancels_that_no_longer_hold_are_forgotten() -> None:
    now = [NOW]
    cancels = Cancels(lambda: now[0])
    cancels.add(Cancel("over", AT - 5, AT))
    assert len(cancels) == 0
    for number in range(FIRST_PRUNING):
        cancels.add(Cancel(f"m-{number}", AT, AT + 1000))
    now[0] += 2
    cancels.add(Cancel("last", AT, AT + HOLDS))
    assert len(cancels) == 1
    assert gated(cancels, delivery_of("last"))


def test_ten_thousand_cancels_are_noted_in_a_fraction_of_a_second_of_cpu() -> None:
    bodies = [encode_cancel(Cancel(f"id-{number}", AT + number, AT + number + HOLDS)) for number in range(10_000)]
    cancels = Cancels(lambda: NOW)
    began = time.thread_time()
    for body in bodies:
        cancels.add(decode_cancel(body))
    assert time.thread_time() - began < 0.5
    assert len(cancels) == 10_000


# ---- the result store -----------------------------------------------------------------------------------------------


def run_of(delivery: Delivery, cancelled: Callable[[Delivery], bool] | None = None) -> Run:
    return Run(registered(lambda: None), delivery, delivery.properties.message_id or "", 1, NOW, NOW, cancelled)


def store_with(cancel: Cancel | None) -> Store:
    store = Store()
    if cancel is not None:
        row = ResultRow(stored_id("m-1"), "cancelled", "", encode_cancel(cancel), time_text(AT), NOW, NOW + 1000)
        store.rows[row.id] = row
    return store


def test_a_delayed_task_whose_cancel_is_stored_does_not_start() -> None:
    stored = StoredChecks(store_with(Cancel("m-1", AT, AT + HOLDS)), lambda: NOW)
    assert isinstance(stored.check(run_of(delivery_of(sent=AT - 1, eta=AT))), Cancelled)
    assert stored.check(run_of(delivery_of(sent=AT + 1, eta=AT))) is None, "its id was used again"
    assert stored.check(run_of(delivery_of(sent=AT - 1))) is None, "it has not waited, so it is not checked"
    assert StoredChecks(store_with(None)).check(run_of(delivery_of(sent=AT - 1, eta=AT))) is None


def test_the_result_of_a_message_whose_id_is_that_of_a_cancel_stops_nothing() -> None:
    store = Store()
    store.put([ResultRow(stored_id("m-1"), "done", "", b'{"status":"done","value":1}', "", NOW, NOW + 1000)])
    assert StoredChecks(store, lambda: NOW).check(run_of(delivery_of(sent=AT - 1, eta=AT))) is None


@pytest.mark.parametrize("error", [ResultStoreError("locked"), ConfigError("no such folder")])
def test_a_delayed_task_waits_while_the_store_cannot_be_read(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Store):
        def get(self, _: Collection[str]) -> Mapping[str, ResultRow]:
            raise error

    now = [0.0]
    stored = StoredChecks(Broken(), lambda: NOW, lambda: now[0])
    for seconds in (100.0, 101.0, 159.0):
        now[0] = seconds
        assert isinstance(stored.check(run_of(delivery_of(eta=AT))), Deferred)
    assert len([one for one in caplog.records if "runs_not_checked" in one.getMessage()]) == 1
    now[0] = 160.0
    stored.check(run_of(delivery_of(eta=AT)))
    assert len([one for one in caplog.records if "runs_not_checked" in one.getMessage()]) == 2


def test_a_coroutine_is_checked_in_another_thread_and_may_be_cancelled_meanwhile() -> None:
    stored = StoredChecks(store_with(Cancel("m-1", AT, AT + HOLDS)), lambda: NOW)

    async def check(run: Run, cancel: bool) -> Any:
        task = asyncio.create_task(stored.check_async(run))
        if cancel:
            await asyncio.sleep(0)
            task.cancel()
        return await task

    assert isinstance(asyncio.run(check(run_of(delivery_of(eta=AT)), cancel=False)), Cancelled)
    assert asyncio.run(check(run_of(delivery_of()), cancel=False)) is None
    assert isinstance(asyncio.run(check(run_of(delivery_of(eta=AT)), cancel=True)), Requeue)
    forced = run_of(delivery_of(eta=AT), lambda _: True)
    assert isinstance(asyncio.run(check(forced, cancel=True)), Cancelled)
    stored.close()
