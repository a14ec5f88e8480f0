"""
Act on how a delivery ended: the only place that acknowledges.

The order is the promise (docs/guarantees.md): a copy is confirmed before its original is acknowledged, a result is
stored and a reply has left before that too. Every branch settles its message. It decides nothing: `executor` did.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, repeat
from logging import DEBUG, INFO
from typing import Protocol, assert_never

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.broker.labels import process_name
from amqpworker.broker.pending_publish import PendingPublish, WhenDone
from amqpworker.errors import AmqpWorkerError, InvalidArguments, ResultStoreError
from amqpworker.ipc.recorder import Counts
from amqpworker.log.logger import get_logger
from amqpworker.model.headers import UnusableHeader, read_headers, time_of, time_text
from amqpworker.model.message import FIRST_SENT, Delivery, DeliveryChannel, Publication, new_id
from amqpworker.model.outcome import Dead, Discarded, Done, Failure, Outcome, Republish, Requeue, Retry
from amqpworker.model.reply import done as done_answer
from amqpworker.model.reply import failed as failed_answer
from amqpworker.results.store import ResultNotStorable, ResultStore
from amqpworker.routing.envelope import answered, can_answer, dead_lettered, letters, renewed, retried
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings
from amqpworker.worker.context import Run
from amqpworker.worker.executor import attempt_and_first_run
from amqpworker.worker.republish import Publishes, Republication, Republisher

__all__ = ["Settler", "Surroundings", "worker_name"]

log = get_logger(__name__)

REPLY_TIMEOUT = 5.0
MOST_LOGGED = 200
RESULT_REFUSED = "result-refused"
STORE_PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)


class Replies(Protocol):
    """What is needed of the publisher's lane for replies."""

    def publish(
        self,
        publication: Publication,
        needs: tuple[str, ...] = (),
        timeout: float | None = None,
        when_done: WhenDone | None = None,
    ) -> PendingPublish:
        """Put a publication on its way."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a settler works with: the publisher's lanes for copies and for replies, among others."""

    copies: Publishes
    replies: Replies
    store: ResultStore | None
    plan: Plan
    settings: Settings


