"""Settling: in which order things happen, and that every branch settles its message."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from amqpworker.errors import InvalidArguments, Unconfirmed, Unroutable
from amqpworker.model.outcome import (
    Cancelled,
    Dead,
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
from amqpworker.results.store import ResultNotStorable
from tests.unit.worker.settling import DEAD, FAILURE, NAMES, RETRY, Bench

LOST = Unconfirmed("the connection was lost")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def retry_copies(bench: Bench) -> None:
    bench.settler.copies.try_again(math.inf)


# ---- order ----------------------------------------------------------------------------------------------------------


def test_a_message_without_a_result_is_acknowledged_at_once(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(), bench.started(delivery))
    assert bench.flush() == [("ack", 1, False)]


def test_a_result_is_stored_before_its_message_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]
    assert bench.store.reply("id-1") == {"status": "done", "value": 42}


def test_a_result_is_stored_for_the_result_ttl() -> None:
    bench = Bench(result_ttl=60.0)
    delivery = bench.delivery()
    before = time.time()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    expires_at = bench.store.rows["id-1"].expires_at
    assert before + 60 <= expires_at <= time.time() + 60


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        (None, ""),
        ({"aw-first-sent": "2026-11-28T23:59:59.123Z"}, "2026-11-28T23:59:59.123Z"),
        ({"aw-first-sent": 1_795_910_399_123}, "2026-11-28T23:59:59.123Z"),
    ],
)
def test_a_result_is_stored_with_the_first_sending_of_its_message(
    bench: Bench, headers: dict[str, Any] | None, kept: str
) -> None:
    delivery = bench.delivery(headers=headers)
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.store.rows["id-1"].first_sent == kept


@pytest.mark.parametrize("reply_to", [None, "answers"])
def test_a_result_that_the_store_refuses_is_stored_as_a_failure_and_not_retried(
    bench: Bench, reply_to: str | None
) -> None:
    bench.store.failures, bench.store.failure = 1, ResultNotStorable("string or blob too big")
    delivery = bench.delivery(reply_to=reply_to)
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    kept = bench.store.reply("id-1")
    assert (kept["status"], kept["reason"], kept["error"]) == ("failed", "result-refused", "string or blob too big")
    if reply_to is None:
        assert bench.flush() == [("store", "id-1"), ("ack", 1, False)], "it has run, and does not run again"
    else:
        assert bench.publisher.underway[0].publication.body == b'{"status":"done","value":42}', "the caller has it all"


def test_a_reply_that_is_too_large_for_the_broker_is_replaced_by_an_error_reply(bench: Bench) -> None:
    bench.publisher.refusals.append(InvalidArguments("at most 16 MB"))
    delivery = bench.delivery(reply_to="answers")
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    told = json.loads(bench.publisher.underway[0].publication.body)
    assert (told["status"], told["reason"], told["error"]) == ("failed", "result-refused", "at most 16 MB")
    bench.publisher.confirm()
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle


def test_a_reply_that_proves_too_large_later_is_replaced_by_one_error_reply(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="answers")
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    for _ in range(2):
        assert bench.flush()[-1][0] == "publish"
        bench.publisher.fail(InvalidArguments("at most 16 MB"))
    assert bench.flush() == [("ack", 1, False)]
    assert bench.settler.is_idle


def test_a_message_is_acknowledged_if_the_store_refuses_the_failure_as_well(bench: Bench) -> None:
    bench.store.failures, bench.store.failure = 99, ResultNotStorable("never")
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.flush() == [("ack", 1, False)]
    assert bench.store.failures == 97


def test_a_reply_is_confirmed_before_its_message_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="answers", correlation_id="c-1")
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("publish", "", "answers")]
    assert bench.publisher.underway[0].publication.properties.correlation_id == "c-1"
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]


def test_a_retry_is_confirmed_before_its_original_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, RETRY, bench.started(delivery))
    assert bench.flush() == [("publish", NAMES.level(4), "work")]
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]


def test_a_dead_letter_is_confirmed_before_its_original_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, DEAD, bench.started(delivery))
    assert bench.flush()[-1] == ("publish", NAMES.dead, "work")
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]


def test_an_error_reply_is_confirmed_before_the_message_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="r", message_id="asked")
    bench.settler.settle(delivery, DEAD, bench.started(delivery))
    assert bench.flush() == [("store", "asked"), ("publish", NAMES.dead, "work")]
    bench.publisher.confirm()
    assert bench.flush() == [("publish", "", "r")]
    reply = bench.publisher.underway[0].publication
    assert json.loads(reply.body)["reason"] == "failed"
    assert reply.properties.correlation_id == "asked"
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]


def test_a_message_that_did_not_run_is_requeued(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, Requeue())
    assert bench.flush() == [("nack", 1)]


def test_a_message_that_was_delivered_too_often_is_republished_before_it_is_acknowledged(bench: Bench) -> None:
    headers = {"x-delivery-count": 51, "aw-attempt": 2, "shop": "a"}
    delivery = bench.delivery(headers=headers)
    bench.settler.settle(delivery, Republish())
    assert bench.flush() == [("publish", "amqpworker.due", "work")]
    copy = bench.publisher.underway[0].publication
    assert copy.properties.headers == {"aw-attempt": 2, "shop": "a"}
    assert (copy.properties.message_id, copy.body) == ("id-1", delivery.body)
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]


def test_a_message_that_cannot_be_republished_is_requeued(bench: Bench) -> None:
    bench.publisher.refusals = [InvalidArguments("no room")]
    bench.settle(bench.delivery(), Republish())
    assert bench.flush() == [("nack", 1)]


def test_a_discarded_call_is_acknowledged_without_a_reply_or_a_result(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="r")
    bench.settler.settle(delivery, Discarded("the caller has gone"))
    assert bench.flush() == [("ack", 1, False)]


# ---- every branch settles -------------------------------------------------------------------------------------------


OUTCOMES: list[Outcome] = [
    Done(),
    Done(b"1"),
    RETRY,
    Retry(0.0, FAILURE),
    Snooze(1.0, FAILURE),
    Postpone(1.0, "too early"),
    DEAD,
    Discarded("why"),
    Requeue(),
    Republish(),
]


@pytest.mark.parametrize("outcome", OUTCOMES, ids=repr)
@pytest.mark.parametrize("stores", [True, False])
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("was_started", [True, False])
def test_every_outcome_settles_its_message_once(outcome: Outcome, stores: bool, asked: bool, was_started: bool) -> None:
    bench = Bench(stores)
    bench.publisher.confirms_at_once = True
    delivery = bench.delivery(reply_to="r" if asked else None, message_id=None if was_started else "id")
    run = bench.started(delivery) if was_started else None
    bench.settler.settle(delivery, outcome, run)
    settled = [step for step in bench.flush() if step[0] in {"ack", "nack"}]
    assert len(settled) == 1
    assert bench.settler.is_idle
    assert bench.wakes, "the I/O thread is woken"


@pytest.mark.parametrize("outcome", [RETRY, DEAD], ids=repr)
def test_a_copy_is_published_until_it_is_confirmed(bench: Bench, outcome: Outcome) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, outcome, bench.started(delivery))
    first = bench.publisher.underway[0].publication
    for error in (LOST, Unroutable("no queue"), LOST):
        bench.publisher.fail(error)
        assert not [step for step in bench.flush() if step[0] == "ack"]
        assert not bench.settler.is_idle, "a drain waits for it"
        retry_copies(bench)
    assert bench.publisher.underway[0].publication == first
    bench.publisher.confirm()
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle


def test_an_unconfirmed_copy_is_dropped_if_the_channel_of_its_original_is_lost(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, RETRY, bench.started(delivery))
    bench.channel.is_open = False
    bench.publisher.fail(LOST)
    retry_copies(bench)
    assert not bench.publisher.underway
    assert bench.settler.is_idle


def test_a_copy_is_not_published_again_after_the_channel_of_its_original_is_lost(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, RETRY, bench.started(delivery))
    bench.publisher.fail(LOST)
    bench.channel.is_open = False
    retry_copies(bench)
    assert not bench.publisher.underway, "it would run beside its original"
    assert bench.settler.is_idle


@pytest.mark.parametrize("outcome", [RETRY, DEAD], ids=repr)
@pytest.mark.parametrize("meanwhile", ["first connection", "reconnection"])
def test_a_message_is_requeued_if_its_copy_proves_too_large_later(
    bench: Bench, outcome: Outcome, meanwhile: str
) -> None:
    """How small the broker's frames are is known once there is a connection; the next time the copy is cut."""
    delivery = bench.delivery()
    bench.settler.settle(delivery, outcome, bench.started(delivery))
    if meanwhile == "first connection":
        bench.publisher.fail(InvalidArguments("no room"))
    else:
        bench.publisher.fail(LOST)
        bench.publisher.refusals.append(InvalidArguments("no room"))
        retry_copies(bench)
    assert bench.flush()[-1] == ("nack", 1)
    assert bench.settler.is_idle


