"""How a tool looks into a queue: what it takes of it, and that all goes back as the broker keeps its order."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import pytest

from amqpworker.broker import peek as module
from amqpworker.broker.connection import ChannelClosedByUs, QueueState
from amqpworker.broker.labels import process_name
from amqpworker.broker.peek import End, PeekSession
from amqpworker.model.message import Delivery, Properties


class Queue:
    """The broker's side of a channel: a queue of `count` messages, and a log of what was done on it."""

    def __init__(self, count: int, told: int | None = None) -> None:
        self.left = count
        self.told = count if told is None else told
        self.given = 0
        self.log: list[object] = []
        self.sink: PeekSession
        self.credit = 0

    def ask(self, queue: str, answered: Callable[[QueueState], None]) -> None:
        assert queue == "q"
        answered(QueueState(self.told, 0))

    def consume(self, queue: str, prefetch: int, tag: str, consumed: Callable[[], None]) -> None:
        assert (queue, tag) == ("q", f"{process_name()} peek {len(self.log):04}")
        self.log.append(f"consume {prefetch}")
        self.credit = prefetch
        consumed()

    def deliver(self) -> bool:
        """Deliver one message, if there is one and credit for it."""
        if not (self.left and self.credit):
            return False
        self.left, self.credit, self.given = self.left - 1, self.credit - 1, self.given + 1
        self.sink.on_delivery(Delivery(self.given, False, "", "q", Properties(), str(self.given).encode()))
        return True

    def cancel(self, tag: str, cancelled: Callable[[], None]) -> None:
        assert " peek " in tag
        self.log.append("cancel")
        cancelled()

    def requeue_all(self) -> None:
        self.log.append("requeue all")

    def close(self) -> None:
        self.log.append("close")
        self.sink._on_closed(ChannelClosedByUs())


def look(
    queue: Queue,
    most: int,
    wanted: Callable[[Delivery], bool] | None = None,
    stop_after: int | None = None,
    closing: bool = True,
) -> tuple[list[str], list[object]]:
    """Look into a queue; return the bodies that were handed over, and what was done."""
    answers: SimpleQueue[Any] = SimpleQueue()
    looking = queue.sink = PeekSession("q", most, wanted, answers)
    looking._by_closing = closing
    looking._on_channel(queue)  # type: ignore[arg-type]
    while queue.given != stop_after and queue.deliver():
        pass
    if queue.log[-1:] != ["close"]:
        looking.finish()
    looking.finish()
    told = [answers.get_nowait() for _ in range(answers.qsize())]
    assert told[-1] is End
    assert told.count(End) == 1
    return [got.body.decode() for got in told[:-1] if got is not None], queue.log


def test_a_queue_is_taken_as_a_whole_and_requeued_by_closing_the_channel() -> None:
    assert look(Queue(3), 99) == (["1", "2", "3"], ["consume 3", "close"])


def test_from_4_0_on_it_is_requeued_by_one_nack_after_the_end_of_the_consumer() -> None:
    assert look(Queue(3), 99, closing=False) == (["1", "2", "3"], ["consume 3", "cancel", "requeue all", "close"])


def test_an_empty_queue_is_nothing_to_take() -> None:
    assert look(Queue(0), 99) == ([], ["close"])
    assert look(Queue(0), 99, closing=False) == ([], ["close"])


def test_the_rest_is_taken_and_requeued_too_so_that_the_order_stays() -> None:
    assert look(Queue(4), 2) == (["1", "2"], ["consume 4", "close"])
    assert look(Queue(4), 0) == ([], ["consume 4", "close"])


def test_what_is_searched_for_is_handed_over_alone() -> None:
    assert look(Queue(4), 99, lambda got: got.body in (b"2", b"3"))[0] == ["2", "3"]
    assert look(Queue(4), 1, lambda got: got.body in (b"2", b"3")) == (["2"], ["consume 4", "close"])


def test_a_long_queue_is_taken_by_several_consumers_and_an_endless_one_not_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MIN_CREDIT", 3)
    assert look(Queue(7), 2)[1] == ["consume 3", "consume 3", "consume 1", "close"]
    assert look(Queue(6), 2, closing=False)[1] == ["consume 3"] * 2 + ["cancel"] * 2 + ["requeue all", "close"]
    monkeypatch.setattr(module, "FULL_SCAN_LIMIT", 4)
    assert look(Queue(9), 9) == (["1", "2", "3", "4"], ["consume 3", "consume 1", "close"])
    monkeypatch.setattr(module, "FULL_SCAN_LIMIT", 100)
    assert look(Queue(100), 0)[1] == ["consume 4"] * 25 + ["close"], (
        "never more consumers than the broker keeps in order"
    )


def test_what_comes_meanwhile_is_not_taken_and_what_others_hold_is_not_waited_for() -> None:
    assert look(Queue(9, told=3), 99) == (["1", "2", "3"], ["consume 3", "close"])
    assert look(Queue(2, told=3), 99) == (["1", "2"], ["consume 3", "close"])


@pytest.mark.parametrize("closing", [True, False])
def test_a_peek_that_is_stopped_requeues_what_it_holds(closing: bool) -> None:
    told, log = look(Queue(9), 99, stop_after=2, closing=closing)
    assert told == ["1", "2"]
    assert log == (["consume 9", "close"] if closing else ["consume 9", "cancel", "requeue all", "close"])
