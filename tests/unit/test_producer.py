"""The window of `send_each`, with a publisher whose confirms a test gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amqpworker.message import Message, Publication
from amqpworker.plan import Plan
from amqpworker.producer import WINDOW, Producer
from amqpworker.settings import Settings


class Underway:
    """A publication that is confirmed at once, or once somebody waits for it."""

    size = 100
    error = None

    def __init__(self, done: bool) -> None:
        self.done = done

    def wait(self) -> None:
        self.done = True


class Publisher:
    """Holds the first publication until it is waited for; notes how many there were then."""

    broken = False

    def __init__(self) -> None:
        self.count = 0
        self.most_beside_the_first = 0
        self.first: Underway | None = None

    def publish(self, _publication: Publication, _needs: tuple[str, ...], _timeout: float | None, urgent: bool) -> Any:  # noqa: ARG002
        self.count += 1
        one = Underway(done=self.first is not None)
        if self.first is None:
            self.first = one
        elif not self.first.done:
            self.most_beside_the_first = self.count
        return one

    def wake(self) -> None:
        """Write now; here all is written at once."""

    def close(self, _timeout: float) -> None:
        """Called when the interpreter ends."""


def test_no_more_than_a_window_is_read_while_the_first_message_is_held() -> None:
    producer = Producer("amqp://guest:guest@127.0.0.1/", Plan("amqpworker", declare=False), Settings())
    publisher: Any = Publisher()
    producer._publisher = publisher

    def messages() -> Iterator[Message]:
        for number in range(3 * WINDOW):
            yield Message("a.b", "q", b"{}", str(number))

    told = [message.id for message, _ in producer.send_each(messages())]
    assert told == [str(number) for number in range(3 * WINDOW)]
    assert publisher.most_beside_the_first == WINDOW