class Settler:
    """
    Settles deliveries.

    `settle` is called by runner threads. `begin`, `flush`, `end` and `requeue_…` belong to the consumer's I/O thread.
    """

    def __init__(self, surroundings: Surroundings, wake: Callable[[], None]) -> None:
        self._replies = surroundings.replies
        self._store = surroundings.store
        self._names = surroundings.plan.names
        self._result_ttl = surroundings.settings.result_ttl
        self._done_level = INFO if surroundings.settings.log_tasks == "all" else DEBUG
        timeout = surroundings.settings.send_timeout
        self.copies = Republisher(surroundings.copies, timeout, surroundings.plan.worker_needs, wake)
        self._wake = wake
        self._worker = worker_name()
        self._acks: deque[Delivery] = deque()
        self._requeues: deque[Delivery] = deque()
        self._replying: set[Delivery] = set()
        # Each is counted by one thread: the first and the last by the consumer's, the others by the publisher's.
        self._settled = self._retried = self._dead = self._renewed = self._requeued = 0
        self.draining = threading.Event()

    # ---- by runner threads ------------------------------------------------------------------------------------------

    def settle(self, delivery: Delivery, outcome: Outcome, run: Run | None = None) -> None:
        """Act on an outcome; `run` is there where the task was started."""
        match outcome:
            case Done(value=None):
                if run is not None and log.wants(self._done_level):
                    self._log_done(run)
                self._ack(delivery)
            case Done(value):
                if run is not None and log.wants(self._done_level):
                    self._log_done(run)
                self._answer(delivery, run, done_answer(value))
            case Retry():
                self._retry(delivery, outcome, run)
            case Dead():
                self._bury(delivery, outcome, run)
            case Discarded(reason):
                log.info("call_dropped", id=delivery.properties.message_id, queue=delivery.queue, reason=reason)
                self._ack(delivery)
            case Requeue():
                self._requeue(delivery)
            case Republish():
                self._renew(delivery)
            case _:
                assert_never(outcome)

    def _log_done(self, run: Run) -> None:
        write = log.info if self._done_level == INFO else log.debug
        write("task_done", task=run.task, id=run.id, seconds=seconds_of(run), outcome="done")

    def _ack(self, delivery: Delivery) -> None:
        self._acks.append(delivery)
        self._wake()

    def _requeue(self, delivery: Delivery) -> None:
        self._requeues.append(delivery)
        self._wake()

    def _answer(self, delivery: Delivery, run: Run | None, body: bytes) -> None:
        """Store what the task returned, reply it, then acknowledge."""
        if not self._stored(delivery, run, body):
            self._requeue(delivery)
        elif delivery.properties.reply_to:
            self._reply(delivery, body)
        else:
            self._ack(delivery)

    def _stored(self, delivery: Delivery, run: Run | None, body: bytes) -> bool:
        """
        Store a result, however long the store stays away; false where the worker stops or the channel is gone.

        Giving the message back instead would run its task again and again, and use up the delivery limit of its queue.
        A result that the store can never hold is not waited for: that it was refused is stored in its place.
        """
        task_id = run.id if run is not None else delivery.properties.message_id
        wanted = run is None or run.registered.stores_result
        if self._store is None or task_id is None or not wanted:
            return True
        first_sent = first_sent_of(delivery)
        refused = False
        for pause in chain(STORE_PAUSES, repeat(STORE_PAUSES[-1])):
            try:
                self._store.store(task_id, body, time.time() + self._result_ttl, first_sent)
            except ResultNotStorable as error:
                log.error("result_refused", id=task_id, queue=delivery.queue, size=len(body), reason=str(error))
                if refused:
                    return True
                body, refused = failed_answer(RESULT_REFUSED, Failure("", str(error))), True
                continue
            except ResultStoreError as error:
                log.warning("result_not_stored", id=task_id, reason=str(error))
            else:
                return True
            if not delivery.channel.is_open or self.draining.wait(pause):
                break
        return False

    def _reply(self, delivery: Delivery, body: bytes, last: bool = False) -> None:
        """
        Reply, then acknowledge, whether it left or not: replies are best effort, and bounded.

        Where an answer cannot be carried, being too large, its caller hears so, unless this is the `last` attempt.
        """

        def replied(error: AmqpWorkerError | None) -> None:
            if isinstance(error, InvalidArguments) and not last:
                log.error("result_refused", id=delivery.properties.message_id, size=len(body), reason=str(error))
                self._reply(delivery, failed_answer(RESULT_REFUSED, Failure("", str(error))), last=True)
                return
            if error is not None:
                log.warning("reply_lost", id=delivery.properties.message_id, reason=str(error))
            self._ack(delivery)
            self._replying.discard(delivery)

        if not can_answer(delivery.properties.reply_to or ""):
            last = True
            replied(InvalidArguments("its reply_to is no address that RabbitMQ could have made"))
            return
        self._replying.add(delivery)
        try:
            self._replies.publish(answered(delivery, body), timeout=REPLY_TIMEOUT, when_done=replied)
        except InvalidArguments as error:
            replied(error)
        except BaseException:
            self._replying.discard(delivery)
            raise

    def _retry(self, delivery: Delivery, retry: Retry, run: Run | None) -> None:
        now = time.time()
        identity = (run.id, run.attempt, run.first_run) if run is not None else identity_of(delivery, now)
        log.info(
            "task_postponed" if retry.returned else "task_retried",
            task=delivery.properties.type,
            id=identity[0],
            attempt=identity[1],
            seconds=seconds_of(run),
            outcome="retried",
            delay=round(retry.delay, 3),
            error=retry.failure.error_type,
            text=retry.failure.text[:MOST_LOGGED],
        )
        copy = retried(delivery, retry, identity, self._names, now)

        def confirmed() -> None:
            self._retried += 1
            self._ack(delivery)

        try:
            self.copies.publish(Republication(delivery, copy, confirmed, lambda: self._requeue(delivery)))
        except InvalidArguments as error:
            # Its own headers fill the frame, so that what a retry adds has no room.
            self._bury(delivery, Dead("failed", Failure(retry.failure.error_type, str(error))), run)

    def _renew(self, delivery: Delivery) -> None:
        """Publish a copy to the same queue, and acknowledge once it is confirmed."""

        def confirmed() -> None:
            self._renewed += 1
            self._ack(delivery)

        log.warning("delivery_republished", id=delivery.properties.message_id, queue=delivery.queue)
        copy = renewed(delivery, self._names)
        try:
            self.copies.publish(Republication(delivery, copy, confirmed, lambda: self._requeue(delivery)))
        except InvalidArguments:
            self._requeue(delivery)

    def _bury(self, delivery: Delivery, dead: Dead, run: Run | None) -> None:
        """Store the failure, publish the dead letter, and once it is confirmed reply and acknowledge."""
        task_id = run.id if run is not None else delivery.properties.message_id or new_id()
        failure = dead.failure
        log.warning(
            "task_dead",
            id=task_id,
            task=delivery.properties.type,
            queue=delivery.queue,
            seconds=seconds_of(run),
            outcome="dead",
            reason=dead.reason,
            error=failure.error_type,
            text=failure.text[:MOST_LOGGED],
        )
        answer = failed_answer(dead.reason, failure)
        if not self._stored(delivery, run, answer):
            self._requeue(delivery)
            return

        def confirmed() -> None:
            self._dead += 1
            if delivery.properties.reply_to:
                self._reply(delivery, answer)
            else:
                self._ack(delivery)

        whole = dead_lettered(delivery, dead, (task_id, self._worker, self._names), time.time())
        for letter in letters(whole):
            try:
                self.copies.publish(Republication(delivery, letter, confirmed, lambda: self._requeue(delivery)))
            except InvalidArguments as error:
                log.warning("dead_letter_truncated", id=task_id, reason=str(error))
            else:
                return
        self._requeue(delivery)

    # ---- in the consumer's I/O thread -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Tell the broker what was settled, in as few frames as the rules allow."""
        settled: dict[DeliveryChannel, list[int]] = {}
        acks = self._acks
        while acks:
            delivery = acks.popleft()
            channel = delivery.channel
            # The tags of a channel that is gone mean nothing on the next: those messages come again.
            if channel.is_open:
                settled.setdefault(channel, []).append(delivery.tag)
        for channel, tags in settled.items():
            self._settled += len(tags)
            channel.acknowledge(tags)
        touched = set(settled)
        while self._requeues:
            delivery = self._requeues.popleft()
            self._requeued += delivery.channel.requeue(delivery.tag)
            touched.add(delivery.channel)
        for channel in touched:
            channel.flush()

    def requeue_unclaimed(self, channel: ConsumerChannel, before: float, keep_redelivered: bool = False) -> int:
        """Requeue what `ConsumerChannel.requeue_unclaimed` does; return how many."""
        count = channel.requeue_unclaimed(before, keep_redelivered)
        self._requeued += count
        return count

    def counts(self) -> Counts:
        """Return how many deliveries have ended how so far."""
        copies = self._retried + self._dead + self._renewed
        done = max(0, self._settled - copies)
        return Counts(done, self._retried, self._dead, self._requeued + self._renewed)

    def idle(self) -> bool:
        """Whether nothing is left to be settled."""
        # In the order in which a delivery goes through them, so that one that moves on meanwhile is seen further down.
        return self.copies.idle and not (self._replying or self._requeues or self._acks)


def seconds_of(run: Run | None) -> float | None:
    """Return for how long a task has run, `None` if it was not started."""
    return None if run is None else round(max(0.0, time.time() - run.started), 4)


def identity_of(delivery: Delivery, now: float) -> tuple[str, int, float]:
    """Return the task id, the attempt and the first run of a delivery whose task was not started."""
    try:
        known = read_headers(delivery.properties.headers or {})
    except UnusableHeader:
        known = {}
    return delivery.properties.message_id or new_id(), *attempt_and_first_run(known, now)


def first_sent_of(delivery: Delivery) -> str:
    """Return when a message was sent first, as its result is kept by it; "" where it does not tell."""
    milliseconds = time_of((delivery.properties.headers or {}).get(FIRST_SENT))
    return "" if milliseconds is None else time_text(milliseconds)


def worker_name() -> str:
    """Return what this process is called on dead letters: host and process id."""
    return process_name()