def test_a_reply_that_cannot_be_sent_is_dropped_after_a_timeout_and_the_message_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="r")
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    bound = bench.publisher.underway[0].timeout
    assert bound is not None
    assert bound <= 10
    assert not bench.settler.is_idle, "a drain waits for it"
    bench.publisher.fail(LOST)
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle


def test_a_reply_to_a_forged_address_is_not_published_and_the_message_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="amq.rabbitmq.reply-to.!!!!.###")
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]
    assert bench.settler.is_idle


def test_a_reply_that_cannot_be_encoded_is_dropped_and_the_message_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="r")
    bench.publisher.refusals += [InvalidArguments("too long")] * 2
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle


# ---- what does not fit ----------------------------------------------------------------------------------------------


def test_a_dead_letter_that_does_not_fit_loses_its_traceback_first(bench: Bench) -> None:
    delivery = bench.delivery(headers={"tenant": "x" * 1000})
    bench.publisher.refusals.append(InvalidArguments("no room"))
    bench.settler.settle(delivery, DEAD, bench.started(delivery))
    headers = bench.publisher.underway[0].publication.properties.headers or {}
    assert headers["tenant"] == "x" * 1000
    assert headers["aw-error"] == FAILURE.text
    assert "aw-traceback" not in headers


def test_a_message_is_requeued_if_its_dead_letter_cannot_be_published_at_all(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.publisher.refusals += [InvalidArguments("no room")] * 4
    bench.settle(delivery, DEAD, bench.started(delivery))
    assert bench.flush()[-1] == ("nack", 1)
    assert bench.settler.is_idle


def test_a_dead_letter_that_does_not_fit_loses_the_headers_of_the_sender_last(bench: Bench) -> None:
    delivery = bench.delivery(headers={"tenant": "x" * 1000, "aw-attempt": 3})
    bench.publisher.refusals += [InvalidArguments("no room"), InvalidArguments("still none")]
    bench.settler.settle(delivery, DEAD, bench.started(delivery))
    letter = bench.publisher.underway[0].publication
    headers = letter.properties.headers or {}
    assert "tenant" not in headers
    assert headers["aw-dead-reason"] == "failed"
    assert headers["aw-attempt"] == 3
    assert letter.body == delivery.body
    bench.publisher.confirm()
    assert bench.flush()[-1] == ("ack", 1, False)


# ---- the store ------------------------------------------------------------------------------------------------------


def test_a_failed_write_to_the_store_is_retried_before_the_message_is_acknowledged(bench: Bench) -> None:
    bench.store.failures = 2
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]


