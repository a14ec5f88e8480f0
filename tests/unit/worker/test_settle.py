"""Settling: in which order things happen, and that every branch settles its message."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest

from amqpworker.errors import InvalidArguments, Unconfirmed, Unroutable
from amqpworker.model.outcome import (
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
from amqpworker.worker import settle as settle_module
from tests.unit.worker.settling import DEAD, FAILURE, NAMES, RETRY, Bench

LOST = Unconfirmed("the connection was lost")


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle_module, "STORE_PAUSES", (0.0, 0.0))


def retry_copies(bench: Bench) -> None:
    bench.settler.copies.try_again(math.inf)


# ---- order ----------------------------------------------------------------------------------------------------------


def test_a_result_that_nobody_wants_is_acknowledged_at_once(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(), bench.started(delivery))
    assert bench.flush() == [("ack", 1, False)]


def test_a_result_is_stored_before_its_message_is_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]
    assert bench.store.reply("id-1") == {"status": "done", "value": 42}


def test_a_result_is_kept_for_as_long_as_the_settings_say() -> None:
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
def test_a_result_that_the_store_can_never_hold_is_not_waited_for_and_whoever_asks_hears_so(
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


def test_an_answer_that_is_too_large_for_the_broker_is_told_to_its_caller(bench: Bench) -> None:
    bench.publisher.refusals.append(InvalidArguments("at most 16 MB"))
    delivery = bench.delivery(reply_to="answers")
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    told = json.loads(bench.publisher.underway[0].publication.body)
    assert (told["status"], told["reason"], told["error"]) == ("failed", "result-refused", "at most 16 MB")
    bench.publisher.confirm()
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle


def test_an_answer_that_turns_out_too_large_later_is_told_to_its_caller_once(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="answers")
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    for _ in range(2):
        assert bench.flush()[-1][0] == "publish"
        bench.publisher.fail(InvalidArguments("at most 16 MB"))
    assert bench.flush() == [("ack", 1, False)]
    assert bench.settler.is_idle


def test_a_store_that_refuses_even_that_ends_the_waiting(bench: Bench) -> None:
    bench.store.failures, bench.store.failure = 99, ResultNotStorable("never")
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.flush() == [("ack", 1, False)]
    assert bench.store.failures == 97


def test_a_reply_has_left_before_its_message_is_acknowledged(bench: Bench) -> None:
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


def test_whoever_asked_hears_of_the_failure_before_the_message_is_acknowledged(bench: Bench) -> None:
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


def test_what_did_not_run_goes_back(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, Requeue())
    assert bench.flush() == [("nack", 1)]


def test_what_was_delivered_too_often_goes_back_as_a_copy_that_is_confirmed_first(bench: Bench) -> None:
    headers = {"x-delivery-count": 51, "aw-attempt": 2, "shop": "a"}
    delivery = bench.delivery(headers=headers)
    bench.settler.settle(delivery, Republish())
    assert bench.flush() == [("publish", "amqpworker.due", "work")]
    copy = bench.publisher.underway[0].publication
    assert copy.properties.headers == {"aw-attempt": 2, "shop": "a"}
    assert (copy.properties.message_id, copy.body) == ("id-1", delivery.body)
    bench.publisher.confirm()
    assert bench.flush() == [("ack", 1, False)]


def test_what_cannot_be_copied_goes_back_as_it_is(bench: Bench) -> None:
    bench.publisher.refusals = [InvalidArguments("no room")]
    bench.settle(bench.delivery(), Republish())
    assert bench.flush() == [("nack", 1)]


def test_a_call_that_nobody_waits_for_is_acknowledged_without_a_trace(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="r")
    bench.settler.settle(delivery, Discarded("nobody waits"))
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
    assert bench.wakes, "the I/O thread is told"


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


def test_a_copy_is_given_up_once_its_original_comes_again_anyway(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, RETRY, bench.started(delivery))
    bench.channel.is_open = False
    bench.publisher.fail(LOST)
    retry_copies(bench)
    assert not bench.publisher.underway
    assert bench.settler.is_idle


def test_a_copy_whose_original_is_gone_by_the_time_it_is_tried_again_is_not_published(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.settler.settle(delivery, RETRY, bench.started(delivery))
    bench.publisher.fail(LOST)
    bench.channel.is_open = False
    retry_copies(bench)
    assert not bench.publisher.underway, "it would run beside its original"
    assert bench.settler.is_idle


@pytest.mark.parametrize("outcome", [RETRY, DEAD], ids=repr)
@pytest.mark.parametrize("meanwhile", ["first connection", "reconnection"])
def test_a_copy_that_turns_out_later_to_be_too_large_sends_its_original_back(
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


def test_a_reply_that_cannot_leave_is_given_up_within_its_bound_and_the_message_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="r")
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    bound = bench.publisher.underway[0].timeout
    assert bound is not None
    assert bound <= 10
    assert not bench.settler.is_idle, "a drain waits for it"
    bench.publisher.fail(LOST)
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle


def test_a_reply_to_a_forged_address_is_not_published_and_the_message_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="amq.rabbitmq.reply-to.!!!!.###")
    bench.settler.settle(delivery, Done(b"42"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]
    assert bench.settler.is_idle


def test_a_reply_that_cannot_be_carried_is_given_up_and_the_message_acknowledged(bench: Bench) -> None:
    delivery = bench.delivery(reply_to="r")
    bench.publisher.refusals += [InvalidArguments("too long")] * 2
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush()[-1] == ("ack", 1, False)
    assert bench.settler.is_idle


# ---- what does not fit ----------------------------------------------------------------------------------------------


def test_a_dead_letter_whose_headers_leave_no_room_goes_without_its_traceback_first(bench: Bench) -> None:
    delivery = bench.delivery(headers={"tenant": "x" * 1000})
    bench.publisher.refusals.append(InvalidArguments("no room"))
    bench.settler.settle(delivery, DEAD, bench.started(delivery))
    headers = bench.publisher.underway[0].publication.properties.headers or {}
    assert headers["tenant"] == "x" * 1000
    assert headers["aw-error"] == FAILURE.text
    assert "aw-traceback" not in headers


def test_a_dead_letter_that_cannot_be_published_at_all_gives_the_message_back(bench: Bench) -> None:
    delivery = bench.delivery()
    bench.publisher.refusals += [InvalidArguments("no room")] * 4
    bench.settle(delivery, DEAD, bench.started(delivery))
    assert bench.flush()[-1] == ("nack", 1)
    assert bench.settler.is_idle


def test_a_dead_letter_whose_headers_leave_no_room_goes_at_last_without_its_senders(bench: Bench) -> None:
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


def test_a_store_that_fails_at_first_is_asked_again_before_the_message_is_acknowledged(bench: Bench) -> None:
    bench.store.failures = 2
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]


def test_a_store_that_stays_away_is_asked_until_it_is_back_and_the_task_does_not_run_again(bench: Bench) -> None:
    bench.store.failures = 50
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("store", "id-1"), ("ack", 1, False)]


def test_a_store_that_stays_away_when_the_worker_stops_gives_the_message_back(bench: Bench) -> None:
    bench.store.at_failure = bench.settler.draining.set
    bench.store.failures = 1000
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("nack", 1)]


def test_a_failure_that_cannot_be_stored_gives_the_message_back_without_a_dead_letter(bench: Bench) -> None:
    bench.store.at_failure = bench.settler.draining.set
    bench.store.failures = 1000
    delivery = bench.delivery()
    bench.settler.settle(delivery, DEAD, bench.started(delivery))
    assert bench.flush() == [("nack", 1)]


def test_a_store_that_stays_away_does_not_hold_up_a_drain(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle_module, "STORE_PAUSES", (60.0,))
    bench.settler.draining.set()
    bench.store.failures = 1000
    delivery = bench.delivery()
    bench.settler.settle(delivery, Done(b"1"), bench.started(delivery))
    assert bench.flush() == [("nack", 1)]


def test_a_store_is_not_asked_again_for_a_message_that_comes_again_anyway(bench: Bench) -> None:
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


def test_the_end_of_a_message_that_never_started_is_stored_under_its_id(bench: Bench) -> None:
    bench.settler.settle(bench.delivery(message_id="mine"), Dead("expired", Failure("", "too late")))
    assert bench.store.reply("mine")["reason"] == "expired"


def test_a_message_without_an_id_has_nothing_to_store_its_end_under(bench: Bench) -> None:
    bench.settler.settle(bench.delivery(message_id=None), Dead("malformed", FAILURE))
    assert bench.flush() == [("publish", NAMES.dead, "work")]
    assert bench.publisher.underway[0].publication.properties.message_id, "the dead letter has one"
