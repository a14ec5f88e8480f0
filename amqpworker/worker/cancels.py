"""
Which messages are cancelled, as far as this worker process knows.

Decides by what the stream of cancels has, and before a delayed task starts also by the result store: a cancel is stored before
it is reported as done, so with a store no delayed task starts that was cancelled before. `cancelled_runs` acts on tasks that run.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.logger import get_logger
from amqpworker.model.cancel import Cancel, UnusableCancel, decode_cancel, merged, stored_id
from amqpworker.model.headers import ETA, read_headers
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Outcome
from amqpworker.results.store import ResultStore
from amqpworker.worker import outcomes
from amqpworker.worker.context import Run

log = get_logger(__name__)

FIRST_PRUNING = 1024
CHECKING_THREADS = 4
REPEAT_LOG_AFTER = 60.0


class Cancels:
    """The cancels that hold. One thread calls `add`; the rest is safe to use from many."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._cancels: dict[str, Cancel] = {}
        self._prune_above = FIRST_PRUNING

    def __len__(self) -> int:
        return len(self._cancels)

    def add(self, cancel: Cancel) -> None:
        """Note a cancel, unless it no longer holds; any number of times."""
        now = int(self._now() * 1000)
        if cancel.until <= now:
            return
        known = self._cancels.get(cancel.id)
        self._cancels[cancel.id] = cancel if known is None else merged(known, cancel)
        if len(self._cancels) > self._prune_above:
            for one in [one.id for one in self._cancels.values() if one.until <= now]:
                del self._cancels[one]
            self._prune_above = max(FIRST_PRUNING, 2 * len(self._cancels))

    def gate(self, delivery: Delivery, known: Mapping[str, int]) -> Outcome | None:
        """Return the outcome of a message that is cancelled, else None; `known` are our parsed headers."""
        cancels = self._cancels
        if not cancels:
            return None
        cancel = cancels.get(delivery.properties.message_id or "")
        if cancel is None or not cancel.counts_for(known, int(self._now() * 1000)):
            return None
        return outcomes.CANCELLED

    def is_cancelled(self, delivery: Delivery) -> bool:
        """Return whether the message of a run is cancelled."""
        cancel = self._cancels.get(delivery.properties.message_id or "")
        return cancel is not None and cancel.covers(delivery, int(self._now() * 1000))


class StoredCancels:
    """The cancels in the result store; safe to use from many threads."""

    def __init__(
        self, store: ResultStore, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._now, self._monotonic = now, monotonic
        self._log_at = 0.0
        self._lock = threading.Lock()
        # A read of the store may block, and the event loop must not.
        self._threads = ThreadPoolExecutor(CHECKING_THREADS, thread_name_prefix="amqpworker-cancels")

    def check(self, run: Run) -> Outcome | None:
        """Return the outcome of a delayed run that must not start: it is cancelled, or the store cannot be read; else None."""
        if not _is_delayed(run):
            return None
        try:
            row = self._store.get((stored_id(run.id),)).get(stored_id(run.id))
            cancel = None if row is None else decode_cancel(row.reply)
        except (ResultStoreError, ConfigError, UnusableCancel) as error:
            self._log(str(error))
            return outcomes.NOT_CHECKED
        headers = read_headers(run.delivery.properties.headers or {})
        if cancel is None or not cancel.counts_for(headers, int(self._now() * 1000)):
            return None
        return outcomes.CANCELLED

    async def check_async(self, run: Run) -> Outcome | None:
        """As `check`, without blocking the event loop."""
        if not _is_delayed(run):
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.check, run)
        except asyncio.CancelledError:
            return outcomes.CANCELLED if run.cancelled else outcomes.REQUEUE

    def close(self) -> None:
        """End its threads, once each has done what it does."""
        self._threads.shutdown(wait=False)

    def _log(self, reason: str) -> None:
        with self._lock:
            now = self._monotonic()
            if now < self._log_at:
                return
            self._log_at = now + REPEAT_LOG_AFTER
        log.warning(
            "cancels_not_checked", reason=reason, effect="delayed tasks wait until the result store can be read"
        )


def _is_delayed(run: Run) -> bool:
    """Return whether the message of a run has waited: for its time, or for a retry."""
    return ETA in (run.delivery.properties.headers or ())