def test_writing_to_an_unavailable_store_is_retried_until_it_succeeds_and_the_task_does_not_run_again(
    bench: Bench,
) -> None:
    bench.store.failures = 50
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]


def test_a_message_is_requeued_if_the_store_is_unavailable_when_the_worker_stops(bench: Bench) -> None:
    bench.store.at_failure = bench.settler.drain
    bench.store.failures = 1000
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("nack", 1)]


def test_a_message_whose_failure_cannot_be_stored_is_requeued_without_a_dead_letter(bench: Bench) -> None:
    bench.store.at_failure = bench.settler.drain
    bench.store.failures = 1000
    delivery = bench.delivery()
    bench.settler.settle(delivery, DEAD, bench.started(delivery))
    assert bench.flush() == [("nack", 1)]


def test_an_unavailable_store_does_not_delay_a_drain(bench: Bench) -> None:
    bench.settler.drain()
    bench.store.failures = 1000
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("nack", 1)]
    assert bench.store.failures == 999


def test_a_result_that_is_too_large_is_refused_and_the_task_is_done() -> None:
    bench = Bench(max_result_bytes=3)
    for value, body in ((b"123", {"status": "done", "value": 123}), (b"1234", None)):
        delivery = bench.delivery(message_id=value.decode(), reply_to="answers", correlation_id="c-1")
        bench.settler.settle(delivery, Done(value), bench.started(delivery))
        kept, (reply,) = bench.store.reply(value.decode()), [bench.publisher.underway.pop().publication.body]
        assert kept == json.loads(reply)
        assert bench.store.rows[value.decode()].state == "done"
        assert body is None or kept == body
    assert (kept["reason"], kept["error"]) == (
        "result-refused",
        "the result has 4 bytes: the setting max_result_bytes allows 3",
    )


