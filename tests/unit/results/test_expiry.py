"""At which pace a writer has its store delete what has expired."""

from __future__ import annotations

from typing import Any

from amqpworker.results.expiry import EXPIRE_AFTER, MOST, PAUSE, Expiry


class Store:
    def __init__(self) -> None:
        self.asked: list[tuple[float, int]] = []

    def expire(self, now: float, most: int) -> int:
        self.asked.append((now, most))
        raise RuntimeError("a store of another package")


def test_expired_rows_are_deleted_with_the_first_row_and_then_twice_as_many_as_were_stored_at_most() -> None:
    store: Any = Store()
    expiry = Expiry(store)
    for number in range(EXPIRE_AFTER + 2):
        expiry.on_stored(1, 100.0 + number)
    expiry.on_stored(1000, 500.0)
    most = 2 * (EXPIRE_AFTER + 1)
    assert store.asked == [(100.0, most), (100.0 + EXPIRE_AFTER + 1, most), (500.0, 2000)]


def test_a_busy_writer_deletes_some_times_a_second_and_the_clock_may_go_back() -> None:
    store: Any = Store()
    expiry = Expiry(store)
    for number in range(10):
        expiry.on_stored(100, 100.0 + number * PAUSE / 8)
    assert [now for now, _ in store.asked] == [100.0, 100.0 + PAUSE]
    expiry.on_stored(100, 50.0)
    expiry.on_stored(9000, 60.0)
    assert store.asked[2:] == [(50.0, 400), (60.0, MOST)]
