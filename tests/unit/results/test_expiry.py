"""At which pace a writer has its store delete what has expired."""

from __future__ import annotations

from typing import Any

from amqpworker.results.expiry import EXPIRE_EVERY, Expiry


class Store:
    def __init__(self) -> None:
        self.asked: list[tuple[float, int]] = []

    def expire(self, now: float, most: int) -> int:
        self.asked.append((now, most))
        raise RuntimeError("a store of another package")


def test_expired_rows_are_deleted_with_the_first_row_and_then_twice_as_many_as_were_stored_at_most() -> None:
    store: Any = Store()
    expiry = Expiry(store)
    for number in range(2 * EXPIRE_EVERY):
        expiry.on_stored(1, float(number))
    expiry.on_stored(1000, 500.0)
    assert store.asked == [(0.0, 2 * EXPIRE_EVERY), (float(EXPIRE_EVERY), 2 * EXPIRE_EVERY), (500.0, 2000)]
