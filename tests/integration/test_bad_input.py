"""Messages that should not have been sent: each becomes a dead letter with its reason, and the next message runs."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pika

from amqpworker import App, current
from tests import rawclient
from tests.rawclient import RawClient, properties, table
from tests.support import Broker, RawMessage, raw_channel, wait_until
from tests.workers import running

QUEUE = "work"
TASKS = "amqpworker.tasks"
JSON = "application/json"


def add_tasks(app: App) -> list[Any]:
    """Give the app a task for each kind of parameter, and return the list that their runs go to."""
    ran: list[Any] = []

    @app.task(name="number", queue=QUEUE)
    def number(n: int) -> None:
        ran.append(n)

    @app.task(name="text", queue=QUEUE)
    def text(t: str) -> None:
        ran.append(t)

    @app.task(name="anything", queue=QUEUE)
    def anything(a: Any) -> None:
        ran.append(a)

    @app.task(name="nothing", queue=QUEUE)
    def nothing() -> None:
        ran.append(None)

    return ran


BODIES: dict[str, tuple[str | None, bytes]] = {
    "empty": ("nothing", b""),
    "not JSON": ("nothing", b"hello"),
    "truncated": ("number", b'{"n": 1'),
    "two values": ("nothing", b"{} {}"),
    "a list": ("nothing", b"[]"),
    "null": ("nothing", b"null"),
    "NaN": ("number", b'{"n": NaN}'),
    "NaN inside": ("anything", b'{"a": {"b": [NaN]}}'),
    "infinite": ("anything", b'{"a": -Infinity}'),
    "1e999": ("number", b'{"n": 1e999}'),
    "1e999 inside": ("anything", b'{"a": [1e999]}'),
    "lone surrogate": ("text", b'{"t": "\\ud800"}'),
    "lone surrogate inside": ("anything", b'{"a": ["\\udfff"]}'),
    "lone surrogate as a key": ("anything", b'{"a": {"\\ud800": 1}}'),
    "not UTF-8": ("text", b'{"t": "\xff"}'),
    "UTF-16": ("nothing", "{}".encode("utf-16")),
    "nested": ("anything", b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    "nested objects": ("nothing", b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    "a million digits": ("number", b'{"n": ' + b"1" * 1_000_000 + b"}"),
    "a million digits inside": ("anything", b'{"a": [' + b"1" * 1_000_000 + b"]}"),
    "20 MB": ("number", b'{"n": "' + b"x" * 20_000_000 + b'"}'),
    "20 MB that are nothing": ("nothing", b"\0" * 20_000_000),
    "missing parameter": ("number", b"{}"),
    "extra parameter": ("number", b'{"n": 1, "m": 2}'),
    "mistyped parameter": ("number", b'{"n": "one"}'),
    "a million extra parameters": ("nothing", b"{" + b",".join(b'"p%d":1' % n for n in range(100_000)) + b"}"),
}

# Else it would wait for newer workers first, if it has more than these know.
LONG_UNKNOWN = {"aw-unknown-since": 1_000}

PROPERTIES: dict[str, dict[str, Any]] = {
    "pickle": {"type": "nothing", "content_type": "application/x-python-serialize"},
    "compressed": {"type": "nothing", "content_type": JSON, "content_encoding": "gzip"},
    "an encoding": {"type": "nothing", "content_type": JSON, "content_encoding": "utf-8"},
    "no type": {"content_type": JSON},
    "unknown type": {"type": "no.such.task", "content_type": JSON, "headers": LONG_UNKNOWN},
    "expired": {"type": "nothing", "content_type": JSON, "headers": {"aw-expires": 1_000}},
}

REASONS = {"unknown type": "unknown-task", "expired": "expired"}


def letters(broker: Broker, count: int) -> list[RawMessage]:
    """Take so many dead letters over one connection."""
    broker.wait_for_count(f"{QUEUE}.dead", count, timeout=60)
    found = []
    with raw_channel(broker.url) as channel:
        for _ in range(count):
            method, told, body = channel.basic_get(f"{QUEUE}.dead", auto_ack=True)
            found.append(RawMessage(body, told, method.exchange, method.routing_key, method.redelivered))
    return found


def test_each_bad_message_is_a_dead_letter_with_its_reason_and_the_next_one_runs(vhost: Broker, app: App) -> None:
    ran = add_tasks(app)
    sent: dict[str, bytes] = {}
    with running(app, threads=2):
        with raw_channel(vhost.url) as channel:
            channel.confirm_delivery()
            for case, (kind, body) in BODIES.items():
                told = pika.BasicProperties(message_id=case, type=kind, content_type=JSON, headers=LONG_UNKNOWN)
                channel.basic_publish(TASKS, QUEUE, body, told, mandatory=True)
                sent[case] = body
            for case, named in PROPERTIES.items():
                told = pika.BasicProperties(message_id=case, **named)
                channel.basic_publish(TASKS, QUEUE, b"{}", told, mandatory=True)
                sent[case] = b"{}"
            told = pika.BasicProperties(type="number", content_type=JSON)
            channel.basic_publish(TASKS, QUEUE, b'{"n": 7}', told, mandatory=True)
        found = {letter.properties.message_id: letter for letter in letters(vhost, len(sent))}
        wait_until(lambda: ran == [7], 20, "the good message runs, and nothing else")
    assert {case: letter.headers["aw-dead-reason"] for case, letter in found.items()} == {
        case: REASONS.get(case, "malformed") for case in sent
    }
    for case, letter in found.items():
        assert letter.body == sent[case]
        assert letter.headers["aw-error"], f"{case} names the reason"
        assert len(letter.headers["aw-error"]) < 5000, case
        assert letter.properties.delivery_mode == 2
    assert found["compressed"].properties.content_encoding == "gzip"
    assert "'n'" in found["missing parameter"].headers["aw-error"]
    assert vhost.count(QUEUE) == 0


def test_a_hand_made_message_without_id_or_content_type_runs(vhost: Broker, app: App) -> None:
    """As the management UI publishes it: routing key, type, body."""
    ran = add_tasks(app)
    with running(app, threads=1):
        assert vhost.management.publish(vhost.vhost, TASKS, QUEUE, '{"n": 5}', {"type": "number"})
        wait_until(lambda: ran == [5], what="the message runs")
    assert vhost.count(QUEUE) == 0
    assert vhost.count(f"{QUEUE}.dead") == 0


# ---- properties that pika's decoder gives up the connection for -----------------------------------------------------

BIG = struct.pack(">Q", 2**62)
UNREADABLE: dict[str, tuple[bytes, str]] = {
    "type": (properties(b"\xff\xfe"), "property type is not UTF-8"),
    "long type": (properties(b"\xff" * 255), "property type is not UTF-8"),
    "content type": (properties(b"nothing", content_type=b"\xff"), "property content_type is not UTF-8"),
    "name of a header": (properties(b"nothing", table((b"\xff", b"t\x01"))), "the name of header"),
    "inner name": (properties(b"nothing", table((b"o", b"F" + table((b"\xff", b"V"))))), "not UTF-8"),
    "a time beyond the years": (
        properties(b"nothing", table((b"when", b"T" + BIG))),
        f"'when' is a time beyond the year 9999 ({2**62} s)",
    ),
    "a time before 1970": (
        properties(b"nothing", table((b"when", b"T" + struct.pack(">q", -1)))),
        "'when' is a time beyond",
    ),
}
"""What cannot be read; other damage is refused by the broker itself, when it is published."""

UNUSUAL: dict[str, bytes] = {
    "a text that is not UTF-8": properties(b"nothing", table((b"name", b"S" + rawclient.long(b"\xff")))),
    "64 bits unsigned": properties(b"nothing", table((b"big", b"L" + b"\xff" * 8))),
    "64 bits": properties(b"nothing", table((b"big", b"l" + b"\x80" + b"\0" * 7))),
    "floats": properties(
        b"nothing", table((b"single", b"f" + struct.pack(">f", 1.5)), (b"double", b"d" + struct.pack(">d", -2.25)))
    ),
    "nested tables": properties(
        b"nothing",
        table((b"outer", b"F" + table((b"inner", b"A" + rawclient.long(b"t\x01" + b"F" + table())), (b"v", b"V")))),
    ),
    "small numbers": properties(
        b"nothing", table((b"b", b"b\xff"), (b"B", b"B\xff"), (b"s", b"s\xff\xff"), (b"u", b"u\xff\xff"))
    ),
    "bytes": properties(b"nothing", table((b"raw", b"x" + rawclient.long(b"\xff\0")))),
    "a decimal": properties(b"nothing", table((b"price", b"D\x02" + struct.pack(">i", 1999)))),
    "a cluster id": rawclient.with_cluster_id(properties(b"nothing", table((b"tenant", b"t\x01"))), b"reserved"),
    "an empty name": properties(b"nothing", table((b"", b"V"))),
}


def test_properties_that_no_library_would_send_make_dead_letters_and_the_connection_stays(
    vhost: Broker, app: App
) -> None:
    ran = add_tasks(app)
    with running(app, threads=2) as worker:
        connection = worker.process.consumer.keeper.connection
        with RawClient(vhost.url) as client:
            for case, (values, _) in UNREADABLE.items():
                client.publish(TASKS, QUEUE, case.encode(), values)
                # More than one frame, and so cut anywhere by the socket: nothing of it may reach pika.
                client.publish(TASKS, QUEUE, case.encode() + b"\n" * 300_000, values)
            for values in UNUSUAL.values():
                client.publish(TASKS, QUEUE, b"{}", values)
        wait_until(lambda: len(ran) == len(UNUSUAL), 20, "messages with unusual headers run")
        found = letters(vhost, 2 * len(UNREADABLE))
        assert worker.process.consumer.keeper.connection is connection, "the connection was never lost"
    for case, (_, told) in UNREADABLE.items():
        mine = [one for one in found if one.body.decode().strip() == case]
        assert [one.headers["aw-dead-reason"] for one in mine] == ["malformed"] * 2, case
        assert told in mine[0].headers["aw-error"]
    assert vhost.count(QUEUE) == 0


def test_unusual_headers_are_the_same_after_a_retry(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app()
    seen: dict[int, list[dict[str, Any]]] = {}

    @app.task(name="nothing", queue=QUEUE, retry=[0])
    def nothing(case: int) -> None:
        seen.setdefault(case, []).append(current().headers)
        if current().attempt == 1:
            raise ValueError

    with running(app, threads=1):
        with RawClient(vhost.url) as client:
            for number, values in enumerate(UNUSUAL.values()):
                client.publish(TASKS, QUEUE, b'{"case": %d}' % number, values)
        wait_until(lambda: sum(map(len, seen.values())) == 2 * len(UNUSUAL), 20, "two runs of each")
    assert vhost.count(f"{QUEUE}.dead") == 0
    for number, case in enumerate(UNUSUAL):
        first, second = seen[number]
        assert first, case
        assert repr(first) == repr(second), case
