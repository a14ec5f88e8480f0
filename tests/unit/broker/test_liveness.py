"""When a broker that lives is left for want of an answer, and when it is not."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker.broker.liveness import QUIET, Liveness


class Keeper:
    """The thread of a connection, whose timers a test runs."""

    name = "test"
    ticking = False

    def __init__(self) -> None:
        self.connection: Any = SimpleNamespace(is_open=True, bytes_received=0, bytes_sent=0, unsent=0, is_blocked=False)
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.dropped: list[str] = []

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        timer = (delay, callback)
        self.timers.append(timer)
        return lambda: self.timers.remove(timer) if timer in self.timers else None

    def drop(self, text: str, close_properly: bool = True) -> None:
        assert not close_properly, "it would have no answer"
        self.dropped.append(text)

    def run(self) -> float:
        """Run the next timer; return for how long it was set."""
        delay, callback = self.timers.pop(0)
        callback()
        return delay


@pytest.fixture
def asked() -> tuple[Keeper, Liveness, list[bool], Callable[[], None]]:
    """A question that was asked just now."""
    keeper = Keeper()
    liveness = Liveness(keeper, 2)
    told: list[bool] = []
    answered = liveness.expect_answer(told.append)
    return keeper, liveness, told, answered


Asked = tuple[Keeper, Liveness, list[bool], Callable[[], None]]


def test_a_quiet_connection_may_be_left_after_four_seconds(asked: Asked) -> None:
    keeper, _, told, _ = asked
    assert keeper.run() + keeper.run() == 4.0
    assert told == [True]
    assert keeper.timers == []


def test_an_answer_ends_the_wait(asked: Asked) -> None:
    keeper, _, told, answered = asked
    keeper.run()
    answered()
    assert keeper.timers == []
    assert told == []


def test_a_connection_by_which_something_comes_or_leaves_is_not_left(asked: Asked) -> None:
    keeper, liveness, told, _ = asked
    keeper.run()
    keeper.connection.bytes_received += 1
    keeper.run()
    keeper.connection.unsent = 1
    liveness.expect_answer(told.append)
    keeper.run()
    keeper.run()
    assert told == [False, False]


def test_a_connection_by_which_something_came_that_runs_is_not_left(asked: Asked) -> None:
    keeper, liveness, told, _ = asked
    liveness.must_stay = lambda: True
    keeper.run()
    keeper.run()
    assert told == [False]


def test_a_broker_that_has_reported_to_be_blocked_is_waited_for(asked: Asked) -> None:
    keeper, _, told, _ = asked
    keeper.connection.is_blocked = True
    keeper.run()
    for _ in range(100):
        assert keeper.run() == QUIET
    assert told == []
    keeper.connection.is_blocked = False
    keeper.run()
    assert told == [True]


def test_an_answer_is_waited_for_longer_once_all_addresses_were_left(asked: Asked) -> None:
    keeper, liveness, told, _ = asked
    keeper.timers.clear()
    waits = []
    for _ in range(6):
        liveness.leave("a queue")
        liveness.on_opened(time.monotonic())
        liveness.expect_answer(told.append)
        waits.append(keeper.run() + keeper.run())
    assert waits == [4, 8, 8, 16, 16, 16]
    assert len(keeper.dropped) == 6
