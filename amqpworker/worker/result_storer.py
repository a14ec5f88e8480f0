"""
Store the results of tasks in one thread: with each commit all that has gathered since the one before.

Decides when to try again, and when to stop: once the worker drains, or the broker redelivers the message anyway. What follows a
commit, or a refusal, is decided by `settle`, which acknowledges nothing before it.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.lifecycle import backoff, start_thread
from amqpworker.log.logger import get_logger
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.results.expiry import Expiry
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultNotStorable, ResultStore

log = get_logger(__name__)

MOST_AT_ONCE = 1000
FIRST_PAUSE, MAX_PAUSE = 0.1, 5.0
DOWN_AFTER = 1.0
"""Seconds after the first failed commit, from which on the process starts nothing new."""

MOST_NOTES = 20_000
"""As many rows wait at most when one is noted that nothing depends on."""

REPEAT_LOG_AFTER = 60.0


@dataclass(slots=True, eq=False)
class StoredRow:
    """
    A row to store; `on_stored` is called with None once that is done, or with why it may not be.

    If it does not replace one, a reply of the same message that is stored already stays. As long as `is_wanted` returns true it
    is tried again. A row that is not `needed` is tried once, and its failure is nothing but logged.
    """

    row: ResultRow
    on_stored: Callable[[ResultStoreError | None], None]
    is_wanted: Callable[[], bool]
    replaces: bool = True
    needed: bool = True


class ResultStorer:
    """
    Stores rows in the order in which they were put; `put` may be called from any thread.

    `store_waiting` is called by one thread, its own once `start` was called. `on_down` is called by it with whether the store has
    been failing for `DOWN_AFTER` seconds.
    """

    def __init__(
        self, store: ResultStore, clock: Clock = CLOCK, on_down: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._store = store
        self._expiry = Expiry(store)
        self._now, self._monotonic = clock
        self._on_down = on_down
        self._waiting: deque[StoredRow] = deque()
        self._is_storing = False
        self._is_draining = False
        self._failing_since: float | None = None
        self._failures = 0
        self._log_dropped_at = 0.0
        self._woken = threading.Event()
        self._hurry = threading.Event()
        self._is_stopping = False
        self.problem: str | None = None
        """Why nothing new is started, None if the store works."""

    @property
    def is_idle(self) -> bool:
        """Whether all rows are stored, and what follows is done."""
        return not (self._waiting or self._is_storing)

    def put(self, row: StoredRow) -> None:
        """Store a row soon."""
        self._waiting.append(row)
        # It locks, and many threads put; the storing thread clears it before it looks for rows.
        if not self._woken.is_set():
            self._woken.set()

    def note(self, row: ResultRow) -> None:
        """Store a row soon, if the store can be written then: nothing depends on it. It is dropped if too many wait."""
        if len(self._waiting) < MOST_NOTES:
            self.put(StoredRow(row, _forget, _never, needed=False))
        else:
            self._note_dropped(1, f"{MOST_NOTES} rows wait for the store already")

    def start(self) -> None:
        """Start its thread; raises ThreadLimitReached if the system refuses it."""
        start_thread(threading.Thread(target=self._run, name="amqpworker-storing", daemon=True))

    def drain(self) -> None:
        """Try once more what could not be stored, and no longer wait for the store: the worker stops."""
        self._is_draining = True
        self._hurry.set()
        self._woken.set()

    def stop(self) -> None:
        """End its thread once all is stored."""
        self._is_stopping = True
        self._hurry.set()
        self._woken.set()

    def _run(self) -> None:
        while not (self._is_stopping and self.is_idle):
            self._woken.clear()
            pause = self.store_waiting()
            if pause is not None:
                self._hurry.wait(pause)
            elif not self._waiting:
                self._woken.wait()

    def store_waiting(self) -> float | None:
        """Store what waits, all at once; return how long to wait before what failed is tried again, None if nothing did."""
        self._is_storing = True
        try:
            taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            failed = self._store_all(taken) if taken else []
            self._waiting.extendleft(reversed(failed))
        finally:
            self._is_storing = False
        if failed:
            self._failures += 1
            return backoff(FIRST_PAUSE, MAX_PAUSE, self._failures) * random.uniform(0.5, 1.0)  # noqa: S311
        return None

    def _store_all(self, taken: Sequence[StoredRow]) -> list[StoredRow]:
        """Store rows, and return those that are to be tried again."""
        errors, kept = self._errors_of(taken)
        failed, reason, dropped = [], "", [one for one in taken if not one.needed and one.row.id in errors]
        if dropped:
            self._note_dropped(len(dropped), str(errors[dropped[0].row.id]))
        for one in taken:
            error = None if one in kept else errors.get(one.row.id)
            if error is not None and one.needed and not isinstance(error, ResultNotStorable):
                reason = reason or str(error)
                if not self._is_draining and one.is_wanted():
                    failed.append(one)
                    continue
            try:
                one.on_stored(error)
            except BaseException as failure:  # other messages wait for this thread
                log.error("internal_error", id=one.row.id, task=one.row.task, exc_info=failure)
        if reason:
            self._note_failure(reason, len(failed))
        elif not dropped or len(dropped) < len(taken):
            self._note_success(len(taken))
        return failed

    def _errors_of(self, taken: Sequence[StoredRow]) -> tuple[Mapping[str, ResultStoreError], set[StoredRow]]:
        """Put rows; return the errors by their ids, and those that were not put, since there is a reply already."""
        try:
            kept = self._with_reply([one for one in taken if not one.replaces])
            return self._store.put([one.row for one in taken if one not in kept]), kept
        except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
            known = isinstance(error, ResultStoreError | ConfigError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            return dict.fromkeys((one.row.id for one in taken), ResultStoreError(reason)), set()

    def _with_reply(self, rows: Sequence[StoredRow]) -> set[StoredRow]:
        found = self._store.get([one.row.id for one in rows]) if rows else {}
        kept = set()
        for one in rows:
            row = found.get(one.row.id)
            if row is not None and row.has_reply_of(one.row, self._now()):
                kept.add(one)
        return kept

    def _note_failure(self, reason: str, waiting: int) -> None:
        now = self._monotonic()
        if self._failing_since is None:
            self._failing_since = now
        log.warning("results_not_stored", waiting=waiting + len(self._waiting), reason=reason)
        if self.problem is None and not self._is_draining and now - self._failing_since >= DOWN_AFTER:
            self.problem = reason
            log.error("result_store_down", reason=reason, effect="nothing new is started until results can be stored")
            self._on_down(True)

    def _note_dropped(self, count: int, reason: str) -> None:
        now = self._monotonic()
        if now >= self._log_dropped_at:
            self._log_dropped_at = now + REPEAT_LOG_AFTER
            log.warning("tracking_not_stored", rows=count, reason=reason, effect="status() does not show what it could")

    def _note_success(self, count: int) -> None:
        if self._failing_since is not None:
            log.info("results_stored_again", seconds=round(self._monotonic() - self._failing_since, 1))
            self._failing_since, self._failures = None, 0
        if self.problem is not None:
            self.problem = None
            self._on_down(False)
        self._expiry.on_stored(count, self._now())


def _forget(_: ResultStoreError | None) -> None:
    """Nothing follows."""


def _never() -> bool:
    return False
