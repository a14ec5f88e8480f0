"""
Send the reply to a call, before its message is acknowledged.

Decides that replies are best effort: a message is acknowledged even if its reply was not sent, since its caller has a timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from amqpworker.errors import AmqpWorkerError, InvalidArguments
from amqpworker.hooks import Settled
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Failure
from amqpworker.model.reply import RESULT_REFUSED, encode_failed
from amqpworker.routing import envelope

if TYPE_CHECKING:
    from amqpworker.broker.lane import Lane

log = get_logger(__name__)

REPLY_TIMEOUT = 5.0


class Replying:
    """Sends replies; `acknowledge` is called after each, from any thread."""

    def __init__(self, lane: Lane, acknowledge: Callable[[Settled], None]) -> None:
        self._lane = lane
        self._acknowledge = acknowledge
        self._replying: set[Delivery] = set()

    @property
    def is_idle(self) -> bool:
        """Whether all replies are sent."""
        return not self._replying

    def reply(self, settled: Settled, body: bytes, last: bool = False) -> None:
        """
        Reply, then acknowledge even if the reply was not sent: replies are best effort, and have a timeout.

        If a reply is too large, its caller gets that error instead, unless this is the `last` attempt.
        """
        delivery = settled.delivery
        if not envelope.is_valid_reply_to(delivery.properties.reply_to or ""):
            self._end(settled, "its reply_to is not an address that RabbitMQ makes")
            return

        def on_replied(error: AmqpWorkerError | None) -> None:
            if isinstance(error, InvalidArguments) and not last:
                log.error("result_refused", id=delivery.properties.message_id, size=len(body), reason=str(error))
                self.reply(settled, encode_failed(RESULT_REFUSED, Failure("", str(error))), last=True)
            else:
                self._end(settled, None if error is None else str(error))

        self._replying.add(delivery)
        try:
            self._lane.publish(envelope.publication_of_reply(delivery, body), timeout=REPLY_TIMEOUT, on_done=on_replied)
        except InvalidArguments as error:
            on_replied(error)
        except BaseException:
            self._replying.discard(delivery)
            raise

    def _end(self, settled: Settled, lost: str | None) -> None:
        """Acknowledge, and log why the reply was `lost` if it was."""
        delivery = settled.delivery
        if lost is not None:
            log.warning("reply_lost", id=delivery.properties.message_id, reason=lost)
        self._acknowledge(settled)
        self._replying.discard(delivery)
