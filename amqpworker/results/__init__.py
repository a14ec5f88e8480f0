"""Result stores; what a store of another package needs."""

from __future__ import annotations

from amqpworker.results.store import ResultNotStorable, ResultRow, ResultStore

__all__ = ["ResultNotStorable", "ResultRow", "ResultStore"]
