"""
How many consumers a queue has, asked of the broker, for a call that was not replied to in time.

Decides that simultaneous questions about one queue share one answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from amqpworker.broker.connection import Channel, ChannelListener, Connection, QueueState

OnCount: TypeAlias = Callable[[int | None], object]


class ConsumerCount:
    """Asks by a passive declaration on a channel of its own; used in the thread or event loop of the connection, except for `waiting`."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[str, OnCount]] = deque()
        """The queues to ask for, from any thread, and what to call with each answer: None if it cannot be known."""
        self._asked: dict[str, list[OnCount]] = {}

    def ask(self, connection: Connection) -> None:
        """Ask the waiting questions, once for each queue."""
        while self.waiting:
            queue, answer = self.waiting.popleft()
            if queue in self._asked:
                self._asked[queue].append(answer)
            else:
                asked = self._asked[queue] = [answer]
                self._ask(connection, queue, asked)

    def on_lost(self) -> None:
        """Answer all questions with None: the connection was lost."""
        while self.waiting:
            self.waiting.popleft()[1](None)
        for queue, asked in list(self._asked.items()):
            self._answer(queue, asked, None)

    def _answer(self, queue: str, asked: list[OnCount], consumers: int | None) -> None:
        """Answer these questions, once: a later close of their channel does not affect others."""
        if self._asked.get(queue) is asked:
            del self._asked[queue]
            for answer in asked:
                answer(consumers)

    def _ask(self, connection: Connection, queue: str, asked: list[OnCount]) -> None:
        def on_opened(channel: Channel) -> None:
            def on_answer(state: QueueState) -> None:
                unknown = state.is_unreliable and not state.consumers
                self._answer(queue, asked, None if unknown else state.consumers)
                channel.close()

            channel.ask(queue, on_answer)

        # If the channel is closed before, such as for a missing queue, nothing is known.
        connection.open_channel(ChannelListener(), on_opened, lambda _: self._answer(queue, asked, None))
