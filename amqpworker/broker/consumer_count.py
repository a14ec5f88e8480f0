"""
How many consumers a queue has, asked of the broker, for a call that was not replied to in time.

Decides that simultaneous questions about one queue share one answer.
"""

from __future__ import annotations

from collections import deque
from threading import Event

from amqpworker.broker.channel import Channel, QueueState, open_channel
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection


class Question:
    """A question about a queue; `consumers` is None until it is answered, or if it cannot be known."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.consumers: int | None = None
        self.answered = Event()

    def answer(self, consumers: int | None) -> None:
        """Answer it."""
        self.consumers = consumers
        self.answered.set()


class ConsumerCount:
    """Asks by a passive declaration on a channel of its own; in the I/O thread, except for `waiting`."""

    def __init__(self) -> None:
        self.waiting: deque[Question] = deque()
        """Questions to ask; from any thread."""
        self._asked: dict[str, list[Question]] = {}

    def ask(self, connection: PikaConnection) -> None:
        """Ask the waiting questions, once for each queue."""
        while self.waiting:
            question = self.waiting.popleft()
            if question.queue in self._asked:
                self._asked[question.queue].append(question)
            else:
                asked = self._asked[question.queue] = [question]
                self._ask(connection, question.queue, asked)

    def on_lost(self) -> None:
        """Answer all questions with None: the connection was lost."""
        while self.waiting:
            self.waiting.popleft().answer(None)
        for queue, asked in list(self._asked.items()):
            self._answer(queue, asked, None)

    def _answer(self, queue: str, asked: list[Question], consumers: int | None) -> None:
        """Answer these questions, once: a later close of their channel does not affect others."""
        if self._asked.get(queue) is asked:
            del self._asked[queue]
            for question in asked:
                question.answer(consumers)

    def _ask(self, connection: PikaConnection, queue: str, asked: list[Question]) -> None:
        def on_opened(channel: Channel) -> None:
            def on_answer(state: QueueState) -> None:
                unknown = state.is_unreliable and not state.consumers
                self._answer(queue, asked, None if unknown else state.consumers)
                channel.close()

            channel.ask(queue, on_answer)

        # If the channel is closed before, such as for a missing queue, nothing is known.
        open_channel(connection, ChannelListener(), on_opened, lambda _: self._answer(queue, asked, None))
