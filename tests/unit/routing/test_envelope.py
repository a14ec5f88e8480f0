"""What a message becomes when it is published again: the allow-list of the wire contract."""

from __future__ import annotations

import base64
import pickle
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from amqpworker.broker.amqp.encode import encode_publish
from amqpworker.broker.amqp.properties import decode_properties
from amqpworker.errors import InvalidArguments
from amqpworker.model.headers import time_text
from amqpworker.model.message import Delivery, Message, Properties, Publication
from amqpworker.model.outcome import Dead, Failure
from amqpworker.routing.envelope import (
    RunIdentity,
    dead_lettered,
    is_valid_reply_to,
    postponed,
    publication_of_call,
    publication_of_reply,
    publication_of_send,
    replayed,
    retried,
    shrink_to_fit,
    user_headers,
)
from amqpworker.routing.topology import Names
from tests.unit.broker.amqp.wire import encode_properties

NAMES = Names("amqpworker")
NOW = 1_790_000_000.5
MILLISECONDS = 1_790_000_000_500
IN_WORDS = "2026-09-21T14:13:20.500Z"
FAILURE = Failure("OSError", "no route", "Traceback …")

# what a broker or a forger may have put in
FOREIGN = {
    "x-death": [{"queue": "amqpworker.delay.03", "reason": "expired", "count": 1}],
    "x-first-death-queue": "amqpworker.delay.03",
    "X-Last-Death-Reason": "expired",
    "x-delivery-count": 3,
    "CC": ["other"],
    "bcc": ["another"],
    "aw-wait-03": True,
    "AW-WAIT-30": None,
}
KEPT = {"tenant": "acme", "weight": 1.5, "traceparent": "00-1-2-03", "aw-first-sent": 5, "aw-unknown": "kept"}


def delivery(headers: dict[str, Any] | None = None, **properties: Any) -> Delivery:
    known = Properties(
        content_type="application/json",
        headers={**FOREIGN, **KEPT, **(headers or {})},
        delivery_mode=1,
        priority=4,
        correlation_id="c",
        reply_to="r",
        expiration="60000",
        message_id="id",
        timestamp=1_700_000_000,
        type="task",
        user_id="guest",
        app_id="shop",
    )
    for name, value in properties.items():
        setattr(known, name, value)
    return Delivery(7, True, "amqpworker.due", "work", known, b'{"a": 1}')


def retry(
    of: Delivery, delay: float = 1.0, *, attempt: int = 2, crashes: int = 0
) -> tuple[str, dict[str, Any], Properties]:
    return parts(of, retried(of, delay, RunIdentity("id", attempt, NOW - 10), NAMES, NOW, crashes))


def parts(of: Delivery, copy: Publication) -> tuple[str, dict[str, Any], Properties]:
    assert copy.routing_key == "work"
    assert copy.body == of.body
    assert copy.mandatory
    return copy.exchange, copy.properties.headers or {}, copy.properties


# ---- the allow-list -------------------------------------------------------------------------------------------------


def copies() -> list[Properties]:
    dead = Dead("failed", FAILURE)
    return [retry(delivery())[2], dead_lettered(delivery(), dead, "id", "host:1", NAMES, NOW).properties]


@pytest.mark.parametrize("copy", copies(), ids=["retry", "dead letter"])
def test_a_copy_keeps_the_properties_of_the_sender_and_drops_those_of_the_broker(copy: Properties) -> None:
    headers = copy.headers or {}
    assert {name: value for name, value in headers.items() if name in KEPT} == KEPT
    assert not {name.lower() for name in headers} & {"cc", "bcc", "aw-wait-30"}
    assert not [name for name in headers if name.lower().startswith("x-")]
    present = copy.present()
    del present["headers"]
    assert present == {
        "content_type": "application/json",
        "delivery_mode": 2,
        "priority": 4,
        "correlation_id": "c",
        "reply_to": "r",
        "message_id": "id",
        "timestamp": 1_700_000_000,
        "type": "task",
        "app_id": "shop",
    }


@given(some.dictionaries(some.text(max_size=12), some.integers(0, 9)))
def test_no_header_of_the_broker_is_copied(headers: dict[str, int]) -> None:
    _, copied, _ = retry(delivery({**headers, **{f"x-{name}": 1 for name in headers}}))
    assert not [name for name in copied if name.lower().startswith("x-")]
    assert all(copied[name] == value for name, value in headers.items() if user_headers({name: 0}))


