"""Result stores; what a store of another package needs."""

from __future__ import annotations

from amqpworker.results.row import ResultRow, merged
from amqpworker.results.row_listing import RowListing
from amqpworker.results.store import ResultNotStorable, ResultStore, RowsNotReadable, Subscription

__all__ = [
    "ResultNotStorable",
    "ResultRow",
    "ResultStore",
    "RowListing",
    "RowsNotReadable",
    "Subscription",
    "merged",
]
