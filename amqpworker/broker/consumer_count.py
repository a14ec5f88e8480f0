"""
How many consumers a queue has, asked of the broker itself, for a call that was not answered in time.

Decides that all who ask about one queue at the same time share one answer, and when an answer of the broker means nothing.
"""

from __future__ import annotations

import time
from collections import deque
from threading import Event
from typing import Any

from amqpworker.broker.channel import Channel, open_channel
from amqpworker.broker.consumer_check import DOUBT
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection

__all__ = ["ConsumerCount", "Question"]


class Question:
    """A question about a queue; `consumers` is None until it is answered, and if the broker does not know."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.consumers: int | None = None
        self.ended = Event()

    def end(self, consumers: int | None) -> None:
        """Give the answer to those who wait for it."""
        self.consumers = consumers
        self.ended.set()


class ConsumerCount:
    """Asks by a passive declaration, on a channel of its own; in the I/O thread, `waiting` aside."""

    def __init__(self) -> None:
        self.waiting: deque[Question] = deque()
        """Questions that are to be asked; from any thread."""
        self._asked: dict[str, list[Question]] = {}

    def ask(self, connection: PikaConnection) -> None:
        """Ask what waits, once for each queue."""
        while self.waiting:
            question = self.waiting.popleft()
            if question.queue in self._asked:
                self._asked[question.queue].append(question)
            else:
                asked = self._asked[question.queue] = [question]
                self._ask(connection, question.queue, asked)

    def end(self) -> None:
        """Answer all questions with None, since the connection has ended."""
        while self.waiting:
            self.waiting.popleft().end(None)
        for queue, asked in list(self._asked.items()):
            self._end(queue, asked, None)

    def _end(self, queue: str, asked: list[Question], consumers: int | None) -> None:
        """Answer those who have asked together, once: a channel that is closed later concerns no others."""
        if self._asked.get(queue) is asked:
            del self._asked[queue]
            for question in asked:
                question.end(consumers)

    def _ask(self, connection: PikaConnection, queue: str, asked: list[Question]) -> None:
        def opened(channel: Channel) -> None:
            asked_at = time.monotonic()

            def answered(frame: Any) -> None:
                consumers = int(frame.method.consumer_count)
                # If the queue's leader does not answer the broker reports 0 as well, after a while.
                self._end(queue, asked, consumers if consumers or time.monotonic() < asked_at + DOUBT else None)
                channel.close()

            channel.pika.queue_declare(queue, passive=True, callback=answered)

        # If the channel ends before, such as by a queue that is missing, nothing is known.
        open_channel(connection, ChannelListener(), opened, lambda _: self._end(queue, asked, None))
