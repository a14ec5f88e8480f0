"""
What an app sends by and stores results in, as one value.

An app makes its parts from its URLs; tests exchange them for others. Which others is decided in `testing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from amqpworker.broker.address import Address
    from amqpworker.client.async_producer import AsyncProducer
    from amqpworker.client.producer import Producer
    from amqpworker.client.stored_results import StoredResults


class AppParts(NamedTuple):
    """
    The URL of the broker, what sends there, the URL of the result store, and the results of each such URL.

    `no_broker` is why `dead`, `pending` and `queues` of the app cannot be used; "" if they can.
    """

    url: str
    addresses: Sequence[Address]
    producer: Producer
    async_made: dict[None, AsyncProducer]
    results: str | None
    stored_results: dict[str, StoredResults]
    no_broker: str = ""
