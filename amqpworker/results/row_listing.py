"""
The latest rows of a store, for people who look what has happened lately.

Not part of `ResultStore`: a store need not be able to. Redis is not, since it would have to walk through all its keys. Decides
what is left out: rows that are not about a message of their own, and the replies, which may be large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from amqpworker.model.cancel import STORED_PREFIX
from amqpworker.results.row import RECORD_PREFIX, ResultRow
from amqpworker.results.store import ResultStore

EXAMINED = 10_000
"""Rows of a table, of all namespaces, that one listing reads at most, so that it is as fast in a large one."""

NOT_LISTED = (f"{STORED_PREFIX}%", f"{RECORD_PREFIX}%")
"""Patterns of SQL: the ids of rows about other rows."""


@runtime_checkable
class RowListing(ResultStore, Protocol):
    """A result store that can list its rows."""

    def latest(self, most: int, now: float, usual_ttl: float, state: str = "") -> Sequence[ResultRow]:
        """
        Return at most `most` rows of this namespace that have not expired at `now`, those that were stored last first.

        They have an empty `reply`. With `state`, they are those in that state among the latest rows. A row may be missing if ten
        thousand others were stored after it; a store that finds rows by their expiry assumes that most are kept for `usual_ttl`
        seconds.

        Raises:
            ResultStoreError: the store cannot be read at the moment.
            ConfigError: it cannot be opened, and that will not change by itself.
        """
