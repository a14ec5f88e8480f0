"""
Take deliveries from the consumer and hand them to the runner threads.

Decides when an unclaimed delivery is requeued: when the worker drains, when another process has a thread for it, and before
the broker's ack timeout would close its channel with every delivery on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, assert_never

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.log.logger import get_logger
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.model.headers import CRASHES, DEAD_REASON
from amqpworker.model.message import Delivery
from amqpworker.routing.envelope import replayed
from amqpworker.worker import outcomes
from amqpworker.worker.isolation.suspects import SuspectQuery
from amqpworker.worker.limits.ack_timeout_report import log_late
from amqpworker.worker.redelivery import NO_HEADERS, RedeliveryAction, redelivery_action
from amqpworker.worker.settle import Settler

if TYPE_CHECKING:
    from amqpworker.worker.threads import RunnerThreads

log = get_logger(__name__)

CHECK_SECONDS = 1.0
# What has waited this long is requeued for an idle process.
UNCLAIMED_SECONDS = 5.0
# Not before all other busy processes leave the queue as well: each of them checks that a few times per second.
SUSPENDED_SECONDS = 1.0


class DeliveryReceiver:
    """
    The receiver of a worker process; all of it runs in the consumer's I/O thread, except `drain` and `on_suspect_answer`.

    `ask` asks the supervisor about redelivered messages; it is None if there is no supervisor. After `wake`, the I/O thread calls
    `on_wake`.
    """

    def __init__(
        self,
        runners: RunnerThreads,
        settler: Settler,
        ack_timeout: float,
        ask: Callable[[tuple[str, ...]], bool] | None = None,
        wake: Callable[[], None] = lambda: None,
        clock: Clock = CLOCK,
    ) -> None:
        self._now, self._monotonic = clock
        self._runners = runners
        self._put = runners.put
        self._supervised = ask is not None
        self._suspect_query = SuspectQuery(ask, self._put, self._isolate, wake, clock.monotonic)
        self.on_suspect_answer = self._suspect_query.on_answer
        self._settler = settler
        # Half of it: the other half is for the task that starts last.
        self._patience = ack_timeout / 2
        self._channels: set[ConsumerChannel] = set()
        # How often the consumer of each queue was replaced.
        self._replacements: Counter[str] = Counter()
        self._draining = False
        self._next_check = 0.0

    def on_channel_opening(self, channel: ConsumerChannel) -> None:
        """Prepare for the deliveries of a new channel."""
        self._channels.add(channel)

    def on_replacing(self, queue: str) -> None:
        """Note that the consumer of a queue is replaced: the broker may redeliver what it has just sent to the former one."""
        self._replacements[queue] += 1

    def on_delivery(self, delivery: Delivery) -> None:
        """Hand a delivery to the runner threads, but first check whether it may have crashed a process."""
        headers = delivery.properties.headers or NO_HEADERS
        if DEAD_REASON in headers:
            # Before anything is decided by what it once was.
            headers = delivery.properties.headers = replayed(headers, self._now())
        if delivery.redelivered or CRASHES in headers:
            self._on_redelivery(delivery)
        else:
            self._put(delivery)

    def _on_redelivery(self, delivery: Delivery) -> None:
        match redelivery_action(delivery, self._supervised, self._replacements[delivery.queue]):
            case RedeliveryAction.RUN:
                self._put(delivery)
            case RedeliveryAction.ASK:
                self._suspect_query.ask_about(delivery)
            case RedeliveryAction.ISOLATE:
                self._isolate(delivery)
            case RedeliveryAction.REPUBLISH:
                if delivery.channel.claim(delivery):
                    self._runners.settle(delivery, outcomes.REPUBLISH)
            case action:
                assert_never(action)

    def _isolate(self, delivery: Delivery) -> None:
        delivery.is_suspect = True
        self._runners.put_isolated(delivery)

    def on_ack_timeout(self, channel: ConsumerChannel, timeout: float, reason: str) -> None:
        """Log which tasks run for longer than the ack timeout; `reason` is why the channel is lost."""
        log_late(self._runners.running_on(channel), timeout, reason)

    def on_paused(self, channel: ConsumerChannel) -> None:
        """Requeue what has not started of a queue that is paused and not consumed any more."""
        if count := self._requeue(list(channel.unclaimed.values())):
            log.info(
                "deliveries_requeued", count=count, queue=channel.queue, reason="the queue is not consumed for now"
            )

    def on_channel_lost(self, channel: ConsumerChannel) -> None:
        """Forget the deliveries of a channel that is closed."""
        self._channels.discard(channel)
        self._runners.drop_requeued()

    def on_wake(self) -> None:
        """Send the acknowledgements of what was settled, and ask the supervisor about redeliveries."""
        self._settler.flush()
        self._suspect_query.flush()
        if self._draining:
            self._requeue_unclaimed(self._monotonic())

    def drain(self) -> None:
        """Requeue all unclaimed deliveries, also those that arrive later."""
        self._draining = True

    def on_tick(self) -> bool:
        """Requeue what has been unclaimed for too long; return true while deliveries are here."""
        now = self._monotonic()
        self._settler.copies.try_again(now)
        self._suspect_query.check(now)
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
                log.info("deliveries_requeued", count=count, waited=UNCLAIMED_SECONDS, reason=reason)
        waiting = any(channel.unclaimed for channel in self._channels) or self._settler.copies.has_waiting
        return waiting or self._draining

    def _requeue_for_others(self, now: float) -> int:
        """Requeue what waits behind long tasks, each message once: redelivered messages stay."""
        suspended = [
            one for one in self._channels if one.suspended_since and one.suspended_since + SUSPENDED_SECONDS <= now
        ]
        waiting = [delivery for channel in suspended for delivery in channel.waiting_since(now - UNCLAIMED_SECONDS)]
        return self._requeue(delivery for delivery in waiting if not _ran_before(delivery))

    def _requeue_unclaimed(self, arrived_before: float) -> int:
        return self._requeue(one for channel in self._channels for one in channel.waiting_since(arrived_before))

    def _requeue(self, deliveries: Iterable[Delivery]) -> int:
        """Requeue those that are not claimed meanwhile; return how many."""
        count = 0
        for delivery in deliveries:
            if delivery.channel.claim(delivery):
                self._runners.settle(delivery, outcomes.REQUEUE)
                count += 1
        if count:
            self._settler.flush()
            self._runners.drop_requeued()
        return count


def _ran_before(delivery: Delivery) -> bool:
    """Return whether a message was delivered before, or is the copy of one that crashed its process."""
    return delivery.redelivered or CRASHES in (delivery.properties.headers or NO_HEADERS)
