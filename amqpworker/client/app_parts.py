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
    from amqpworker.results.store import ResultStore


class AppParts(NamedTuple):
    """
    The URL of the broker, what sends there, the URL of the result store, and the store of each URL.

    `no_broker` is why `dead`, `pending` and `queues` of the app cannot be used; "" if they can.
    """

    url: str
    addresses: Sequence[Address]
    producer: Producer
    async_made: dict[None, AsyncProducer]
    results: str | None
    stores: dict[str, ResultStore]
    no_broker: str = ""
