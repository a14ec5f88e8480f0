"""
Act on the outcome of a delivery: the only place that acknowledges.

The order is the promise (docs/guarantees.md): a copy is confirmed, a result stored and a reply sent before the original is
acknowledged. `outcomes` has decided the outcome; this module only refuses what AMQP cannot carry.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import chain, repeat
from logging import DEBUG, INFO
from typing import TYPE_CHECKING, assert_never

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.broker.labels import process_name
from amqpworker.errors import AmqpWorkerError, InvalidArguments
from amqpworker.ipc.recorder import Counts
from amqpworker.log.logger import get_logger
from amqpworker.model.headers import FIRST_SENT, UnusableHeader, read_headers, time_of, time_text
from amqpworker.model.message import Delivery, Publication, new_id
from amqpworker.model.outcome import (
    Dead,
    Discarded,
    Done,
    Failure,
    Outcome,
    Postpone,
    Republish,
    Requeue,
    Retry,
    Snooze,
)
from amqpworker.model.reply import encode_done, encode_failed
from amqpworker.results.store import ResultNotStorable, ResultStore, ResultWriter
from amqpworker.routing.envelope import (
    dead_lettered,
    is_valid_reply_to,
    postponed,
    publication_of_reply,
    republished,
    retried,
    shrink_to_fit,
)
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings
from amqpworker.worker.context import Run
from amqpworker.worker.executor import attempt_and_first_run
from amqpworker.worker.republish import Republication, Republisher

if TYPE_CHECKING:
    from amqpworker.broker.lane import Lane

log = get_logger(__name__)

REPLY_TIMEOUT = 5.0
MOST_LOGGED = 200
RESULT_REFUSED = "result-refused"
STORE_PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)


class Settler:
    """
    Settles deliveries.

    `copies` and `replies` are lanes of the publisher; `wake` has `flush` called soon.

    `settle` is called by the threads that run tasks, `flush` and `requeue_unclaimed` by the consumer's I/O thread.
    """

    def __init__(
        self,
        copies: Lane,
        replies: Lane,
        store: ResultStore | None,
        plan: Plan,
        settings: Settings,
        wake: Callable[[], None],
    ) -> None:
        self._replies = replies
        self._results = None if store is None else ResultWriter(store, settings.result_ttl)
        self._names = plan.names
        self._done_level = INFO if settings.log_tasks == "all" else DEBUG
        self.republisher = Republisher(copies, settings.send_timeout, plan.worker_requirements, wake)
        self._wake = wake
        self._worker = process_name()
        self._acks: deque[Delivery] = deque()
        self._requeues: deque[Delivery] = deque()
        self._replying: set[Delivery] = set()
        # Each is counted by one thread: the first and the last by the consumer's, the others by the publisher's.
        self._settled = self._retried = self._dead = self._republished = self._requeued = 0
        self.draining = threading.Event()

    # ---- by runner threads ------------------------------------------------------------------------------------------

    def settle(self, delivery: Delivery, outcome: Outcome, run: Run | None = None) -> None:
        """
        Act on an outcome; `run` is None if the task was not started.

        Raises:
            InvalidArguments: AMQP cannot carry the copy that the outcome requires; nothing was published.
        """
        match outcome:
            case Done(value=None):
                if run is not None and log.wants(self._done_level):
                    self._log_done(run)
                self._ack(delivery)
            case Done(value):
                if run is not None and log.wants(self._done_level):
                    self._log_done(run)
                self._store_and_reply(delivery, run, encode_done(value))
            case Retry() | Snooze():
                self._retry(delivery, outcome, run)
            case Postpone():
                self._postpone(delivery, outcome, run)
            case Dead():
                self._dead_letter(delivery, outcome, run)
            case Discarded(reason):
                log.info("call_discarded", id=delivery.properties.message_id, queue=delivery.queue, reason=reason)
                self._ack(delivery)
            case Requeue():
                self._requeue(delivery)
            case Republish():
                self._republish(delivery)
            case _:
                assert_never(outcome)

    def _log_done(self, run: Run) -> None:
        write = log.info if self._done_level == INFO else log.debug
        write("task_done", task=run.task, id=run.id, seconds=_seconds_of(run), outcome="done")

    def _ack(self, delivery: Delivery) -> None:
        self._acks.append(delivery)
        self._wake()

    def _requeue(self, delivery: Delivery) -> None:
        self._requeues.append(delivery)
        self._wake()

    def _store_and_reply(self, delivery: Delivery, run: Run | None, body: bytes) -> None:
        """Store the result, send it as the reply, then acknowledge."""
        if not self._stored(delivery, run, "done", body):
            self._requeue(delivery)
        elif delivery.properties.reply_to:
            self._reply(delivery, body)
        else:
            self._ack(delivery)

    def _stored(self, delivery: Delivery, run: Run | None, state: str, reply: bytes) -> bool:
        """
        Store a result, and retry while the store is unavailable; return false if the worker stops or the channel is lost.

        Requeuing the message instead would run its task again and again, and use up the delivery limit of its queue.
        If the store can never hold the result, a failure with the reason `result-refused` is stored in its place.
        """
        task_id = run.id if run is not None else delivery.properties.message_id
        wanted = run is None or run.registered.stores_result
        if self._results is None or task_id is None or not wanted:
            return True
        task = run.task if run is not None else delivery.properties.type or ""
        first_sent = _first_sent_of(delivery)
        refused = False
        for pause in chain(STORE_PAUSES, repeat(STORE_PAUSES[-1])):
            error = self._results.write(task_id, state, task, reply, first_sent)
            if error is None:
                return True
            if isinstance(error, ResultNotStorable):
                log.error("result_refused", id=task_id, queue=delivery.queue, size=len(reply), reason=str(error))
                if refused:
                    return True
                state, reply, refused = "failed", encode_failed(RESULT_REFUSED, Failure("", str(error))), True
                continue
            log.warning("result_not_stored", id=task_id, reason=str(error))
            if not delivery.channel.is_open or self.draining.wait(pause):
                break
        return False

    def _reply(self, delivery: Delivery, body: bytes, last: bool = False) -> None:
        """
        Reply, then acknowledge even if the reply was not sent: replies are best effort, and have a timeout.

        If a reply is too large, its caller gets that error instead, unless this is the `last` attempt.
        """

        def replied(error: AmqpWorkerError | None) -> None:
            if isinstance(error, InvalidArguments) and not last:
                log.error("result_refused", id=delivery.properties.message_id, size=len(body), reason=str(error))
                self._reply(delivery, encode_failed(RESULT_REFUSED, Failure("", str(error))), last=True)
                return
            if error is not None:
                log.warning("reply_lost", id=delivery.properties.message_id, reason=str(error))
            self._ack(delivery)
            self._replying.discard(delivery)

        if not is_valid_reply_to(delivery.properties.reply_to or ""):
            last = True
            replied(InvalidArguments("its reply_to is not an address that RabbitMQ makes"))
            return
        self._replying.add(delivery)
        try:
            self._replies.publish(publication_of_reply(delivery, body), timeout=REPLY_TIMEOUT, on_done=replied)
        except InvalidArguments as error:
            replied(error)
        except BaseException:
            self._replying.discard(delivery)
            raise

    def _retry(self, delivery: Delivery, outcome: Retry | Snooze, run: Run | None) -> None:
        """Publish a copy for the next run, and acknowledge once it is confirmed."""
        now = time.time()
        task_id, attempt, first_run = _identity_of(delivery, run, now)
        failure = outcome.failure
        log.info(
            "task_retried",
            task=delivery.properties.type,
            id=task_id,
            attempt=attempt,
            seconds=_seconds_of(run),
            outcome="retried",
            delay=round(outcome.delay, 3),
            error=failure.error_type,
            error_text=failure.text[:MOST_LOGGED],
        )
        crashes = 0
        if isinstance(outcome, Snooze):
            crashes = outcome.crashes
        else:
            attempt += 1
        copy = retried(delivery, outcome.delay, (task_id, attempt, first_run), self._names, now, crashes)
        self._replace(delivery, copy, self._on_retried)

    def _postpone(self, delivery: Delivery, outcome: Postpone, run: Run | None) -> None:
        """Publish a copy that is delivered later, and acknowledge once it is confirmed."""
        now = time.time()
        task_id, attempt, _ = _identity_of(delivery, run, now)
        log.info(
            "task_postponed",
            task=delivery.properties.type,
            id=task_id,
            attempt=attempt,
            outcome="postponed",
            delay=round(outcome.delay, 3),
            reason=outcome.reason,
        )
        self._replace(delivery, postponed(delivery, outcome.delay, task_id, self._names, now), self._on_retried)

    def _republish(self, delivery: Delivery) -> None:
        """Publish a copy to the same queue, and acknowledge once it is confirmed."""
        log.warning("delivery_republished", id=delivery.properties.message_id, queue=delivery.queue)
        self._replace(delivery, republished(delivery, self._names), self._on_republished)

    def _dead_letter(self, delivery: Delivery, dead: Dead, run: Run | None) -> None:
        """Store the failure, publish the dead letter, and once it is confirmed reply and acknowledge."""
        task_id = run.id if run is not None else delivery.properties.message_id or new_id()
        failure = dead.failure
        log.warning(
            "task_dead",
            id=task_id,
            task=delivery.properties.type,
            queue=delivery.queue,
            seconds=_seconds_of(run),
            outcome="dead",
            reason=dead.reason,
            error=failure.error_type,
            error_text=failure.text[:MOST_LOGGED],
        )
        reply = encode_failed(dead.reason, failure)
        if not self._stored(delivery, run, "failed", reply):
            self._requeue(delivery)
            return

        def on_confirmed(delivery: Delivery) -> None:
            self._dead += 1
            if delivery.properties.reply_to:
                self._reply(delivery, reply)
            else:
                self._ack(delivery)

        whole = dead_lettered(delivery, dead, (task_id, self._worker, self._names), time.time())
        refusal: InvalidArguments | None = None
        for letter in shrink_to_fit(whole):
            try:
                self._replace(delivery, letter, on_confirmed)
            except InvalidArguments as error:
                log.warning("dead_letter_truncated", id=task_id, reason=str(error))
                refusal = error
            else:
                return
        assert refusal is not None
        raise refusal

    def _replace(self, delivery: Delivery, copy: Publication, on_confirmed: Callable[[Delivery], None]) -> None:
        """Publish what takes the place of a delivery; requeue the delivery if the copy turns out later to be too large."""
        republication = Republication(delivery, copy, lambda: on_confirmed(delivery), lambda: self._requeue(delivery))
        self.republisher.publish(republication)

    def _on_retried(self, delivery: Delivery) -> None:
        self._retried += 1
        self._ack(delivery)

    def _on_republished(self, delivery: Delivery) -> None:
        self._republished += 1
        self._ack(delivery)

    # ---- in the consumer's I/O thread -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send the acknowledgements of what was settled, in as few frames as the rules allow."""
        settled: dict[ConsumerChannel, list[int]] = {}
        acks = self._acks
        while acks:
            delivery = acks.popleft()
            channel = delivery.channel
            # The tags of a channel that is lost mean nothing on the next: those messages are redelivered.
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
        """Return the number of deliveries by outcome."""
        copies = self._retried + self._dead + self._republished
        done = max(0, self._settled - copies)
        return Counts(done, self._retried, self._dead, self._requeued + self._republished)

    def is_idle(self) -> bool:
        """Return whether everything is settled."""
        # In the order in which a delivery goes through them, so that one that moves on meanwhile is seen further down.
        return self.republisher.idle and not (self._replying or self._requeues or self._acks)


def _seconds_of(run: Run | None) -> float | None:
    """Return how long a task has run, `None` if it was not started."""
    return None if run is None else round(max(0.0, time.time() - run.started), 4)


def _identity_of(delivery: Delivery, run: Run | None, now: float) -> tuple[str, int, float]:
    """Return the task id, the attempt and the first run of a delivery, from its headers if the task was not started."""
    if run is not None:
        return run.id, run.attempt, run.first_run
    try:
        known = read_headers(delivery.properties.headers or {})
    except UnusableHeader:
        known = {}
    return delivery.properties.message_id or new_id(), *attempt_and_first_run(known, now)


def _first_sent_of(delivery: Delivery) -> str:
    """Return when a message was sent first, which identifies its result; "" if it has no such header."""
    milliseconds = time_of((delivery.properties.headers or {}).get(FIRST_SENT))
    return "" if milliseconds is None else time_text(milliseconds)
