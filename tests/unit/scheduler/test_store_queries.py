"""Questions to the result store, whatever that does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Collection, Mapping

from amqpworker.results.row import ResultRow
from amqpworker.scheduler.scheduler_events import StoreAnswered
from amqpworker.scheduler.store_queries import StoreQueries

TICKS = [("s", 1), ("s", 2), ("t", 1)]


class Store:
    """A store that answers once it may, with a row of each id that it has; `asked` are the ids of each question."""

    def __init__(self, *ended: str, error: Exception | None = None) -> None:
        self.may_answer = threading.Semaphore(0)
        self.asked: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.error = error
        self._rows = {one: ResultRow(one, "done", "task", b"{}", "", 0.0, 0.0) for one in ended}

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        self.asked.put(sorted(ids))
        self.may_answer.acquire()
        error, self.error = self.error, None
        if error is not None:
            raise error
        return {one: self._rows[one] for one in ids if one in self._rows}


def queries(store: Store) -> tuple[StoreQueries, queue.SimpleQueue[StoreAnswered]]:
    answers: queue.SimpleQueue[StoreAnswered] = queue.SimpleQueue()
    return StoreQueries(store, lambda name, time: f"{name}{time}", answers.put), answers  # type: ignore[arg-type]


def test_what_is_asked_while_the_store_is_busy_is_one_question_and_each_tick_is_in_it_once() -> None:
    store = Store("s1")
    asks, answers = queries(store)
    asks.ask(1, TICKS[:1])
    assert store.asked.get(timeout=10) == ["s1"]
    for _ in range(100):
        asks.ask(1, TICKS)
    store.may_answer.release(2)
    assert answers.get(timeout=10) == StoreAnswered(1, {("s", 1): True})
    assert answers.get(timeout=10) == StoreAnswered(1, {("s", 1): True, ("s", 2): False, ("t", 1): False})
    assert store.asked.get(timeout=10) == ["s1", "s2", "t1"]
    assert store.asked.empty()


def test_what_an_earlier_term_has_asked_is_not_asked_any_more() -> None:
    store = Store()
    asks, answers = queries(store)
    asks.ask(1, TICKS[:1])
    assert store.asked.get(timeout=10) == ["s1"]
    asks.ask(1, TICKS[1:2])
    asks.ask(2, TICKS[2:])
    store.may_answer.release(2)
    assert answers.get(timeout=10).term == 1
    assert answers.get(timeout=10) == StoreAnswered(2, {("t", 1): False})


def test_a_store_that_raises_any_error_is_asked_again() -> None:
    store = Store("s1", error=KeyError("connection"))
    store.may_answer.release(2)
    asks, answers = queries(store)
    asks.ask(1, TICKS[:1])
    assert answers.get(timeout=10) == StoreAnswered(1, {("s", 1): None})
    asks.ask(1, TICKS[:1])
    assert answers.get(timeout=10) == StoreAnswered(1, {("s", 1): True})
