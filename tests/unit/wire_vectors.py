"""
The vectors of the wire contract, as our code produces them: what `docs/wire-vectors.json` must be.

    python -m tests.unit.wire_vectors > docs/wire-vectors.json
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from amqpworker.model.cancel import Cancel, holds_until
from amqpworker.model.headers import now_text, time_of, time_text
from amqpworker.model.message import Delivery, Message, Properties, Publication
from amqpworker.model.outcome import Dead, Failure
from amqpworker.model.progress import Progress, encode_progress
from amqpworker.model.reply import encode_done, encode_failed
from amqpworker.results import ResultRow
from amqpworker.routing import envelope
from amqpworker.routing.cancel_messages import publication_of_cancel
from amqpworker.routing.delay import MAX_DELAY, route, units
from amqpworker.routing.topology import Names
from amqpworker.schedules.tick import tick_id

NAMES = Names("amqpworker")
NOW = 1_790_000_000.5
ID = "0199f2c3-1d2e-7a3b-8c4d-5e6f70819203"
CALL = "c-1"
BODY = '{"user_id":42,"lang":"fr"}'
TASK, QUEUE = "shop.send_welcome", "emails"
DELAYS = (0, 0.001, 0.125, 0.126, 1, 1.5, 2.5, 10, 60, 90.1, 3600, 86400, 31536000, MAX_DELAY)
TIMES: tuple[Any, ...] = (
    *("2026-11-28T23:59:59.123Z", "2026-11-28T23:59:59Z", "2026-11-29T01:59:59.123+02:00"),
    *("2026-11-28T18:29:59.123456-05:30", "20261128T235959Z", "1795910399123", 1795910399123, 0),
    *("2026-11-28T23:59:59.123", "2026-11-28", "tomorrow", "", 1795910399123.5, None, True, [], "20261128"),
)
FAILURE = Failure("OSError", "no route", "Traceback (most recent call last): …")
TICKS = (
    ("amqpworker", "main", "nightly", "2026-11-28T23:59:59.123Z"),
    ("amqpworker", "main", "every-minute", "2026-11-29T00:00:00.000Z"),
    ("acme", "reports", "nächtlich", "1970-01-01T00:00:00.000Z"),
)
MALFORMED_REPLIES = ("", "[]", "42", '{"status": "done"}', '{"status": "failed"}', '{"status": "lost", "value": 1}')
RETURNS = (
    ("the second of three", ["a", "b", "c"], ["b"], {"a": "confirmed", "b": "returned", "c": "confirmed"}),
    (
        "the last two, in another order",
        ["a", "b", "c"],
        ["c", "b"],
        {"a": "confirmed", "b": "returned", "c": "returned"},
    ),
    ("one that is not on its way", ["a", "b"], ["z"], {"a": "confirmed", "b": "confirmed"}),
)
STORED_FIELDS = (
    "id",
    "state",
    "task",
    "reply",
    "first_sent",
    "stored_at",
    "expires_at",
    "attempt",
    "worker",
    "started_at",
    "progress",
)
NO_ROUTE = {"reply_code": 312, "reply_text": "NO_ROUTE"}


def delivery(**headers: Any) -> Delivery:
    """Return a call as a worker receives it: its third attempt, with a header of the sender's."""
    properties = Properties(
        content_type="application/json",
        type=TASK,
        message_id=ID,
        correlation_id=CALL,
        reply_to="replies",
        headers={"aw-first-sent": now_text(NOW), "aw-attempt": 3, "tenant": "acme", **headers},
        delivery_mode=2,
        timestamp=int(NOW),
    )
    return Delivery(1, False, NAMES.tasks, QUEUE, properties, BODY.encode())


def shown(publication: Publication) -> dict[str, Any]:
    """Return a publication as the vectors have it."""
    properties = publication.properties.present()
    headers = properties.pop("headers", {})
    return {
        "exchange": publication.exchange,
        "routing_key": publication.routing_key,
        "mandatory": publication.mandatory,
        "properties": properties,
        "headers": headers,
        "body": publication.body.decode(),
    }


