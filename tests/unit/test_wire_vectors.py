"""The vectors of the wire contract are what our code writes, and our code reads each of them as they state."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App
from amqpworker.broker.amqp.decode import ReturnedMessage
from amqpworker.errors import MalformedReply, Unroutable
from amqpworker.model.cancel import decode_cancel
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.headers import now_text, read_headers, time_of, time_text
from amqpworker.model.message import Delivery, Message, Properties, Publication
from amqpworker.model.progress import Progress, decode_progress
from amqpworker.model.reply import decode_reply, encode_done
from amqpworker.results import ResultRow
from amqpworker.routing import envelope
from amqpworker.routing.delay import longest_wait
from amqpworker.routing.topology import UNIT
from amqpworker.schedules.tick import tick_id
from tests.docs import ROOT
from tests.unit.broker.publishing import Publishing
from tests.unit.wire_vectors import NAMES, QUEUE, written

FILE = ROOT / "docs/wire-vectors.json"
NEW = Path(__file__).parent / "snapshots/wire-vectors.new"
VECTORS: dict[str, Any] = json.loads(FILE.read_text())


def each(part: str) -> pytest.MarkDecorator:
    """Run a test with each vector of a part."""
    numbers = count(1)
    return pytest.mark.parametrize("vector", VECTORS[part], ids=lambda one: one.get("name") or str(next(numbers)))


def delivery_of(vector: dict[str, Any], queue: str = QUEUE) -> Delivery:
    """Return the message of a vector as it is received."""
    message = vector["message"]
    properties = Properties(**message["properties"], headers=message["headers"])
    found = Delivery(1, False, message["exchange"], message["routing_key"], properties, message["body"].encode())
    found.queue = queue
    return found


def test_the_vectors_are_what_our_code_writes() -> None:
    found = written()
    if found != FILE.read_text():
        NEW.write_text(found)
    assert found == FILE.read_text(), f"Other languages depend on it. New: {NEW}"


def test_the_page_names_each_part_of_the_vectors() -> None:
    _, _, section = (ROOT / "docs/wire.md").read_text().partition("\n## Vectors\n")
    assert [part for part in VECTORS if f"`{part}`" not in section.partition("\n## ")[0]] == []


@each("sent")
def test_a_message_that_is_sent_is_read_as_it_was_given(vector: dict[str, Any]) -> None:
    given, delivery = vector["given"], delivery_of(vector)
    now = time_of(given["now"])
    assert now is not None
    app = App()

    @app.task(name=given["task"])
    def task(user_id: int, lang: str = "en") -> None: ...

    assert task.signature.decode(delivery.body).kwargs == json.loads(given["body"]) == {"user_id": 42, "lang": "fr"}
    headers = read_headers(delivery.properties.headers or {})
    assert headers["aw-first-sent"] == now
    assert headers.get("aw-expires") == next(
        (now + given[name] * 1000 for name in ("expires", "timeout") if name in given), None
    )
    assert headers.get("aw-eta") == (now + given["delay"] * 1000 if "delay" in given else None)
    assert headers.get("aw-version") == given.get("version")
    assert (delivery.queue, delivery.properties.message_id) == (given["queue"], given["id"])


@each("cancels")
def test_a_cancel_is_read_as_its_vector_states(vector: dict[str, Any]) -> None:
    assert asdict(decode_cancel(delivery_of(vector).body)) == vector["read"]


def test_the_reply_to_the_call_goes_to_the_queue_that_it_names_with_its_correlation_id() -> None:
    (call,) = [vector for vector in VECTORS["sent"] if vector["name"] == "a call"]
    reply = envelope.publication_of_reply(delivery_of(call), encode_done(b"1"))
    assert reply.exchange == ""
    assert reply.routing_key == call["message"]["properties"]["reply_to"]
    assert reply.properties.correlation_id == call["given"]["correlation_id"]


def as_read(body: bytes) -> dict[str, Any]:
    """Return a reply as the vectors have what is read of it."""
    reply = decode_reply(body)
    if reply.status == "done":
        return {"status": "done", "value": json.loads(reply.value or b"")}
    texts = {"error_type": reply.error_type, "error": reply.text, "traceback": reply.traceback}
    return {"status": "failed", "reason": reply.reason, **texts}


@each("replies")
def test_a_reply_is_read_as_its_vector_states(vector: dict[str, Any]) -> None:
    body = vector["message"]["body"].encode()
    if vector["read"] is None:
        with pytest.raises(MalformedReply):
            decode_reply(body)
    else:
        assert as_read(body) == vector["read"]


@each("stored")
def test_a_stored_row_is_kept_and_read_as_its_vector_states(vector: dict[str, Any], tmp_path: Path) -> None:
    texts = {name: vector["row"][name].encode() for name in ("reply", "progress")}
    row = ResultRow(**{**vector["row"], **texts})
    app = App(results=f"sqlite:///{tmp_path / 'results.db'}")
    store = app.store()
    assert store is not None
    store.put([row])
    assert store.get([row.id]) == {row.id: row}
    store.close()
    assert (decode_progress(row.progress) or None) == (vector["progress"] and Progress(**vector["progress"]))
    if vector["read"] is None:
        assert (row.reply, row.state in {"sent", "running"}) == (b"", True)
        return
    assert as_read(row.reply) == vector["read"]
    reason = vector["read"].get("reason")
    assert row.state == {"cancelled": "cancelled", "result-refused": "done"}.get(reason, vector["read"]["status"])


@each("dead_letters")
def test_a_dead_letter_is_read_as_its_vector_states(vector: dict[str, Any]) -> None:
    letter = DeadLetter.of(delivery_of(vector, f"{QUEUE}.dead"), f"{QUEUE}.dead")
    assert letter.first_sent is not None
    assert letter.failed_at is not None
    times = {"first_sent": letter.first_sent.timestamp(), "failed_at": letter.failed_at.timestamp()}
    read = {name: now_text(times[name]) if name in times else getattr(letter, name) for name in vector["read"]}
    assert read == vector["read"]


@each("returns")
def test_a_return_is_matched_by_the_id_of_its_message(vector: dict[str, Any]) -> None:
    scene = Publishing()
    pending = {}
    for one in vector["published"]:
        properties = Properties(message_id=one)
        pending[one] = scene.publisher.sends.publish(Publication(NAMES.tasks, QUEUE, properties, b"{}"))
    scene.write()
    for event in vector["received"]:
        if event["method"] == "basic.return":
            properties = Properties(message_id=event["message_id"])
            returned = ReturnedMessage(
                1, event["reply_code"], event["reply_text"], NAMES.tasks, QUEUE, properties, b"{}"
            )
            scene.wire.listeners[1].on_return(returned)
        else:
            scene.wire.confirm(event["delivery_tag"], multiple=event["multiple"])
    assert all(one.done for one in pending.values())
    outcome = {
        name: "confirmed" if one.error is None else "returned"
        for name, one in pending.items()
        if one.error is None or isinstance(one.error, Unroutable)
    }
    assert outcome == vector["outcome"]


@each("delays")
def test_a_delay_enters_the_ladder_where_its_vector_states_and_waits_that_long(vector: dict[str, Any]) -> None:
    message = Message("shop.task", QUEUE, b"{}", "1", delay=vector["delay"])
    publication = envelope.publication_of_send(message, NAMES, 1.0)
    headers = [name for name in publication.properties.headers or {} if name.startswith("aw-wait-")]
    assert (publication.exchange, headers) == (vector["exchange"], vector["headers"])
    if headers:
        level = int(vector["exchange"][-2:])
        waits = longest_wait(level, dict.fromkeys(headers, True))
        assert waits == vector["units"] * UNIT
        assert vector["delay"] <= waits < vector["delay"] + UNIT


@each("times")
def test_a_time_is_read_as_its_vector_states(vector: dict[str, Any]) -> None:
    found = time_of(vector["value"])
    assert found == vector["milliseconds"]
    assert vector["written"] == (None if found is None else time_text(found))


@each("ticks")
def test_a_tick_has_the_id_that_its_vector_states(vector: dict[str, Any]) -> None:
    nominal = time_of(vector["nominal"])
    assert nominal is not None
    assert tick_id(vector["namespace"], vector["scheduler"], vector["schedule"], nominal) == vector["id"]
