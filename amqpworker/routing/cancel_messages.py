"""
Which publication a cancel becomes: an entry of the stream of cancels, which all worker processes read (docs/wire.md).

Decides when it is to arrive: the stream keeps eight days, so the cancel of a message that is due later than in an hour waits
in the delay ladder, as its message does, and arrives an hour before it.
"""

from __future__ import annotations

from amqpworker.model.cancel import Cancel, encode_cancel
from amqpworker.model.message import JSON, PERSISTENT, Properties, Publication, new_id
from amqpworker.routing import delay as ladder
from amqpworker.routing.topology import Names

TYPE = "cancel"
"""The `type` of each entry."""

LEAD = 3600.0
"""Seconds before the due time of its message at which a cancel arrives in the stream."""


def waits(due: float | None, now: float) -> float:
    """Return the seconds that a cancel waits in the delay ladder, for a message that is `due` then (seconds since the epoch)."""
    return ladder.clamp((due or now) - LEAD - now)


def publication_of_cancel(
    cancel: Cancel, due: float | None, names: Names, now: float, app_id: str | None = None
) -> Publication:
    """Return a cancel as a message for the stream; `due` is as in `waits`."""
    route = ladder.route(names, waits(due, now))
    properties = Properties(
        content_type=JSON,
        headers={**route.headers} or None,
        delivery_mode=PERSISTENT,
        message_id=new_id(),
        type=TYPE,
        timestamp=int(now),
        app_id=app_id,
    )
    return Publication(route.exchange, names.cancelled, properties, encode_cancel(cancel))
