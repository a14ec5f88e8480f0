"""How a tool looks into a queue: what it asks for, and that everything goes back by nack before its channel closes."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from amqpworker.broker import admin
from amqpworker.broker.admin import End, Looking
from amqpworker.broker.contents import GotMessage
from amqpworker.message import Properties


class Queue:
    """The broker's side of a channel: a queue of so many messages, and a log of what was done on it."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.given = 0
        self.log: list[object] = []
        self.sink: Looking
        self.empty: Callable[[], None]

    def on_empty(self, empty: Callable[[], None]) -> None:
        self.empty = empty

    def get(self, queue: str) -> None:
        assert queue == "q"
        self.log.append("get")

    def answer(self) -> None:
        """Answer the last get."""
        if self.left == 0:
            self.empty()
            return
        self.left -= 1
        self.given += 1
        body = str(self.given).encode()
        self.sink.on_got(GotMessage(1, self.given, False, "", "q", self.left, Properties(), body))

    def requeue(self, tag: int) -> None:
        self.log.append(tag)

    def flush(self) -> None:
        self.log.append("flush")

    def close(self) -> None:
        self.log.append("close")


def look(
    count: int, most: int, enough: Callable[[GotMessage], bool] | None = None, stop_after: int | None = None
) -> tuple[list[str], list[object]]:
    """Look into a queue of `count` messages; return the bodies that were handed over, and what was done at the end."""
    answers: SimpleQueue[Any] = SimpleQueue()
    looking, queue = Looking("q", most, enough, answers), Queue(count)
    queue.sink = looking
    looking._on_channel(queue)  # type: ignore[arg-type]
    asked = 0
    while queue.log[-1] == "get":
        asked += 1
        looking.stopped = asked == stop_after
        queue.answer()
    told = [answers.get_nowait() for _ in range(answers.qsize())]
    assert told[-1] is End
    return [got.body.decode() for got in told[:-1] if got is not None], [one for one in queue.log if one != "get"]


def test_all_that_was_got_is_given_back_in_its_order_before_the_channel_closes() -> None:
    assert look(3, 99) == (["1", "2", "3"], [1, 2, 3, "flush", "close"])


def test_an_empty_queue_is_nothing_to_give_back() -> None:
    assert look(0, 99) == ([], ["flush", "close"])


def test_the_rest_of_a_short_queue_is_got_and_given_back_too_so_that_its_order_stays() -> None:
    assert look(4, 2) == (["1", "2"], [1, 2, 3, 4, "flush", "close"])
    assert look(4, 0) == ([], [1, 2, 3, 4, "flush", "close"])


def test_what_is_searched_for_is_handed_over_alone() -> None:
    assert look(4, 99, lambda got: got.body in (b"2", b"3")) == (["2"], [1, 2, 3, 4, "flush", "close"])
    assert look(4, 2, lambda got: got.body == b"3") == ([], [1, 2, 3, 4, "flush", "close"])


def test_a_long_queue_is_not_got_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "WHOLE", 3)
    assert look(9, 2) == (["1", "2"], [1, 2, 3, "flush", "close"])
    assert look(9, 5) == (["1", "2", "3", "4", "5"], [1, 2, 3, 4, 5, "flush", "close"])
    assert look(9, 9, lambda got: got.body == b"7") == (["7"], [1, 2, 3, 4, 5, 6, 7, "flush", "close"])


def test_a_look_that_is_stopped_gives_back_what_it_holds() -> None:
    assert look(9, 99, stop_after=2) == (["1", "2"], [1, 2, "flush", "close"])
