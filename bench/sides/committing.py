"""
amqpworker's tasks in a worker process that notes when each result is committed: `put` of its store has returned.

The app is imported before the process makes its threads, so what is put in place here is what they call.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amqpworker import ResultStoreError
from amqpworker.results import ResultRow
from amqpworker.results.postgresql import PostgresStore
from amqpworker.results.redis_store import RedisStore
from amqpworker.results.sqlite import SqliteStore

from bench.ledger import VARIABLE, Ledger
from bench.sides.ours import app

__all__ = ["app"]

Errors = Mapping[str, ResultStoreError]
ledger = Ledger(Path(os.environ[VARIABLE]))


def _noting(put: Callable[[Any, Sequence[ResultRow]], Errors]) -> Callable[[Any, Sequence[ResultRow]], Errors]:
    def noting(self: object, rows: Sequence[ResultRow]) -> Errors:
        errors = put(self, rows)
        now = time.time()
        for row in rows:
            ledger.note(row.id, now)
        return errors

    return noting


for store in (SqliteStore, PostgresStore, RedisStore):
    store.put = _noting(store.put)
