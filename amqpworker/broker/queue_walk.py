"""
A walk through a whole queue: each message that was ready when it began, once, in order; what is not removed stays in the queue.

Decides who may walk: one walker at a time, by the number of consumers, which is checked again after subscribing and at the end.
Two walkers would each find a part, and change the order. And it decides when a queue has been read to its end: messages may have left it.
How messages are requeued in order is decided by `walk_consumers`.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Self

from amqpworker.broker.channel_errors import channel_error
from amqpworker.broker.connection import ChannelError, ConnectionEnded, QueueState
from amqpworker.broker.labels import process_name
from amqpworker.broker.pika_connection import PikaConnection, version_of
from amqpworker.broker.tool_connection import TIMEOUT, Answers, ToolConnection, needs_read
from amqpworker.broker.walk_consumers import (
    CLOSING_KEEPS_ORDER_BELOW,
    Portions,
    RequeueStep,
    SubscriptionEnded,
    WalkConsumer,
    WalkConsumers,
)
from amqpworker.errors import AmqpWorkerError, NotConnected, QueueBusy, Unroutable
from amqpworker.model.message import Delivery
from amqpworker.settings import Settings

PATIENCE = 10.0
"""Seconds to wait for another walker, by default."""

MIN_PAUSE, MAX_PAUSE = 0.05, 0.3
# After this long without a delivery the broker is asked whether there is one.
QUIET = 0.1
# In a cluster, another node delivers than the one that answers.
CHECKS = 2
REQUEUED_PAUSE = 0.01
# A consumer of which everything was acknowledged is counted by the broker for a moment.
ACKED_WITHIN = 0.5


class QueueWalker(ToolConnection):
    """
    A connection that walks through queues, as a context manager.

    `patience` is how long a walk waits for another one of the same queue, in seconds; before that `on_busy` is called, with a
    text for people. `timeout` limits each wait for the broker.
    """

    def __init__(
        self,
        url: str,
        settings: Settings,
        *,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
        on_busy: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(url, settings, timeout, name="walker")
        self.patience = patience
        self.on_busy = on_busy

    def walk(self, queue: str) -> Walk:
        """
        Return a walk through a queue, to be entered as a context manager and iterated once.

        Entering it raises QueueBusy if another program is reading the queue, Unroutable if the queue does not exist. It and the
        iteration raise NotConnected, AccessRefused or SendError if the broker does not deliver, the iteration QueueBusy if
        another consumer has come meanwhile and keeps messages; nothing is lost then.
        """
        return Walk(self, queue)


class Walk:
    """
    One walk; `total` is how many messages were ready when it began, `seen` how many were yielded so far.

    Some of the messages may have left the queue before they could be read, as those of a delay level do when they are due: then
    fewer than `total` are seen, or as many newer ones in their place.
    """

    def __init__(self, walker: QueueWalker, queue: str) -> None:
        self.queue = queue
        self.total = 0
        self.seen = 0
        self._walker = walker
        self._connection: PikaConnection | None = None
        self._consumers: WalkConsumers | None = None
        self._portions = Portions(1, own_channels=False)
        self._ahead: WalkConsumer | None = None
        self._last: WalkConsumer | None = None
        self._answers: Answers = SimpleQueue()
        self._failure: BaseException | None = None
        self._subscribed = 0
        self._requested = 0
        self._has_removed = False
        self._is_over = False
        self._is_shared = False
        self._began = self._ended = 0.0

    @property
    def seconds(self) -> float:
        """How long messages of the queue were held back, in seconds: from the first subscription until all were requeued."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            with suppress(AmqpWorkerError, ChannelError):
                self._requeue()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._read_rest()
            self._requeue()
        except (AmqpWorkerError, ChannelError) as error:
            # A generator that is closed, as by `return` out of a loop, does not fail: its caller has to learn this, too.
            if self._has_removed and (kind is None or issubclass(kind, GeneratorExit)):
                raise NotConnected(
                    f"What was removed last from queue {self.queue!r} may be in it again: {error}"
                ) from error
        finally:
            self._ended = time.monotonic()

    def __iter__(self) -> Iterator[Delivery]:
        portion = self._next_portion()
        while portion:
            while len(portion) > 1:
                yield self._checked(portion.popleft())
            # Before the last one: once all of a consumer are removed, the queue would seem to be free for another walker.
            following = self._next_portion() or self._late_portion()
            yield self._checked(portion.popleft())
            portion = following

    def remove(self, deliveries: Sequence[Delivery], on_removed: Callable[[], None] = lambda: None) -> None:
        """
        Remove messages of this walk from the queue: call it once their copies are confirmed.

        `on_removed` is called in the I/O thread, also if the caller is interrupted meanwhile. Raises NotConnected if the connection was lost meanwhile: then they are in the queue again.
        """
        if not deliveries or self._consumers is None:
            return
        self._has_removed = True
        consumers = self._consumers
        self._check()

        def acknowledge(_: PikaConnection, on_done: Callable[[bool], None]) -> None:
            if has_all := consumers.acknowledge(deliveries):
                on_removed()
            on_done(has_all)

        if not self._ask(acknowledge):
            raise self._error(self._failure or NotConnected(self._lost()))

    # ---- begin ------------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Wait until no other consumer is there, and subscribe."""
        until = time.monotonic() + self._walker.patience
        has_waited = False
        longest = MAX_PAUSE
        while True:
            state = self._walker.state_of(self.queue)
            if is_known(state) and not state.consumers:
                if not state.ready or self._is_alone():
                    return
                # Several walkers have begun at once: most of them wait for longer the next time.
                longest = min(2 * longest, self._walker.patience)
            if time.monotonic() >= until:
                raise QueueBusy(
                    f"Queue {self.queue!r} is being read by another program ({state.consumers or 'some'} consumers), which has not ended "
                    f"within {self._walker.patience:g} s: a part of a queue is not shown. Try again, or end that program."
                )
            if not has_waited:
                self._walker.on_busy(f"waiting: another program is reading queue {self.queue!r} …")
            has_waited = True
            time.sleep(random.uniform(MIN_PAUSE, longest))  # noqa: S311 - so that two walkers do not meet again

    def _is_alone(self) -> bool:
        """Subscribe for one message; if another walker has done the same meanwhile, requeue it."""
        connection = self._connection = self._walker.connection
        if connection is None:
            raise NotConnected(self._lost())
        by_closing = version_of(connection) < CLOSING_KEEPS_ORDER_BELOW
        self._consumers = WalkConsumers(self.queue, by_closing, partial(self._answers.put, None), self._on_error)
        self._began = self._began or time.monotonic()
        self._is_over, self._requested, self._subscribed = False, 0, 0
        first = self._subscribe(1)
        while not first.is_subscribed:
            try:
                self._walker.wait_for(self._answers)
            except ChannelError as error:
                raise self._error(error) from error
        state = self._walker.state_of(self.queue)
        if not is_known(state) or state.consumers > 1:
            # In no order: walkers that waited for each other's consumers to go would wait for ever. So their first messages,
            # one for each walker, may change places.
            self._requeue(in_steps=False)
            return False
        self.total = 1 + (state.ready or 0)
        self._portions = Portions.of(self.total, by_closing, int(connection.params.channel_max or 0))
        self._ahead = first
        return True

    # ---- read -------------------------------------------------------------------------------------------------------

    def _next_portion(self) -> deque[Delivery]:
        """Return the deliveries of one more consumer; none if the queue was read to its end."""
        if self._consumers is None:
            return deque()
        self._check()
        consumer, self._ahead = self._ahead or self._following(), None
        if consumer is None:
            return deque()
        self._wait_until_complete(consumer)
        # The broker delivers to it while this portion is used, and to no other one before.
        self._ahead = self._following()
        return consumer.deliveries

    def _following(self) -> WalkConsumer | None:
        """Subscribe for what has not been requested yet, at most one portion; `None` if that is nothing."""
        if self._is_over or self._requested >= self.total:
            return None
        return self._subscribe(min(self._portions.size, self.total - self._requested))

    def _subscribe(self, credit: int) -> WalkConsumer:
        consumers = self._consumers
        assert consumers is not None
        # The broker requeues in the order of the tags.
        consumer = self._last = WalkConsumer(f"{process_name()} walk {self._subscribed:05}", credit)
        own_channel = self._portions.own_channels
        self._subscribed += 1
        self._requested += credit
        self._walker.send(lambda connection: consumers.subscribe(connection, consumer, own_channel), self._answers)
        return consumer

    def _wait_until_complete(self, consumer: WalkConsumer) -> None:
        """Wait until a consumer has got all its messages, or the queue has no more of them."""
        arrived, checks, silent_since = -1, 0, time.monotonic()
        while not consumer.is_complete:
            try:
                answer = self._answers.get(timeout=QUIET)
            except Empty:
                if consumer.arrived != arrived:
                    arrived, checks, silent_since = consumer.arrived, 0, time.monotonic()
                elif not self._is_empty(consumer):
                    checks = 0
                    self._check_silence(time.monotonic() - silent_since)
                elif (checks := checks + 1) == CHECKS:
                    self._is_over = True
                    return
            else:
                if isinstance(answer, BaseException):
                    raise self._error(answer)

    def _late_portion(self) -> deque[Delivery]:
        """
        Return more deliveries if another consumer has had messages meanwhile: newer ones may have been read in their place.

        Waits for that consumer to end, and raises QueueBusy if it does not.
        """
        consumer, began, is_late = self._last, time.monotonic(), False
        if self._is_over or consumer is None:
            return deque()
        while (state := self._state_of(consumer)) is None or self._is_shared:
            silent = time.monotonic() - began
            is_late = is_late or silent > ACKED_WITHIN
            self._check_silence(silent)
            time.sleep(REQUEUED_PAUSE)
        self._is_over = not is_late or not state.ready
        self.total += 0 if self._is_over else state.ready or 0
        return self._next_portion()

    def _is_empty(self, consumer: WalkConsumer) -> bool:
        """Return whether there is nothing left that a consumer can get, now or once another one has ended."""
        state = self._state_of(consumer)
        return state is not None and not state.ready and not self._is_shared

    def _state_of(self, consumer: WalkConsumer) -> QueueState | None:
        """
        Ask on the consumer's own channel, where the answer is behind what was delivered; None if there is none that counts.

        A queue from which another consumer has got messages only seems to be empty. The broker counts the walk's own consumers
        while they have messages, cancelled ones included; so a further one is another program's, or has just lost its last one.
        """
        consumers, channel = self._consumers, consumer.channel
        if consumers is None or not consumer.is_subscribed or channel is None:
            return None
        state: QueueState
        own: int
        state, own = self._ask(
            lambda _, on_done: channel.ask(self.queue, lambda answer: on_done((answer, consumers.counted)))
        )
        self._is_shared = state.consumers > own
        return state if is_known(state) else None

    def _check_silence(self, seconds: float) -> None:
        if seconds > self._walker.timeout:
            self._is_over = True
            if self._is_shared:
                raise QueueBusy(
                    f"Another program has begun to read queue {self.queue!r} during the walk, and does not end: what it has "
                    f"received is not shown. Try again, or end that program."
                )
            raise NotConnected(f"RabbitMQ delivered nothing of queue {self.queue!r} for {seconds:.2g} s.")

    def _checked(self, delivery: Delivery) -> Delivery:
        """Return a delivery, unless it is in the queue again."""
        self._check()
        self.seen += 1
        return delivery

    def _check(self) -> None:
        """Raise why the walk has failed, if it has."""
        if self._failure is not None or self._walker.connection is not self._connection:
            raise self._error(self._failure or NotConnected(self._lost()))

    # ---- end --------------------------------------------------------------------------------------------------------

    def _read_rest(self) -> None:
        """Read to the end: a part would be requeued behind what was requeued before, only a whole queue keeps its order."""
        with suppress(QueueBusy):
            while portion := self._next_portion():
                portion.clear()

    def _requeue(self, in_steps: bool = True) -> None:
        """Requeue what was not removed; `in_steps`, each of which waits until the one before has taken effect."""
        consumers, self._consumers = self._consumers, None
        if consumers is None:
            return
        self._check()
        steps: list[RequeueStep] = self._ask(lambda _, on_done: consumers.end(on_done))
        for step in steps:
            self._ask(lambda _, on_done, step=step: consumers.requeue(step, partial(on_done, None)))  # type: ignore[misc]
            if in_steps:
                self._wait_for_consumers(step.left)

    def _wait_for_consumers(self, most: int) -> None:
        """Wait until the broker has requeued what some had: else the next ones may be faster, or the next walk find a part."""
        until = time.monotonic() + self._walker.timeout
        while time.monotonic() < until:
            state = self._walker.state_of(self.queue)
            if is_known(state) and state.consumers <= most:
                return
            time.sleep(REQUEUED_PAUSE)

    # ---- the I/O thread, and its errors -----------------------------------------------------------------------------

    def _ask(self, action: Callable[[PikaConnection, Callable[[Any], None]], None]) -> Any:
        """Return what `action`, called in the I/O thread, passes on."""
        answers: Answers = SimpleQueue()
        self._walker.send(lambda connection: action(connection, answers.put), answers)
        try:
            return self._walker.wait_for(answers)
        finally:
            self._walker.forget(answers)

    def _on_error(self, error: BaseException) -> None:
        """Note why the broker has ended a channel; called in the I/O thread."""
        self._failure = self._failure or error
        self._answers.put(error)

    def _error(self, error: BaseException) -> AmqpWorkerError:
        """Return an error for the caller."""
        match error:
            case AmqpWorkerError():
                return error
            case ConnectionEnded():
                return NotConnected(self._lost())
            case SubscriptionEnded():
                return Unroutable(
                    f"The broker ended the reading of queue {self.queue!r}: it was deleted, or has lost its leader. What was "
                    f"not removed is in the queue, if it exists."
                )
        return channel_error(needs_read(error), f"reading queue {self.queue!r}", "read")

    def _lost(self) -> str:
        return f"The connection to RabbitMQ was lost while reading queue {self.queue!r}: what was not removed is in the queue."


def is_known(state: QueueState) -> bool:
    """Return whether the broker knows the state of a queue: if the queue's leader does not answer, it reports zeros."""
    return bool(state.ready or state.consumers) or not state.is_unreliable