def sent() -> Iterator[dict[str, Any]]:
    """Yield what a sender publishes, from what it is given."""
    message = {"task": TASK, "queue": QUEUE, "body": BODY, "id": ID}
    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("a message", {}),
        ("a message with a delay", {"delay": 1.5}),
        (
            "a message with a delay, an expiry and a header",
            {"delay": 90.1, "expires": 600, "headers": {"tenant": "acme"}},
        ),
        ("a message for version 2 of its task", {"version": 2}),
    )
    for name, options in cases:
        kept = {key: value for key, value in options.items() if key != "version"}
        if "version" in options:
            kept["headers"] = {"aw-version": options["version"]}
        publication = envelope.publication_of_send(Message(TASK, QUEUE, BODY.encode(), ID, **kept), NAMES, NOW, "shop")
        yield {"name": name, "given": {"now": now_text(NOW), **message, **options}, "message": shown(publication)}
    call = envelope.publication_of_call(Message(TASK, QUEUE, BODY.encode(), ID), CALL, 5.0, NAMES, NOW, "shop")
    given = {"now": now_text(NOW), **message, "timeout": 5, "correlation_id": CALL}
    yield {"name": "a call", "given": given, "message": shown(call)}


def cancels() -> Iterator[dict[str, Any]]:
    """Yield the cancel of a message that is due now, and of one that is due later than in an hour, which waits itself."""
    milliseconds = int(NOW * 1000)
    for name, delay in (("of a message that is due", 0), ("of a message that is due in a day", 86_400)):
        cancel = Cancel(ID, milliseconds, holds_until(NOW + delay, NOW), False)
        publication = publication_of_cancel(cancel, NOW + delay, NAMES, NOW, "shop")
        publication.properties.message_id = None
        given = {"now": now_text(NOW), "id": ID, "due": now_text(NOW + delay)}
        read = {"id": ID, "at": milliseconds, "until": cancel.until, "force": False}
        yield {"name": name, "given": given, "message": shown(publication), "read": read}


def replies() -> Iterator[dict[str, Any]]:
    """Yield the reply to the call, in each form, and what its caller reads."""
    for name, body, read in (
        (
            "done",
            encode_done(b'"user 42 was welcomed in fr"'),
            {"status": "done", "value": "user 42 was welcomed in fr"},
        ),
        ("done, without a value", encode_done(None), {"status": "done", "value": None}),
        ("failed", encode_failed("failed", FAILURE), failed("failed")),
        (
            "rejected before it ran",
            encode_failed("unknown-task", Failure("", "", "")),
            failed("unknown-task", "", "", ""),
        ),
    ):
        yield {"name": name, "message": shown(envelope.publication_of_reply(delivery(), body)), "read": read}
    for body in (
        b'{"value": {"a": [1.0, 2]}, "status": "done", "more": 1}',
        b'{"reason": "failed", "status": "failed"}',
    ):
        value = json.loads(body)
        read = {"status": "done", "value": value["value"]} if "value" in value else failed("failed", "", "", "")
        yield {"name": "written by another program", "message": {"body": body.decode()}, "read": read}
    for text in MALFORMED_REPLIES:
        yield {"name": "malformed", "message": {"body": text}, "read": None}


def failed(
    reason: str, kind: str = "OSError", text: str = "no route", traceback: str = FAILURE.traceback
) -> dict[str, str]:
    return {"status": "failed", "reason": reason, "error_type": kind, "error": text, "traceback": traceback}