def test_what_the_task_returned_and_json_has_not_is_refused_and_the_task_is_done(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    delivery = bench.delivery()
    outcome = Done(None, Failure("amqpworker.errors.InvalidResult", "Task 'example': the return value: no"))
    bench.settler.settle(delivery, outcome, bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)], "no other run, no dead letter"
    assert (bench.store.rows["id-1"].state, bench.store.reply("id-1")["reason"]) == ("done", "result-refused")
    assert "result_refused" in caplog.text


# ---- what cannot be settled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("outcome", [RETRY, DEAD])
def test_an_exception_while_settling_makes_a_dead_letter_also_after_a_result_is_stored(
    bench: Bench, error: Exception, outcome: Outcome
) -> None:
    delivery = bench.delivery()
    bench.publisher.refusals.append(error)
    bench.settler.settle(delivery, outcome, bench.started(delivery))
    assert bench.flush()[-1] == ("publish", NAMES.dead, "work")
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]


def test_a_message_that_cannot_be_dead_lettered_is_requeued(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.publisher.refusals += [RuntimeError("a defect"), RuntimeError("again")]
    bench.settler.settle(delivery, RETRY, bench.started(delivery))
    assert bench.flush()[-1] == ("nack", 1)


def test_storing_is_not_retried_for_a_message_that_is_redelivered_anyway(bench: Bench) -> None:
    bench.store.failures = 1000

    def lose_the_channel() -> None:
        bench.channel.is_open = False

    bench.store.at_failure = lose_the_channel
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.store.failures == 999
    assert bench.flush() == []
    assert bench.settler.is_idle


def test_a_task_that_stores_no_result_stores_no_failure_either(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    delivery = bench.delivery()
    run = bench.started(delivery)
    monkeypatch.setattr(run.registered, "stores_result", False)
    bench.settler.settle(delivery, DEAD, run)
    assert bench.flush() == [("publish", NAMES.dead, "work")]


def test_the_failure_of_a_message_that_never_started_is_stored_under_its_id(bench: Bench) -> None:
    bench.settler.settle(bench.delivery(message_id="mine"), Dead("expired", Failure("", "too late")))
    assert bench.store.reply("mine")["reason"] == "expired"


def test_the_failure_of_a_message_without_an_id_is_not_stored(bench: Bench) -> None:
    bench.settler.settle(bench.delivery(message_id=None), Dead("malformed", FAILURE))
    assert bench.flush() == [("publish", NAMES.dead, "work")]
    assert bench.publisher.underway[0].publication.properties.message_id, "the dead letter has one"


# ---- cancelled messages ---------------------------------------------------------------------------------------------


def test_a_cancelled_message_is_stored_as_failed_then_replied_to_then_acknowledged_without_a_letter(
    bench: Bench,
) -> None:
    delivery = bench.delivery(reply_to="answers", correlation_id="c-1")
    bench.settler.settle(delivery, Cancelled(FAILURE))
    assert bench.flush() == [("store", "id-1"), ("publish", "", "answers")]
    assert bench.store.reply("id-1")["reason"] == "cancelled"
    bench.publisher.confirm()
    assert bench.flush()[-1] == ("ack", 1, False)


def test_the_result_of_a_cancelled_message_stays_if_there_is_one(bench: Bench) -> None:
    first = bench.delivery(message_id="m-1", headers={"aw-first-sent": "1790000000000"})
    bench.settler.settle(first, Done(b"1"), bench.started(first))
    again = bench.delivery(message_id="m-1", headers={"aw-first-sent": "1790000000000"})
    bench.settler.settle(again, Cancelled())
    assert bench.store.reply("m-1") == {"status": "done", "value": 1}
    other = bench.delivery(message_id="m-1", headers={"aw-first-sent": "1790000000001"})
    bench.settler.settle(other, Cancelled())
    assert bench.store.reply("m-1")["reason"] == "cancelled", "another message with this id"


def test_a_cancelled_message_is_requeued_if_its_failure_cannot_be_stored(bench: Bench) -> None:
    bench.store.failures = 10**6
    bench.store.at_failure = bench.settler.drain
    delivery = bench.delivery()
    bench.settler.settle(delivery, Cancelled())
    assert bench.flush() == [("nack", 1)]
