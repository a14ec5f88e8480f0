"""
Make sure that the topology exists, once per connection.

Decides the order of the declarations, what a refusal means, and what becomes of one that is not answered. It uses a
channel of its own, since a refusal closes the channel it happens on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.connection_errors import DECLARED_ELSEWHERE, channel_error
from amqpworker.broker.liveness import Liveness
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection
from amqpworker.errors import AmqpWorkerError, NotConnected
from amqpworker.log.logger import get_logger
from amqpworker.routing.topology import Binding, Exchange, Queue, Topology

__all__ = ["Declarer", "Need"]

log = get_logger(__name__)

# A queue that is made again within 20 ms of its deletion leaves its consumers behind: RabbitMQ 3.10 tells them nothing, and
# drops what the new queue delivers to them (tried). Longer than any broker takes to tell everybody that a queue is gone.
MOURNING = 1.0
# One of this many declarations is answered, which shows progress; to have all answered costs a round trip each.
ANSWERED = 8

Need: TypeAlias = str
"""What must exist: the name of a piece of the topology, as `Plan.topology_of` knows it."""

Answered: TypeAlias = Callable[[], None]
Answer: TypeAlias = Callable[[AmqpWorkerError | None], None]
Part: TypeAlias = Exchange | Queue | Binding


class Declarer:
    """Declares the pieces that are asked for on one connection, each once."""

    def __init__(self, connection: PikaConnection, topology_of: Callable[[Need], Topology], liveness: Liveness) -> None:
        self.done: set[Need] = set()
        self._connection = connection
        self._topology_of = topology_of
        self._liveness = liveness
        self._answered: Answered = lambda: None
        # Counts the channels: what comes by one that was given up is not heard.
        self._turn = 0
        self._known: set[Need] = set()
        self._waiting: dict[Need, list[Answer]] = {}
        self._queue: deque[Need] = deque()
        self._declared: list[Part] = []
        self._current: Need | None = None
        self._channel: Channel | None = None
        self._mourned: set[Need] = set()

    def ensure(self, need: Need, answer: Answer) -> None:
        """Call `answer` once the need exists, or with the error why it cannot."""
        if need in self.done:
            answer(None)
            return
        waiting = self._waiting.setdefault(need, [])
        waiting.append(answer)
        if len(waiting) == 1:
            self._queue.append(need)
            self._next()

    def forget(self, needs: Iterable[Need] | None = None) -> None:
        """
        Declare `needs`, or everything, again when it is asked for, not at once: something that was declared may be gone.

        What others need is not touched: a queue that is gone holds up only those who send to it.
        """
        gone = self._known if needs is None else self._known.intersection(needs)
        if not gone:
            return
        self._known = self._known - gone
        self.done = self.done - gone
        parts = [part for need in gone for part in self._topology_of(need)]
        self._declared = [part for part in self._declared if part not in parts]
        self._mourned |= gone
        if self._connection.is_open:
            self._connection.ioloop.call_later(MOURNING, lambda: self._go_on(gone))

    def _go_on(self, needs: set[Need]) -> None:
        self._mourned -= needs
        self._next()

    def _next(self) -> None:
        if self._current is not None or not self._connection.is_open:
            return
        need = next((one for one in self._queue if one not in self._mourned), None)
        if need is None:
            return
        self._queue.remove(need)
        self._current = need
        self._await_answer()
        if self._channel is not None:
            self._declare(self._channel)
            return
        self._turn += 1
        turn = self._turn
        open_channel(
            self._connection,
            ChannelListener(),
            lambda channel: self._on_open(turn, channel),
            lambda error: self._on_closed(turn, error),
        )

    def _await_answer(self) -> None:
        self._answered()
        self._answered = self._liveness.expect_answer(self._late)

    def _late(self, may_leave: bool) -> None:
        """Give up what is not answered: the connection, or, if other things go on by it, this channel."""
        need = self._current
        if need is None:
            return
        if may_leave:
            self._liveness.leave(f"the declaration of {need}")
            return
        self._turn += 1
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._finish(NotConnected(f"The broker did not answer the declaration of {need} in time."))

    def _on_open(self, turn: int, channel: Channel) -> None:
        if turn != self._turn:
            channel.close()
            return
        self._channel = channel
        self._declare(channel)

    def _declare(self, channel: Channel) -> None:
        assert self._current is not None
        parts = [part for part in self._topology_of(self._current) if part not in self._declared]
        if not parts:
            self._finish(None)
            return
        # Few are answered: a channel is served in order, and a refusal of any of them closes it.
        turn = self._turn
        for number, part in enumerate(parts[:-1], 1):
            declare(channel.pika, part, None if number % ANSWERED else lambda _: self._on_some(turn))
        declare(channel.pika, parts[-1], lambda _: self._on_all(turn, parts))

    def _on_some(self, turn: int) -> None:
        if turn == self._turn:
            self._await_answer()

    def _on_all(self, turn: int, parts: list[Part]) -> None:
        if turn == self._turn:
            self._declared += parts
            self._finish(None)

    def _on_closed(self, turn: int, error: BaseException) -> None:
        if turn != self._turn:
            return
        self._channel = None
        # Where the connection has ended nobody is answered: whoever waits begins again on the next one.
        if self._current is not None and self._connection.is_open:
            self._finish(channel_error(error, f"declaring {self._current}", "configure", DECLARED_ELSEWHERE))

    def _finish(self, error: AmqpWorkerError | None) -> None:
        self._answered()
        need, self._current = self._current, None
        assert need is not None
        if error is None:
            self.done.add(need)
            self._known.add(need)
        else:
            log.warning("topology_not_declared", need=need, reason=str(error))
        for answer in self._waiting.pop(need, []):
            answer(error)
        self._next()


def declare(channel: Any, part: Part, done: Callable[[Any], None] | None) -> None:
    """Declare one part on pika's channel."""
    match part:
        case Exchange():
            channel.exchange_declare(part.name, part.type, durable=True, arguments=dict(part.arguments), callback=done)
        case Queue():
            channel.queue_declare(part.name, durable=True, arguments=dict(part.arguments), callback=done)
        case Binding():
            channel.queue_bind(part.queue, part.source, part.routing_key, dict(part.arguments), callback=done)
