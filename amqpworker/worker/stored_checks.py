"""
Whether a run that is about to start must not, by the result store: its message is cancelled, or its task is done already.

Decides which runs are checked: delayed ones for their cancel, and those of tasks with `dedupe=True`. A cancel is stored before it is
reported as done, so with a store no delayed task starts that was cancelled before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.logger import get_logger
from amqpworker.model.cancel import REASON, UnusableCancel, decode_cancel, stored_id
from amqpworker.model.headers import ETA, REPLAYED, read_headers
from amqpworker.model.outcome import Outcome
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore
from amqpworker.worker import outcomes
from amqpworker.worker.context import Run

log = get_logger(__name__)

CHECKING_THREADS = 4
REPEAT_LOG_AFTER = 60.0


class StoredChecks:
    """Checks runs against the result store; safe to use from many threads."""

    def __init__(
        self, store: ResultStore, now: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._now, self._monotonic = now, monotonic
        self._log_at = 0.0
        self._lock = threading.Lock()
        # A read of the store may block, and the event loop must not.
        self._threads = ThreadPoolExecutor(CHECKING_THREADS, thread_name_prefix="amqpworker-checks")

    def check(self, run: Run) -> Outcome | None:
        """Return the outcome of a run that must not start, also since the store cannot be read; None if it may start."""
        dedupes, delayed = run.registered.dedupe and _may_be_done(run), _is_delayed(run)
        if not (dedupes or delayed):
            return None
        cancel_id = stored_id(run.id)
        ids = ((cancel_id,) if delayed else ()) + ((run.id,) if dedupes else ())
        try:
            found = self._store.get(ids)
            done = found.get(run.id) if dedupes else None
            if done is not None and self._is_done(done):
                return outcomes.already_done(done.reply)
            return self._cancelled(run, found.get(cancel_id))
        except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
            known = isinstance(error, ResultStoreError | ConfigError | UnusableCancel)
            self._log_not_checked(str(error) if known else f"{type(error).__name__}: {error}")
            return outcomes.NOT_CHECKED

    def _is_done(self, row: ResultRow) -> bool:
        return row.state == "done" and bool(row.reply) and row.expires_at > self._now()

    def _cancelled(self, run: Run, row: ResultRow | None) -> Outcome | None:
        # Anyone may give a message such an id: its result is not a cancel.
        if row is None or row.state != REASON:
            return None
        cancel = decode_cancel(row.reply)
        headers = read_headers(run.delivery.properties.headers or {})
        return outcomes.CANCELLED if cancel.counts_for(headers, int(self._now() * 1000)) else None

    async def check_async(self, run: Run) -> Outcome | None:
        """As `check`, without blocking the event loop."""
        if not (run.registered.dedupe or _is_delayed(run)):
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.check, run)
        except asyncio.CancelledError:
            return outcomes.CANCELLED if run.cancelled else outcomes.REQUEUE

    def close(self) -> None:
        """End its threads, after the checks that they are doing."""
        self._threads.shutdown(wait=False)

    def _log_not_checked(self, reason: str) -> None:
        with self._lock:
            now = self._monotonic()
            if now < self._log_at:
                return
            self._log_at = now + REPEAT_LOG_AFTER
        log.warning(
            "runs_not_checked",
            reason=reason,
            effect="delayed tasks, and those with dedupe=True, wait until the result store can be read",
        )


def _is_delayed(run: Run) -> bool:
    """Return whether the message of a run has waited: for its time, or for a retry."""
    return ETA in (run.delivery.properties.headers or ())


def _may_be_done(run: Run) -> bool:
    """Return whether a row about the id of a run can count: a message that was replayed is to run."""
    properties = run.delivery.properties
    return bool(properties.message_id) and REPLAYED not in (properties.headers or ())
