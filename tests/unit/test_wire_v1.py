"""Version 1 of the wire contract equals its snapshot: messages to the byte, and the topology."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Literal

from amqpworker.broker.amqp.encode import encode_publish
from amqpworker.model.message import Delivery, Message, Properties, Publication
from amqpworker.model.outcome import Dead, Failure
from amqpworker.model.reply import encode_done, encode_failed
from amqpworker.routing import envelope
from amqpworker.routing.schedule_messages import Command, publication_of_command
from amqpworker.routing.topology import Names, base, ladder, scheduler, work_queue

SNAPSHOT = Path(__file__).parent / "snapshots" / "wire_v1.json"
NAMES = Names("amqpworker")
NOW = 1_790_000_000.5
ID = "0199-an-id"
CHANNEL, FRAME_MAX = 1, 131_072


def message(**given: Any) -> Message:
    return Message("shop.send_welcome", "emails", b'{"user_id":42}', ID, **given)


def delivery() -> Delivery:
    """A message as a worker gets it: its third attempt, from a caller, with a header of the sender's."""
    headers = {"aw-first-sent": "2026-09-21T14:13:20.500Z", "aw-attempt": 3, "tenant": "acme"}
    properties = Properties(
        content_type="application/json",
        type="shop.send_welcome",
        message_id=ID,
        correlation_id="c-1",
        reply_to="replies",
        headers=headers,
        delivery_mode=2,
    )
    return Delivery(1, False, "amqpworker.tasks", "emails", properties, b'{"user_id":42}')


def publications() -> dict[str, Publication]:
    failure = Failure("OSError", "no route", "Traceback: …")
    return {
        "sent": envelope.publication_of_send(message(), NAMES, NOW, "shop"),
        "sent with a delay, an expiry and a header": envelope.publication_of_send(
            message(delay=90.1, expires=600.0, headers={"tenant": "acme"}), NAMES, NOW
        ),
        "called": envelope.publication_of_call(message(), "c-1", 5.0, NAMES, NOW),
        "retried": envelope.retried(delivery(), 1.5, envelope.RunIdentity(ID, 4, NOW - 60), NAMES, NOW),
        "retried after a crash": envelope.retried(delivery(), 0, envelope.RunIdentity(ID, 3, NOW - 60), NAMES, NOW, 1),
        "postponed": envelope.postponed(delivery(), 10.0, ID, NAMES, NOW),
        "republished": envelope.republished(delivery(), NAMES),
        "dead": envelope.dead_lettered(delivery(), Dead("failed", failure), ID, "host:1", NAMES, NOW),
        "replied": envelope.publication_of_reply(delivery(), encode_done(b"42")),
        "replied with a failure": envelope.publication_of_reply(delivery(), encode_failed("failed", failure)),
        "paused": command("pause", "nightly"),
        "resumed": command("resume", "nightly"),
        "listed": command("list"),
    }


def command(kind: Literal["pause", "resume", "list"], schedule: str = "") -> Publication:
    publication = publication_of_command(Command(kind, "main", schedule), "c-1", 2.0, NAMES, NOW)
    publication.properties.message_id = ID
    return publication


def described(publication: Publication) -> dict[str, Any]:
    properties = {
        field.name: value
        for field in fields(publication.properties)
        if (value := getattr(publication.properties, field.name)) is not None
    }
    return {
        "exchange": publication.exchange,
        "routing_key": publication.routing_key,
        "mandatory": publication.mandatory,
        "properties": properties,
        "body": publication.body.decode(),
        "frames": encode_publish(publication, CHANNEL, FRAME_MAX).hex(),
    }


def wire() -> str:
    topology = base("amqpworker") + ladder("amqpworker") + work_queue("amqpworker", "emails")
    topology += scheduler("amqpworker", "main")
    found = {
        "messages": {name: described(one) for name, one in publications().items()},
        "topology": asdict(topology),
    }
    return json.dumps(found, indent=1, ensure_ascii=False, default=str) + "\n"


def test_version_1_of_the_wire_is_that_of_the_snapshot() -> None:
    found = wire()
    if found != SNAPSHOT.read_text():
        SNAPSHOT.with_suffix(".new").write_text(found)
    assert found == SNAPSHOT.read_text(), f"Users and other languages depend on it. New: {SNAPSHOT.with_suffix('.new')}"