def test_a_copy_does_not_change_its_original() -> None:
    original = delivery()
    before = dict(original.properties.headers or {})
    retry(original)
    dead_lettered(original, Dead("failed", FAILURE), "id", "host:1", NAMES, NOW)
    assert original.properties.headers == before
    assert original.properties.delivery_mode == 1


def test_a_message_without_headers_can_be_copied() -> None:
    bare = delivery()
    bare.properties.headers = None
    assert retry(bare)[1]["aw-attempt"] == 2


# ---- retries --------------------------------------------------------------------------------------------------------


def test_a_retry_carries_its_attempt_its_eta_and_the_time_of_the_first_run() -> None:
    exchange, headers, _ = retry(delivery({"aw-attempt": 1, "aw-returned": 5}), 1.0, attempt=4)
    assert exchange == NAMES.level(3)
    assert headers["aw-attempt"] == 4
    assert headers["aw-first-run"] == time_text(MILLISECONDS - 10_000)
    assert headers["aw-eta"] == time_text(MILLISECONDS + 1000)
    assert [name for name in headers if name.startswith("aw-wait-")] == ["aw-wait-03"]
    assert "aw-returned" not in headers, "a new delay may come too early once more"


def test_a_retry_after_a_crash_carries_the_number_of_crashes() -> None:
    assert retry(delivery({"aw-crashes": 1}), crashes=2)[1]["aw-crashes"] == 2
    assert retry(delivery({"aw-crashes": 1}))[1]["aw-crashes"] == 1


def test_a_retry_without_a_delay_goes_to_the_exchange_of_due_messages() -> None:
    exchange, headers, _ = retry(delivery(), 0.0)
    assert exchange == NAMES.due
    assert not [name for name in headers if name.startswith("aw-wait-")]


def test_a_delay_beyond_the_ladder_becomes_the_longest_possible() -> None:
    exchange, headers, _ = retry(delivery(), 1e12)
    assert exchange == NAMES.level(30)
    assert len([name for name in headers if name.startswith("aw-wait-")]) == 31


def test_a_postponed_message_keeps_its_eta_and_its_attempt() -> None:
    eta = MILLISECONDS + 5000
    of = delivery({"aw-eta": eta, "aw-attempt": 3})
    exchange, headers, _ = parts(of, postponed(of, 5.0, "id", NAMES, NOW))
    assert exchange == NAMES.level(5)
    assert headers["aw-eta"] == eta
    assert headers["aw-attempt"] == 3
    assert headers["aw-returned"] == IN_WORDS
    assert "aw-first-run" not in headers, "it has not run"


def test_a_message_that_had_no_id_keeps_the_one_that_its_run_was_given() -> None:
    copy = retried(delivery(message_id=None), 1.0, RunIdentity("given", 2, NOW), NAMES, NOW)
    assert copy.properties.message_id == "given"


# ---- dead letters ---------------------------------------------------------------------------------------------------


def letter(of: Delivery, dead: Dead) -> dict[str, Any]:
    copy = dead_lettered(of, dead, "id", "host:1", NAMES, NOW)
    assert (copy.exchange, copy.routing_key, copy.body, copy.mandatory) == (NAMES.dead, "work", of.body, True)
    return copy.properties.headers or {}


def test_a_dead_letter_carries_its_reason_error_and_traceback() -> None:
    headers = letter(delivery({"aw-attempt": 3}), Dead("failed", FAILURE))
    assert {name: headers[name] for name in headers if name.startswith("aw-") and name not in KEPT} == {
        "aw-attempt": 3,
        "aw-dead-reason": "failed",
        "aw-error-type": "OSError",
        "aw-error": "no route",
        "aw-traceback": "Traceback …",
        "aw-failed-at": IN_WORDS,
        "aw-worker": "host:1",
    }


def test_error_headers_of_an_earlier_dead_letter_are_replaced() -> None:
    old = {"aw-dead-reason": "timeout", "aw-failed-at": 1, "aw-error": "old"}
    headers = letter(delivery(old), Dead("failed", FAILURE))
    assert (headers["aw-dead-reason"], headers["aw-error"]) == ("failed", "no route")


def test_a_dead_letter_without_an_error_has_no_error_headers() -> None:
    headers = letter(delivery({"aw-error": "old", "aw-traceback": "old"}), Dead("expired"))
    assert not {"aw-error", "aw-error-type", "aw-traceback"} & headers.keys()


