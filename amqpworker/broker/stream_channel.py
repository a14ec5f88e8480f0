"""
The channel of one subscription to a stream: it acknowledges, and notices that nothing is delivered any more.

Without acknowledgements a stream stops. What it does not support, nack and get among others, ends the whole connection.
"""

from __future__ import annotations

from collections.abc import Callable

from amqpworker.broker.connection import ChannelListener
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.model.message import Delivery

# A broker delivers whole chunks while fewer than this are not acknowledged.
PREFETCH = 2000
ACK_EVERY = 500
ACK_WITHIN = 0.1


class StreamChannel(ChannelListener):
    """
    One subscription to a stream, from the opening of its channel to its end.

    `is_probe` is whether it only shows where the stream ends; `last_offset` is that of its last delivery, -1 before the first.
    """

    def __init__(
        self, offset: int | str, is_probe: bool, keeper: IOThread, on_delivery: Callable[[Delivery], None]
    ) -> None:
        self.offset = offset
        self.is_probe = is_probe
        self.channel: PikaChannel | None = None
        self.last_offset = -1
        self.wait_until = 0.0
        """Until when further entries of the end of the stream may arrive (monotonic)."""
        self._keeper = keeper
        self._on_delivery = on_delivery
        self._checked_offset: int | None = None
        self._count: int | None = None
        self._acked = self._to_ack = 0
        self._ack_is_planned = False

    def on_delivery(self, delivery: Delivery) -> None:
        """Take an entry."""
        self._on_delivery(delivery)

    def acknowledge(self, tag: int) -> None:
        """Acknowledge all deliveries up to this one, soon."""
        self._to_ack = tag
        if tag - self._acked >= ACK_EVERY:
            self._write_ack()
        elif not self._ack_is_planned:
            self._ack_is_planned = True
            self._keeper.call_later(ACK_WITHIN, self._on_ack_due)

    def _on_ack_due(self) -> None:
        self._ack_is_planned = False
        if self._to_ack > self._acked:
            self._write_ack()

    def _write_ack(self) -> None:
        self._acked = self._to_ack
        if self.channel is not None and self.channel.is_open:
            self.channel.ack(self._acked, multiple=True)
            self.channel.flush()

    def is_stuck(self, count: int | None) -> bool:
        """
        Return, at each check, whether the stream has more messages than before although nothing was delivered meanwhile.

        The count that is compared with is the one of the second check without a delivery: the broker's counts are late.
        """
        if self._checked_offset != self.last_offset:
            self._checked_offset, self._count = self.last_offset, None
        elif self._count is None:
            self._count = count
        return self._count is not None and count is not None and count > self._count