def stored() -> Iterator[dict[str, Any]]:
    """Yield what a result store keeps of the call, and what is read of it."""
    cancelled = Failure("", "the message was cancelled before its task started")
    refused = Failure("amqpworker.errors.InvalidResult", "a set is not JSON")
    for name, state, reply, read in (
        ("sent", "sent", b"", None),
        ("running", "running", b"", None),
        (
            "done",
            "done",
            encode_done(b'"user 42 was welcomed in fr"'),
            {"status": "done", "value": "user 42 was welcomed in fr"},
        ),
        (
            "done, and the result was refused",
            "done",
            encode_failed("result-refused", refused),
            failed("result-refused", refused.error_type, refused.text, ""),
        ),
        ("failed", "failed", encode_failed("failed", FAILURE), failed("failed")),
        (
            "cancelled",
            "cancelled",
            encode_failed("cancelled", cancelled),
            failed("cancelled", cancelled.error_type, cancelled.text, ""),
        ),
    ):
        row = ResultRow(ID, state, TASK, reply, now_text(NOW), NOW + 60, NOW + 60 + 86_400)
        progress = None
        if state in {"running", "done"}:
            progress = Progress(2, 4, "importing")
            row = row._replace(attempt=2, worker="web-1:4711", started_at=NOW + 30, progress=encode_progress(progress))
        texts = {"reply": reply.decode(), "progress": row.progress.decode()}
        shown_row = {field: getattr(row, field) for field in STORED_FIELDS}
        read_progress = None if progress is None else asdict(progress)
        yield {"name": name, "row": {**shown_row, **texts}, "read": read, "progress": read_progress}


def dead_letters() -> Iterator[dict[str, Any]]:
    """Yield the dead letters of the call, and what is read of them."""
    for reason, failure in (("failed", FAILURE), ("malformed", Failure("InvalidArguments", "no user_id", ""))):
        letter = envelope.dead_lettered(delivery(), Dead(reason, failure), ID, "web-1:4711", NAMES, NOW + 60)
        read = {
            "id": ID,
            "task": TASK,
            "reason": reason,
            "error_type": failure.error_type,
            "error": failure.text,
            "attempt": 3,
            "first_sent": now_text(NOW),
            "failed_at": now_text(NOW + 60),
            "worker": "web-1:4711",
        }
        yield {"name": reason, "message": shown(letter), "read": read}


def returns() -> Iterator[dict[str, Any]]:
    """Yield what a channel with confirms receives, and what each message on its way has become."""
    for name, ids, returned, outcome in RETURNS:
        received = [{"method": "basic.return", "message_id": one, **NO_ROUTE} for one in returned]
        received.append({"method": "basic.ack", "delivery_tag": len(ids), "multiple": True})
        yield {"name": name, "published": ids, "received": received, "outcome": outcome}


def times() -> Iterator[dict[str, Any]]:
    for value in TIMES:
        milliseconds = time_of(value)
        written = None if milliseconds is None else time_text(milliseconds)
        yield {"value": value, "milliseconds": milliseconds, "written": written}


def delays() -> Iterator[dict[str, Any]]:
    for delay in DELAYS:
        way = route(NAMES, delay)
        yield {"delay": delay, "units": units(delay), "exchange": way.exchange, "headers": list(way.headers)}


def ticks() -> Iterator[dict[str, Any]]:
    for namespace, scheduler, schedule, nominal in TICKS:
        milliseconds = time_of(nominal)
        assert milliseconds is not None
        found = tick_id(namespace, scheduler, schedule, milliseconds)
        yield {"namespace": namespace, "scheduler": scheduler, "schedule": schedule, "nominal": nominal, "id": found}


def vectors() -> dict[str, list[dict[str, Any]]]:
    """Return all vectors, by what they are about."""
    parts = (sent, replies, stored, dead_letters, cancels, returns, delays, times, ticks)
    return {part.__name__: list(part()) for part in parts}


def written() -> str:
    """Return the file: one vector a line."""
    parts = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in found) + "\n]"
        for name, found in vectors().items()
    ]
    return '{\n"contract": 1,\n' + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    print(written(), end="")