def test_a_dead_letter_keeps_what_it_was_refused_for() -> None:
    refused = delivery(content_encoding="gzip", content_type="application/x-python-serialize")
    copy = dead_lettered(refused, Dead("malformed"), "id", "host:1", NAMES, NOW)
    assert copy.properties.content_encoding == "gzip"
    assert copy.properties.content_type == "application/x-python-serialize"
    assert retry(refused)[2].content_encoding is None


def test_an_error_its_type_and_its_traceback_are_truncated_and_not_left_out() -> None:
    headers = letter(delivery(), Dead("failed", Failure("E" * 10**6, "t" * 10**6, "f" * 10**6)))
    for name, most in {"aw-error": 4096, "aw-error-type": 4096, "aw-traceback": 32 * 1024}.items():
        assert most / 2 < len(headers[name]) <= most, name


def test_a_dead_letter_that_does_not_fit_loses_its_traceback_first_and_the_headers_of_the_sender_last() -> None:
    whole = dead_lettered(delivery(content_encoding="gzip"), Dead("failed", FAILURE), "id", "host:1", NAMES, NOW)
    headers = [one.properties.headers or {} for one in shrink_to_fit(whole)]
    assert ["aw-traceback" in one for one in headers] == [True, False, False, False]
    assert ["tenant" in one for one in headers] == [True, True, False, False]
    assert all(one["aw-dead-reason"] == "failed" for one in headers)
    assert all(one.body == whole.body and one.properties.message_id == "id" for one in shrink_to_fit(whole))
    assert all(one.properties.content_encoding == "gzip" for one in shrink_to_fit(whole))


def test_each_form_of_a_dead_letter_has_the_version_of_its_arguments_by_which_a_replay_reads_them() -> None:
    whole = dead_lettered(delivery({"aw-version": 3}), Dead("failed", FAILURE), "id", "host:1", NAMES, NOW)
    assert [(one.properties.headers or {})["aw-version"] for one in shrink_to_fit(whole)] == [3, 3, 3, 3]
    assert replayed(whole.properties.headers or {}, NOW)["aw-version"] == 3


def test_the_smallest_form_of_a_dead_letter_fits_into_the_smallest_frame() -> None:
    failure = Failure("E" * 9000, "ü" * 9000, "t" * 90_000)
    given = delivery({"tenant": "x" * 9000}, content_encoding="e" * 255, type="t" * 255, app_id="a" * 255)
    letter = list(shrink_to_fit(dead_lettered(given, Dead("failed", failure), "i" * 255, "w" * 255, NAMES, NOW)))[-1]
    assert encode_publish(letter, 1, 4096)
    headers = letter.properties.headers or {}
    assert headers["aw-error"].startswith("üü")


# ---- replies --------------------------------------------------------------------------------------------------------

PID = base64.b64encode(b"\x83Xv\x00\x0freply@130412212\x00\x00\x03!\x00\x00\x00\x00k\x06\xa0o").decode()
KEY = base64.b64encode(b"k" * 16).decode()


@pytest.mark.parametrize("reply_to", ["answers", "amq.gen-x", f"amq.rabbitmq.reply-to.{PID}.{KEY}"])
def test_a_queue_or_a_direct_reply_to_address_is_a_valid_reply_to(reply_to: str) -> None:
    assert is_valid_reply_to(reply_to)


@pytest.mark.parametrize(
    "rest",
    ["", ".", ".!!!!.###", ".g1h0.x", ".AAAA.BBBB", f".{PID}", f".{PID}.BBBB", f".{KEY}.{KEY}", f".{PID}.{KEY}.x"],
)
def test_a_reply_to_that_would_close_the_connection_is_invalid(rest: str) -> None:
    assert not is_valid_reply_to("amq.rabbitmq.reply-to" + rest)


# ---- answers and first sends ----------------------------------------------------------------------------------------


def test_a_reply_goes_to_the_caller_and_is_never_mandatory() -> None:
    copy = publication_of_reply(delivery(), b"{}")
    assert (copy.exchange, copy.routing_key, copy.mandatory) == ("", "r", False)
    assert copy.properties.correlation_id == "c"
    assert publication_of_reply(delivery(correlation_id=None), b"{}").properties.correlation_id == "id"
    assert copy.properties.reply_to is None


def message(**options: Any) -> Message:
    return Message("task", "work", b"{}", "id", **options)


def test_a_message_without_a_delay_goes_to_the_exchange_of_tasks() -> None:
    wire = publication_of_send(message(headers={"tenant": "acme"}), NAMES, NOW, "shop")
    assert (wire.exchange, wire.routing_key, wire.mandatory) == (NAMES.tasks, "work", True)
    assert wire.properties.headers == {"tenant": "acme", "aw-first-sent": IN_WORDS}
    assert wire.properties.timestamp == 1_790_000_000
    assert wire.properties.app_id == "shop"
    assert wire.properties.delivery_mode == 2


