"""What a command to a scheduler looks like on the wire."""

from __future__ import annotations

import json
from typing import Literal

import pytest

from amqpworker.routing.schedule_messages import Command, publication_of_command
from amqpworker.routing.topology import Names

NOW = 1_790_000_000.5
NAMES = Names("acme")


def test_a_list_expires_when_its_sender_no_longer_waits() -> None:
    publication = publication_of_command(Command("list", "main"), "c-1", 2.0, NAMES, NOW)
    assert (publication.exchange, publication.routing_key, publication.mandatory) == ("acme.schedule", "main", True)
    assert publication.body == b"{}"
    properties = publication.properties
    assert (properties.type, properties.correlation_id, properties.delivery_mode) == ("list", "c-1", 2)
    assert (properties.reply_to, properties.expiration) == ("amq.rabbitmq.reply-to", "2000")
    assert properties.headers == {
        "aw-first-sent": "2026-09-21T14:13:20.500Z",
        "aw-expires": "2026-09-21T14:13:22.500Z",
    }


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_pause_or_a_resume_names_its_schedule_and_does_not_expire(command: Literal["pause", "resume"]) -> None:
    publication = publication_of_command(Command(command, "main", "nächtlich"), "c-1", 2.0, NAMES, NOW)
    assert publication.properties.type == command
    assert json.loads(publication.body) == {"schedule": "nächtlich"}
    assert publication.properties.headers == {"aw-first-sent": "2026-09-21T14:13:20.500Z"}
    assert publication.properties.expiration is None


def test_each_command_has_an_id_of_its_own() -> None:
    ids = {publication_of_command(Command("list", "main"), "c", 2.0, NAMES, NOW).properties.message_id for _ in "ab"}
    assert len(ids) == 2
