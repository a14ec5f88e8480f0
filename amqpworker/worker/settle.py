"""
Act on the outcome of a delivery: the only place that acknowledges.

The order is the promise (docs/guarantees.md): a copy is confirmed, a result stored and a reply sent before the original is
acknowledged. `outcomes` has decided the outcome; this module only refuses what AMQP cannot carry.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from logging import DEBUG, INFO
from typing import TYPE_CHECKING, assert_never

from amqpworker.broker.labels import process_name
from amqpworker.errors import InvalidArguments
from amqpworker.hooks import Listeners, Settled
from amqpworker.log.logger import get_logger
from amqpworker.model.cancel import REASON as CANCELLED
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.model.headers import UnusableHeader, read_headers
from amqpworker.model.message import Delivery, Publication, new_id
from amqpworker.model.outcome import (
    AlreadyDone,
    Cancelled,
    Dead,
    Deferred,
    Discarded,
    Done,
    Outcome,
    Postpone,
    Republish,
    Requeue,
    Retry,
    Snooze,
)
from amqpworker.model.reply import RESULT_REFUSED, encode_done, encode_failed
from amqpworker.routing import envelope
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings
from amqpworker.worker import outcomes, task_lines
from amqpworker.worker.context import Run
from amqpworker.worker.copies import Copy, CopyPublisher
from amqpworker.worker.executor import attempt_and_first_run
from amqpworker.worker.outcomes import REQUEUE
from amqpworker.worker.replying import Replying
from amqpworker.worker.result_storer import ResultStorer
from amqpworker.worker.storing import OnFailure, Storing
from amqpworker.worker.unknown_task_counts import UnknownTaskCounts

if TYPE_CHECKING:
    from amqpworker.broker.consumer_channel import ConsumerChannel
    from amqpworker.broker.publisher import Publisher

log = get_logger(__name__)
# As `Settled(…)` without its Python function, which takes as long as all else here: one is made for each delivery.
new_tuple = tuple.__new__


class Settler:
    """
    Settles deliveries, and reports each to the `listeners`.

    `storer` is None if no results are stored. `settle` is called by the threads that run tasks, `flush` by the consumer's I/O
    thread, also after each `wake`.
    """

    def __init__(
        self,
        publisher: Publisher,
        storer: ResultStorer | None,
        plan: Plan,
        settings: Settings,
        wake: Callable[[], None],
        clock: Clock = CLOCK,
    ) -> None:
        self.storer = storer
        self._worker, self._now = process_name(), clock.now
        self._storing = Storing(storer, self._worker, settings.result_ttl, clock.now, self._requeue)
        self._replying = Replying(publisher.replies, self._ack)
        self._most_bytes = settings.max_result_bytes
        self._names = plan.names
        self._done_level = INFO if settings.log_tasks == "all" else DEBUG
        self.copies = CopyPublisher(publisher.copies, settings.send_timeout, plan.worker_requirements, wake, clock)
        self.listeners = Listeners()
        self.unknown_tasks = UnknownTaskCounts(clock.monotonic)
        self.draining = threading.Event()
        self._wake = wake
        self._acks: deque[Settled] = deque()
        self._requeues: deque[Settled] = deque()
        self._flushing = False

    # ---- by runner threads ------------------------------------------------------------------------------------------

    def settle(self, delivery: Delivery, outcome: Outcome, run: Run | None = None) -> None:
        """
        Act on an outcome in any case: if that fails, the delivery is dead-lettered instead, or requeued.

        `run` is None if the task was not started.
        """
        settled = new_tuple(Settled, (delivery, outcome, run, self._now(), None, False))
        try:
            self._act(settled, outcome)
        except BaseException as error:  # noqa: BLE001 - an error of our own must not leave a message unsettled
            self._settle_instead(settled, error)

    def note_running(self, run: Run, progress: bytes = b"") -> None:
        """Store soon that a task runs, with the JSON of its progress; nothing waits for that."""
        self._storing.note_running(run, progress)

    def _settle_instead(self, settled: Settled, error: BaseException) -> None:
        """Settle a delivery whose outcome could not be settled, by another outcome."""
        following = outcomes.from_settle_error(settled.delivery, settled.outcome, error)
        again = settled._replace(outcome=following)
        try:
            if isinstance(following, Dead):
                self._dead_letter(again, following, self._give_up)
            else:
                self._act(again, following)
        except BaseException as another:  # noqa: BLE001 - as above
            self._give_up(again, another)

    def _give_up(self, settled: Settled, error: BaseException) -> None:
        log.error("not_settled", queue=settled.queue, exc_info=error)
        self._requeue(settled)

    def _act(self, settled: Settled, outcome: Outcome) -> None:  # noqa: PLR0912 - a case for each
        """Raises InvalidArguments if AMQP cannot carry the copy that the outcome requires; then nothing was published."""
        run = settled.run
        match outcome:
            case Done():
                if run is not None and task_lines.log.wants(self._done_level):
                    task_lines.done(settled, self._done_level)
                if outcome.value is not None or outcome.refusal is not None:
                    self._done(settled, outcome)
                else:
                    self._acks.append(settled)  # as `_ack`, with a call less for most deliveries
                    self._wake()
            case Retry() | Snooze():
                self._retry(settled, outcome)
            case Postpone():
                self._postpone(settled, outcome)
            case Deferred():
                self._defer(settled, outcome)
            case Dead():
                self._dead_letter(settled, outcome, self._settle_instead)
            case Cancelled():
                self._cancel(settled, outcome)
            case AlreadyDone() | Discarded():
                self._end_without_run(settled, outcome)
            case Requeue():
                self._requeue(settled)
            case Republish():
                self._republish(settled)
            case _:
                assert_never(outcome)

    def _ack(self, settled: Settled) -> None:
        self._acks.append(settled)
        self._wake()

    def _requeue(self, settled: Settled) -> None:
        self._requeues.append(settled._replace(outcome=REQUEUE))
        self._wake()

    def _done(self, settled: Settled, done: Done) -> None:
        """Store the result and reply; if those who want it cannot have it, they get a refusal, and the task is done all the same."""
        done = outcomes.within(self._most_bytes, done)
        if done.refusal is None:
            self._store_and_reply(settled, "done", encode_done(done.value))
            return
        task_lines.refused(settled, done.refusal.text)
        reply = encode_failed(RESULT_REFUSED, done.refusal)
        self._store_and_reply(settled._replace(result_refused=True), "done", reply)

    def _store_and_reply(self, settled: Settled, state: str, reply: bytes, replaces: bool = True) -> None:
        """Store a result and reply, then acknowledge; requeue the delivery if the store remains unavailable."""
        self._storing.store_then(settled, state, reply, self._reply_or_ack, self._settle_instead, replaces)

    def _reply_or_ack(self, settled: Settled, reply: bytes) -> None:
        if settled.delivery.properties.reply_to:
            self._replying.reply(settled, reply)
        else:
            self._ack(settled)

    def _retry(self, settled: Settled, outcome: Retry | Snooze) -> None:
        identity = _identity_of(settled)
        task_lines.retried(settled, outcome, identity)
        crashes = 0
        if isinstance(outcome, Snooze):
            crashes = outcome.crashes
        else:
            identity = identity._replace(attempt=identity.attempt + 1)
        copy = envelope.retried(settled.delivery, outcome.delay, identity, self._names, settled.at, crashes)
        if outcome.queue is not None:
            copy.routing_key = outcome.queue
        self._replace(settled, copy)

    def _postpone(self, settled: Settled, outcome: Postpone) -> None:
        identity = _identity_of(settled)
        task_lines.postponed(settled, outcome, identity)
        copy = envelope.postponed(settled.delivery, outcome.delay, identity.task_id, self._names, settled.at)
        self._replace(settled, copy)

    def _defer(self, settled: Settled, outcome: Deferred) -> None:
        delay, since = outcome.delay, outcome.unknown_since
        task_lines.deferred(settled, outcome)
        if since is not None:
            self.unknown_tasks.note(settled.task or "", settled.queue, delay, outcome.reason)
        copy = envelope.deferred(settled.delivery, delay, settled.id or new_id(), self._names, since)
        self._replace(settled, copy)

    def _cancel(self, settled: Settled, outcome: Cancelled) -> None:
        """Settle as failed without a dead letter; a result that is stored already stays."""
        task_lines.cancelled(settled)
        self._store_and_reply(settled, "cancelled", encode_failed(CANCELLED, outcome.failure), replaces=False)

    def _end_without_run(self, settled: Settled, outcome: AlreadyDone | Discarded) -> None:
        task_lines.without_run(settled, outcome)
        if isinstance(outcome, AlreadyDone):
            self._reply_or_ack(settled, outcome.reply)
        else:
            self._ack(settled)

    def _republish(self, settled: Settled) -> None:
        task_lines.republished(settled)
        self._replace(settled, envelope.republished(settled.delivery, self._names))

    def _dead_letter(self, settled: Settled, dead: Dead, on_failure: OnFailure) -> None:
        """Store the failure, publish the dead letter, and once it is confirmed reply and acknowledge."""
        task_id = settled.id or new_id()
        task_lines.dead(settled, dead, task_id)
        reply = encode_failed(dead.reason, dead.failure)
        self._storing.store_then(settled, "failed", reply, partial(self._publish_letter, dead, task_id), on_failure)

    def _publish_letter(self, dead: Dead, task_id: str, settled: Settled, reply: bytes) -> None:
        delivery = settled.delivery
        whole = envelope.dead_lettered(delivery, dead, task_id, self._worker, self._names, settled.at)
        refusal: InvalidArguments | None = None
        for letter in envelope.shrink_to_fit(whole):
            try:
                self._replace(settled._replace(letter=letter), letter, reply if delivery.properties.reply_to else None)
            except InvalidArguments as error:
                log.warning("dead_letter_truncated", id=task_id, reason=str(error))
                refusal = error
            else:
                return
        assert refusal is not None
        raise refusal

    def _replace(self, settled: Settled, copy: Publication, reply: bytes | None = None) -> None:
        """
        Publish what takes the place of a delivery; once it is confirmed, send the `reply`, if any, and acknowledge.

        If the copy turns out later to be too large, the delivery is requeued.
        """

        def on_confirmed() -> None:
            if reply is None:
                self._ack(settled)
            else:
                self._replying.reply(settled, reply)

        self.copies.publish(Copy(settled.delivery, copy, on_confirmed, lambda: self._requeue(settled)))

    # ---- in the consumer's I/O thread -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send the acknowledgements of what was settled, in as few frames as the rules allow, and emit the events."""
        self._flushing = True
        try:
            self._flush()
        finally:
            self._flushing = False

    def _flush(self) -> None:
        events: list[Settled] = []
        tags: dict[ConsumerChannel, list[int]] = {}
        acks = self._acks
        latest: ConsumerChannel | None = None
        while acks:
            settled = acks.popleft()
            delivery = settled.delivery
            channel = delivery.channel
            if channel is not latest:
                # The tags of a channel that is lost mean nothing on the next: those messages are redelivered.
                if not channel.is_open:
                    continue
                latest, add_tag = channel, tags.setdefault(channel, []).append
            add_tag(delivery.tag)
            events.append(settled)
        for channel, settled_tags in tags.items():
            channel.acknowledge(settled_tags)
        touched = set(tags)
        while self._requeues:
            settled = self._requeues.popleft()
            channel = settled.delivery.channel
            if channel.requeue(settled.delivery.tag):
                events.append(settled)
            touched.add(channel)
        for channel in touched:
            channel.flush()
        if events:
            self.listeners.emit(events)

    @property
    def problem(self) -> str | None:
        """Why nothing new is started: results cannot be stored; None if there is no problem."""
        return None if self.storer is None else self.storer.problem

    def start(self) -> None:
        """Start the thread that stores results, if any are stored; raises ThreadLimitReached without room for it."""
        if self.storer is not None:
            self.storer.start()

    def stop(self) -> None:
        """End that thread once all is stored."""
        if self.storer is not None:
            self.storer.stop()

    def drain(self) -> None:
        """Wait for nothing that does not work: the process stops."""
        self.draining.set()
        if self.storer is not None:
            self.storer.drain()

    @property
    def is_idle(self) -> bool:
        """Whether everything is settled and reported."""
        # In the order in which a delivery goes through them, so that one that moves on meanwhile is seen further down.
        steps = self._storing, self.copies, self._replying
        return all(step.is_idle for step in steps) and not (self._requeues or self._acks or self._flushing)


def _identity_of(settled: Settled) -> envelope.RunIdentity:
    """Return whose copy this is; from its headers if the task was not started."""
    delivery, run = settled.delivery, settled.run
    if run is not None:
        return envelope.RunIdentity(run.id, run.attempt, run.first_run)
    try:
        known = read_headers(delivery.properties.headers or {})
    except UnusableHeader:
        known = {}
    return envelope.RunIdentity(delivery.properties.message_id or new_id(), *attempt_and_first_run(known, settled.at))
