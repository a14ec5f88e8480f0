"""What waits for a thread: those that were accepted before are first, and each is taken once."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.worker.start_queue import DueFirst, drop_requeued, make_start_queue

BOUNDED = frozenset({"work", "other"})


def delivery(tag: int, first: bool, unclaimed: bool = True, queue: str = "work") -> Any:
    channel = SimpleNamespace(goes_first=first, is_unclaimed=lambda _: unclaimed)
    return SimpleNamespace(tag=tag, channel=channel, queue=queue)


def taken(work: DueFirst) -> list[int | None]:
    found = []
    while not work.empty():
        one = work.get()
        found.append(None if one is None else one.tag)
    return found


@given(st.lists(st.booleans()))
def test_those_that_go_first_are_first_and_each_kind_keeps_its_order(kinds: list[bool]) -> None:
    work = DueFirst(BOUNDED)
    for tag, first in enumerate(kinds):
        work.put(delivery(tag, first))
    firsts = [tag for tag, first in enumerate(kinds) if first]
    assert taken(work) == firsts + [tag for tag, first in enumerate(kinds) if not first]
    with pytest.raises(Empty):
        work.get_nowait()


def test_the_end_of_a_thread_keeps_its_place() -> None:
    work = DueFirst(BOUNDED)
    for one in (delivery(1, False), None, delivery(2, False), delivery(3, True)):
        work.put(one)
    assert taken(work) == [3, None, 1, 2]


def test_what_was_requeued_is_dropped_and_the_rest_keeps_its_order() -> None:
    work = DueFirst(BOUNDED)
    for tag, first, unclaimed in ((1, False, True), (2, True, False), (3, False, False), (4, True, True)):
        work.put(delivery(tag, first, unclaimed))
    work.put(None)
    drop_requeued(work)
    assert taken(work) == [4, 1, None]


def test_each_delivery_is_taken_once_by_one_of_many_threads() -> None:
    work, lock = DueFirst(BOUNDED), threading.Lock()
    found: list[int] = []

    def take() -> None:
        while (one := work.get()) is not None:
            with lock:
                found.append(one.tag)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for tag in range(5000):
        work.put(delivery(tag, tag % 3 == 0))
    for _ in threads:
        work.put(None)
    for thread in threads:
        thread.join(10)
    assert sorted(found) == list(range(5000))


def test_other_queues_keep_their_places() -> None:
    work = DueFirst(BOUNDED)
    for tag, first, queue in (
        (1, False, "work"),
        (2, False, "plain"),
        (3, False, "other"),
        (4, True, "work"),
        (5, False, "plain"),
        (6, True, "other"),
        (7, True, "work"),
    ):
        work.put(delivery(tag, first, queue=queue))
    assert taken(work) == [4, 2, 6, 7, 5, 3, 1]


def test_without_a_bound_it_is_a_plain_queue() -> None:
    assert type(make_start_queue(frozenset())) is SimpleQueue
    assert type(make_start_queue(BOUNDED)) is DueFirst
