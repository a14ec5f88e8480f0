"""
Take deliveries from the consumer and hand them to the runner threads.

Decides when an unstarted delivery is requeued: when the worker drains, when another process has a thread for it, and before
the broker's ack timeout would close its channel with every delivery on it. Where a delivery runs that may have crashed a
process is decided by `crashes`, and by the supervisor that `suspects` asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, assert_never

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.log.logger import get_logger
from amqpworker.model.message import CRASHES, DEAD_REASON, Delivery
from amqpworker.model.outcome import Republish
from amqpworker.routing.envelope import replayed
from amqpworker.worker.isolation.crashes import NO_HEADERS, RedeliveryAction, redelivery_action
from amqpworker.worker.isolation.suspects import SuspectQuery
from amqpworker.worker.limits.ack_timeout_report import log_late
from amqpworker.worker.settle import Settler

__all__ = ["DeliveryReceiver"]

log = get_logger(__name__)

CHECK_SECONDS = 1.0
# What has waited for this long is requeued for an idle process.
UNSTARTED_SECONDS = 5.0
# Not before all other busy processes hold the queue as well: each of them looks a few times per second.
HELD_SECONDS = 1.0


class Takes(Protocol):
    """What is needed of the runners."""

    put: Callable[[Delivery], None]
    put_isolated: Callable[[Delivery], None]

    def let_go(self) -> None:
        """Drop the deliveries that were taken back before they began."""

    def running_on(self, channel: ConsumerChannel) -> list[tuple[Delivery, float]]:
        """Return the deliveries of a channel whose tasks run, and for how many seconds."""


class DeliveryReceiver:
    """
    The receiver of a worker process; all of it runs in the consumer's I/O thread, `drain` and `on_verdict` aside.

    `ask` asks the supervisor about messages that were delivered before; None where there is no supervisor. `wake` has
    `settle` called soon.
    """

    def __init__(
        self,
        runners: Takes,
        settler: Settler,
        ack_timeout: float,
        ask: Callable[[tuple[str, ...]], bool] | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._put = runners.put
        self._put_isolated = runners.put_isolated
        self._let_go = runners.let_go
        self._running_on = runners.running_on
        self._supervised = ask is not None
        self._inquiry = SuspectQuery(ask, self._put, self._isolate, wake)
        self.on_verdict = self._inquiry.on_verdict
        self._settler = settler
        # Half of it: the other half is for the task that is begun last.
        self._patience = ack_timeout / 2
        self._channels: set[ConsumerChannel] = set()
        self._draining = False
        self._next_check = 0.0

    def on_channel_opening(self, channel: ConsumerChannel) -> None:
        """Prepare for the deliveries of a new channel."""
        self._channels.add(channel)

    def on_delivery(self, delivery: Delivery) -> None:
        """Hand a delivery to the runners; one that may have taken a process down is looked at first."""
        headers = delivery.properties.headers or NO_HEADERS
        if DEAD_REASON in headers:
            # Before anything is decided by what it once was.
            headers = delivery.properties.headers = replayed(headers, time.time())
        if delivery.redelivered or CRASHES in headers:
            self._triage(delivery)
        else:
            self._put(delivery)

    def _triage(self, delivery: Delivery) -> None:
        delivery.channel.mark_redelivered(delivery)
        match redelivery_action(delivery, self._supervised):
            case RedeliveryAction.RUN:
                self._put(delivery)
            case RedeliveryAction.ASK:
                self._inquiry.ask_about(delivery)
            case RedeliveryAction.ISOLATE:
                self._isolate(delivery)
            case RedeliveryAction.RENEW:
                if delivery.channel.claim(delivery):
                    self._settler.settle(delivery, Republish())
            case triage:
                assert_never(triage)

    def _isolate(self, delivery: Delivery) -> None:
        delivery.channel.mark_suspect(delivery)
        self._put_isolated(delivery)

    def on_ack_timeout(self, channel: ConsumerChannel, timeout: float, reason: str) -> None:
        """Name what runs for longer than the ack timeout, for the `reason` that the channel is lost."""
        log_late(self._running_on(channel), timeout, reason)

    def on_channel_lost(self, channel: ConsumerChannel) -> None:
        """Forget the deliveries of a channel that is gone."""
        self._channels.discard(channel)
        self._let_go()

    def on_wake(self) -> None:
        """Tell the broker what was settled, and ask the supervisor about what has come again."""
        self._settler.flush()
        self._inquiry.flush()
        if self._draining:
            self._requeue_unclaimed(time.monotonic())

    def drain(self) -> None:
        """Give back what has not started, from now on."""
        self._draining = True

    def on_tick(self) -> bool:
        """Give back what has waited unstarted for too long; true while deliveries are here."""
        now = time.monotonic()
        self._settler.copies.try_again(now)
        self._inquiry.look(now)
        if self._draining:
            self._settler.flush()
            self._requeue_unclaimed(now)
        elif now >= self._next_check:
            self._next_check = now + min(CHECK_SECONDS, self._patience / 4)
            if count := self._requeue_unclaimed(now - self._patience):
                reason = "the ack timeout is near"
                log.warning("deliveries_requeued", count=count, waited=self._patience, reason=reason)
            if count := self._requeue_for_others(now):
                reason = "another process has an idle thread"
                log.info("deliveries_requeued", count=count, waited=UNSTARTED_SECONDS, reason=reason)
        waiting = any(channel.unclaimed for channel in self._channels) or self._settler.copies.waiting
        return waiting or self._draining

    def _requeue_for_others(self, now: float) -> int:
        """Requeue what waits behind long tasks, each message once: what was delivered before stays."""
        count = 0
        for channel in list(self._channels):
            if channel.held_since and channel.held_since + HELD_SECONDS <= now:
                count += self._settler.requeue_unclaimed(channel, now - UNSTARTED_SECONDS, keep_redelivered=True)
        if count:
            self._let_go()
        return count

    def _requeue_unclaimed(self, before: float) -> int:
        count = sum(self._settler.requeue_unclaimed(channel, before) for channel in list(self._channels))
        if count:
            self._let_go()
        return count
