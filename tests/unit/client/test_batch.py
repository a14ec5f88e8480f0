"""Sending many: what is reported when, and how far ahead of the confirms messages are read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.client.batch import FIRST_MESSAGES, MAX_BYTES, MAX_MESSAGES, Window, send_each
from amqpworker.errors import AmqpWorkerError, ConfigError, InvalidArguments
from amqpworker.model.message import Message


class InFlight:
    """A publication that is confirmed at once, or once a caller waits for it."""

    error: AmqpWorkerError | None = None

    def __init__(self, done: bool, size: int = 100) -> None:
        self.done = done
        self.size = size

    def wait(self) -> None:
        self.done = True


class Producer:
    """Begins messages; those that `refused` names raise, those that `held` names are confirmed when they are waited for."""

    def __init__(self, held: tuple[str, ...] = (), refused: tuple[str, ...] = ()) -> None:
        self.held, self.refused = held, refused
        self.published: list[str] = []
        self.wakes = 0

    def publish(self, message: Message, urgent: bool) -> InFlight:  # noqa: ARG002
        if message.id in self.refused:
            raise ConfigError(f"there is no queue for {message.id}")
        self.published.append(message.id)
        return InFlight(message.id not in self.held)

    def wake(self) -> None:
        self.wakes += 1


def sending(producer: Producer, messages: Iterator[Message]) -> Iterator[tuple[Message, AmqpWorkerError | None]]:
    return send_each(producer.publish, producer.wake, messages, 15)


def message(name: str) -> Message:
    return Message("a.b", "q", b"{}", name)


def messages(count: int) -> Iterator[Message]:
    return (message(str(number)) for number in range(count))


def test_no_more_than_a_window_is_read_while_the_first_message_is_held() -> None:
    producer = Producer(held=("0",))
    outcomes = sending(producer, messages(3 * MAX_MESSAGES))
    assert next(outcomes)[0].id == "0"
    assert len(producer.published) == FIRST_MESSAGES
    assert [one.id for one, _ in outcomes] == [str(number) for number in range(1, 3 * MAX_MESSAGES)]


def test_what_is_known_is_reported_before_a_further_message_is_read() -> None:
    told: list[str] = []
    read_after: list[list[str]] = []

    def slow() -> Iterator[Message]:
        for name in "abc":
            read_after.append(list(told))
            yield message(name)

    for one, _ in sending(Producer(), slow()):
        told.append(one.id)
    assert read_after == [[], ["a"], ["a", "b"]]


def test_a_message_that_cannot_be_sent_ends_no_other() -> None:
    outcomes = list(sending(Producer(refused=("1",)), messages(3)))
    assert [one.id for one, _ in outcomes] == ["0", "1", "2"]
    assert [type(error) for _, error in outcomes] == [type(None), ConfigError, type(None)]


def test_an_error_of_the_reader_comes_after_what_was_sent_before() -> None:
    def breaks() -> Iterator[Message]:
        yield message("0")
        raise InvalidArguments("row 1 is empty")

    outcomes = sending(Producer(held=("0",)), breaks())
    assert next(outcomes)[0].id == "0"
    with pytest.raises(InvalidArguments, match="row 1"):
        next(outcomes)


def test_the_window_grows_while_confirms_come_soon_and_shrinks_to_one_message_while_they_are_slow() -> None:
    window = Window(timeout=16)
    for now in range(20):
        window.add(message("m"), InFlight(True), now)
        window.adapt(now + 0.5)
        window.pop()
    assert (window.max_messages, window.max_bytes) == (MAX_MESSAGES, MAX_BYTES)
    for now in range(40):
        window.add(message("m"), InFlight(True), now)
        window.adapt(now + 5)
        window.pop()
    assert window.add(message("m"), InFlight(True), 0)


@given(st.lists(st.integers(0, 1_000_000), max_size=50), st.floats(0.1, 60))
def test_the_window_counts_what_it_holds(sizes: list[int], timeout: float) -> None:
    window = Window(timeout)
    full = [window.add(message("m"), InFlight(False, size), 0.0) for size in sizes]
    assert len(window) == len(sizes)
    assert full == [sum(sizes[: count + 1]) >= window.max_bytes for count in range(len(sizes))]
    assert window.pop_ended() is None
    assert [window.pop()[1].size for _ in sizes] == sizes
    assert not window.add(message("m"), InFlight(True, 1), 0.0)
    assert window.pop_ended() is not None
