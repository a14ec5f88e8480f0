"""Replies: what is written can be read by any program, and foreign ones do no harm."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.errors import AmqpWorkerError, MalformedReply
from amqpworker.model import reply
from amqpworker.model.outcome import Failure

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
TEXTS = st.text()


@given(JSON_VALUES)
def test_the_value_of_a_done_task_comes_back_as_the_same_json_text(value: Any) -> None:
    text = json.dumps(value).encode()
    assert reply.decode_reply(reply.encode_done(text)) == reply.Reply("done", text)


def test_a_task_without_a_value_replies_null() -> None:
    assert reply.decode_reply(reply.encode_done(None)).value == b"null"


def test_what_is_written_is_the_wire_contract() -> None:
    assert json.loads(reply.encode_done(b"[1]")) == {"status": "done", "value": [1]}
    assert json.loads(reply.encode_failed("rejected", Failure("ValueError", "no", "Traceback …"))) == {
        "status": "failed",
        "reason": "rejected",
        "error_type": "ValueError",
        "error": "no",
        "traceback": "Traceback …",
    }


@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_a_failure_comes_back_with_its_texts(reason: str, error_type: str, text: str, traceback: str) -> None:
    found = reply.decode_reply(reply.encode_failed(reason, Failure(error_type, text, traceback)))
    assert found == reply.Reply("failed", None, reason, error_type, text, traceback)


def test_a_failure_is_cut_to_a_bounded_size_and_a_traceback_keeps_its_end() -> None:
    data = reply.encode_failed("r" * 10**6, Failure("E" * 10**6, "t" * 10**6, "first" + "x" * 10**6 + "last"))
    assert len(data) < 50_000
    assert reply.decode_reply(data).traceback.endswith("last")


def test_a_lone_surrogate_in_an_error_text_is_written_out() -> None:
    assert reply.decode_reply(reply.encode_failed("failed", Failure(text="bad \ud800 name"))).text == "bad \\ud800 name"


@given(JSON_VALUES, st.dictionaries(st.text(), JSON_VALUES), st.booleans(), st.sampled_from([None, 0, 2]))
def test_a_reply_of_another_language_is_read_whatever_its_layout(
    value: Any, more: dict[str, Any], first: bool, indent: int | None
) -> None:
    more = {name: held for name, held in more.items() if name not in ("status", "value")}
    members = {"status": "done", "value": value, **more} if first else {**more, "value": value, "status": "done"}
    found = reply.decode_reply(json.dumps(members, indent=indent, ensure_ascii=False).encode())
    assert found.status == "done"
    assert found.value is not None
    assert json.loads(found.value) == value


def test_a_number_of_another_language_keeps_all_its_digits() -> None:
    assert reply.decode_reply(b'{"value": 0.1000000000000000055511151231257827, "status": "done"}').value == (
        b"0.1000000000000000055511151231257827"
    )


def test_the_last_of_two_members_with_one_name_counts() -> None:
    assert reply.decode_reply(b'{"status":"done","value":1,"value":2}').value == b"2"
    assert reply.decode_reply(b'{"status":"done","value":1,"status":"failed","reason":"no"}').status == "failed"


def test_a_failure_needs_no_more_than_its_reason() -> None:
    assert reply.decode_reply(b'{"status": "failed", "reason": "timeout"}') == reply.Reply("failed", None, "timeout")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"done"',
        b"{}",
        b'{"status":"done"}',
        b'{"status":"done","value":}',
        b'{"status":"done","value":1',
        b'{"status":"done","value":1}}',
        b'{"status":"done","value":1,}',
        b'{"status":"done","value":"\\ud800"}',
        b'{"status":"maybe","value":1}',
        b'{"status":1,"value":1}',
        b'{"status":null}',
        b'{"status":"failed"}',
        b'{"status":"failed","reason":1}',
        b'{"status":"failed","reason":"r","error":{}}',
        b'{"value":1}',
        b"\xff\xfe",
        b'{"status":"done","value":"\xff"}',
        b"\x80\x04K\x01.",
        b'{"status":"done","value":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"status": "done", "value":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
        b"[" * 1_000_000,
        b'{"status": "done", "value": ' + b"9" * 1_000_000 + b"}",
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda data: repr(data[:40]),
)
def test_a_hostile_reply_is_refused_with_one_clear_error(data: bytes) -> None:
    with pytest.raises(MalformedReply, match="cannot be read") as caught:
        reply.decode_reply(data)
    assert len(str(caught.value)) < 700


@given(st.binary())
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for hostile in (data, b'{"status":"done","value":' + data + b"}", b'{"status": "failed", "reason":' + data + b"}"):
        with contextlib.suppress(AmqpWorkerError):
            reply.decode_reply(hostile)