@pytest.mark.parametrize("when", [{"delay": 1.0}, {"at": datetime.fromtimestamp(NOW + 1, UTC)}])
def test_a_delayed_message_enters_the_ladder_with_its_eta(when: dict[str, Any]) -> None:
    wire = publication_of_send(message(**when), NAMES, NOW)
    assert wire.exchange == NAMES.level(3)
    due = time_text(MILLISECONDS + 1000)
    assert wire.properties.headers == {"aw-first-sent": IN_WORDS, "aw-eta": due, "aw-wait-03": True}


def test_a_message_whose_time_has_passed_is_sent_without_a_delay() -> None:
    wire = publication_of_send(message(at=datetime.fromtimestamp(NOW - 1, UTC)), NAMES, NOW)
    assert wire.exchange == NAMES.tasks
    assert "aw-eta" not in (wire.properties.headers or {})


def test_a_time_beyond_the_ladder_is_refused() -> None:
    with pytest.raises(InvalidArguments, match="too late"):
        publication_of_send(message(at=datetime(2200, 1, 1, tzinfo=UTC)), NAMES, NOW)


@pytest.mark.parametrize("expires", [60.0, datetime.fromtimestamp(NOW + 60, UTC)])
def test_an_expiry_is_an_absolute_time_on_the_wire(expires: Any) -> None:
    headers = publication_of_send(message(expires=expires), NAMES, NOW).properties.headers or {}
    assert headers["aw-expires"] == time_text(MILLISECONDS + 60_000)


def test_a_message_that_is_sent_again_keeps_the_time_of_its_first_sending() -> None:
    one = message(delay=1.0)
    first = publication_of_send(one, NAMES, NOW).properties
    again = publication_of_send(one, NAMES, NOW + 100, "shop").properties
    assert first.headers is not None
    assert again.headers is not None
    assert first.headers["aw-first-sent"] == again.headers["aw-first-sent"] == IN_WORDS
    assert again.headers["aw-eta"] == time_text(MILLISECONDS + 101_000), "a delay counts from each sending"
    assert (first.timestamp, again.timestamp) == (1_790_000_000, 1_790_000_000)


def test_a_pickled_message_keeps_the_time_of_its_first_sending_and_a_changed_copy_does_not() -> None:
    one = message()
    publication_of_send(one, NAMES, NOW)
    assert pickle.loads(pickle.dumps(one)).first_sent == MILLISECONDS, "kept for later, after an error"
    assert replace(one, body=b"[]").first_sent is None
    assert one == message(), "when it was sent is not part of what it contains"


def test_a_call_carries_the_correlation_id_of_the_call_and_expires_with_it() -> None:
    one = message()
    wire = publication_of_call(one, "token-1", 5.0, NAMES, NOW, "shop").properties
    assert (wire.correlation_id, wire.reply_to, wire.message_id) == ("token-1", "amq.rabbitmq.reply-to", "id")
    assert (wire.headers or {})["aw-expires"] == time_text(MILLISECONDS + 5000)
    assert one.first_sent == MILLISECONDS


def test_a_message_that_is_late_before_it_is_due_is_refused() -> None:
    for late in (
        {"delay": 60.0, "expires": 60.0},
        {"delay": 60.0, "expires": datetime.fromtimestamp(NOW + 59, UTC)},
        {"at": datetime.fromtimestamp(NOW + 60, UTC), "expires": 59.0},
    ):
        with pytest.raises(InvalidArguments, match="never runs"):
            publication_of_send(message(**late), NAMES, NOW)
    publication_of_send(message(delay=59.0, expires=60.0), NAMES, NOW)


# ---- replays --------------------------------------------------------------------------------------------------------


def test_a_replayed_dead_letter_starts_from_the_beginning() -> None:
    died = letter(delivery({"aw-attempt": 3, "aw-crashes": 2, "aw-eta": 1, "aw-expires": 1}), Dead("failed", FAILURE))
    again = replayed({**died, "aw-returned": 1, "aw-first-run": 1}, NOW)
    assert again == {**KEPT, "aw-replayed": IN_WORDS}


def test_every_copy_can_be_encoded_and_decoded() -> None:
    for copy in copies():
        data = encode_properties(copy)
        read, problem = decode_properties(data, 0, len(data))
        assert (read, problem) == (copy, "")
