"""Which publication an entry of the stream of pauses becomes."""

from __future__ import annotations

from amqpworker.model.headers import FIRST_SENT, now_text
from amqpworker.model.message import JSON, PERSISTENT, Properties, Publication, new_id
from amqpworker.model.paused import PauseEntry
from amqpworker.routing.topology import Names

PAUSES = "pauses"
"""The `type` of the entries."""


def publication_of_pauses(entry: PauseEntry, names: Names, now: float) -> Publication:
    """Return an entry as a message with an id of its own."""
    properties = Properties(
        content_type=JSON,
        headers={FIRST_SENT: now_text(now)},
        delivery_mode=PERSISTENT,
        message_id=new_id(),
        type=PAUSES,
        timestamp=int(now),
    )
    return Publication(names.control, "", properties, entry.dump())
