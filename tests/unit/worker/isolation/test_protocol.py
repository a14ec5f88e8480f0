"""Messages between a worker and its isolated processes: frames in any pieces, outcomes unchanged, garbage refused."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Done, Failure, Outcome, Retry, Snooze
from amqpworker.worker.context import Run
from amqpworker.worker.isolation.protocol import (
    BEAT,
    HEAD,
    MAX_BYTES,
    OUTCOME,
    READY,
    Frames,
    Unreadable,
    frame,
    outcome_from,
    outcome_to,
    request_to,
    requested,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
FAILURES = st.builds(Failure, TEXT, TEXT, TEXT)
OUTCOMES = st.one_of(
    st.just(Done()),
    st.builds(Done, TEXT.map(str.encode)),
    st.builds(Retry, st.floats(0, 1e9), FAILURES),
    st.builds(Snooze, st.floats(0, 1e9), FAILURES, st.integers(0, 9)),
    st.builds(Dead, TEXT, FAILURES),
)


@given(OUTCOMES)
def test_an_outcome_arrives_unchanged(outcome: Outcome) -> None:
    ((kind, data),) = Frames().feed(outcome_to(outcome))
    assert kind == OUTCOME
    assert outcome_from(data) == outcome


@given(st.lists(st.tuples(st.sampled_from([READY, BEAT, OUTCOME]), st.binary(max_size=50))), st.data())
def test_frames_are_read_from_pieces_of_any_size(sent: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(kind, content) for kind, content in sent)
    frames, found = Frames(), []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found += frames.feed(stream[:cut])
        stream = stream[cut:]
    assert found == sent


@pytest.mark.parametrize("garbage", [b"hello world", HEAD.pack(OUTCOME, MAX_BYTES + 1), HEAD.pack(b"x", 1)])
def test_data_that_is_not_a_frame_is_refused(garbage: bytes) -> None:
    with pytest.raises(Unreadable):
        Frames().feed(garbage)


@given(st.one_of(st.binary(max_size=100), st.binary(max_size=60).map(lambda rest: b"Dead\n" + rest)))
def test_data_that_is_not_an_outcome_raises_unreadable_and_nothing_else(data: bytes) -> None:
    try:
        outcome = outcome_from(data)
    except Unreadable:
        return
    assert isinstance(outcome, Done | Retry | Dead)


@pytest.mark.parametrize("data", [b"", b"Requeue\n{}", b'Dead\n{"reason": 3}', b'Retry\n{"delay": "1"}', b"Done\n{"])
def test_a_malformed_outcome_or_one_that_no_isolated_process_sends_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        outcome_from(data)


def test_a_request_carries_the_message_with_its_headers_and_not_its_connection() -> None:
    headers = {
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "price": Decimal("1.5"),
        "raw": b"\xff",
        "list": [1, {"a": None}],
    }
    delivery = Delivery(
        7, True, "ex", "key", Properties(headers=headers, type="t", message_id="m"), b'{"a": 1}' * 100_000
    )
    delivery.queue = "work"
    delivery.channel = SimpleNamespace(socket=socket.socket())
    registered: Any = SimpleNamespace(name="t")
    ours, theirs = socket.socketpair()
    import threading

    sender = threading.Thread(
        target=lambda: (ours.sendall(request_to(Run(registered, delivery, "id", 2, 5.0, 4.0))), ours.close())
    )
    sender.start()
    stream = theirs.makefile("rb")
    request = requested(stream)
    sender.join()
    assert request is not None
    got, *rest = request
    assert rest == ["id", 2, 5.0, 4.0]
    assert (got.queue, got.redelivered, got.body) == ("work", True, delivery.body)
    assert not hasattr(got, "channel")
    assert got.properties.headers == headers
    assert requested(stream) is None
    stream.close()
    theirs.close()
    delivery.channel.socket.close()


def test_a_killed_worker_that_left_a_heartbeat_unread_requests_nothing_more() -> None:
    ours, theirs = socket.socketpair()
    with theirs, theirs.makefile("rb") as stream:
        theirs.sendall(frame(BEAT))
        ours.close()
        assert requested(stream) is None
