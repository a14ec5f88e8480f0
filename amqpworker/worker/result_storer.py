"""
Store the results of tasks in one thread, which stores all rows that wait with one commit.

Decides when to try again, and when to stop: once the worker drains, or the broker redelivers the message anyway. A row that cannot
be stored although the store works does not hold up others: it is tried again alone. What follows a commit, or a refusal, is decided
by `settle`, which acknowledges nothing before it.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.lifecycle import backoff, start_thread
from amqpworker.log.logger import get_logger
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.results.expiry import Expiry
from amqpworker.results.row import ResultRow, record_id
from amqpworker.results.store import ResultNotStorable, ResultStore, RowsNotReadable

log = get_logger(__name__)

MOST_AT_ONCE = 1000
FIRST_PAUSE, MAX_PAUSE = 0.1, 5.0
DOWN_AFTER = 1.0
"""Seconds after the first failed commit, from which on the process starts nothing new."""

MAX_PAUSE_ALONE = 60.0
"""Seconds between two attempts to store a row that cannot be stored although the store works."""

PROBE = record_id("aw-probe")
"""The id of a row that is stored to learn whether the store works."""

MOST_NOTES = 20_000
"""A row that nothing depends on is dropped if this many wait already."""

REPEAT_LOG_AFTER = 60.0


@dataclass(slots=True, eq=False)
class StoredRow:
    """
    A row to store; `on_stored` is called with None once that is done, or with why it is not known to be.

    Unless it `replaces`, a reply of the same message that is stored already stays. It is tried again as long as `is_wanted`
    returns true. A row that is not `needed` is tried once, and if that fails, it is only logged.
    """

    row: ResultRow
    on_stored: Callable[[ResultStoreError | None], None]
    is_wanted: Callable[[], bool]
    replaces: bool = True
    needed: bool = True
    attempts_alone: int = 0
    again_at: float = 0.0
    """When it is tried again alone, by the monotonic clock."""


class ResultStorer:
    """
    Stores rows in the order in which they were put; `put` may be called from any thread.

    `store_waiting` is called by one thread: its own, once `start` was called. That thread calls `on_down` with true once the store
    has been failing for `DOWN_AFTER` seconds, and with false once it works.
    """

    def __init__(
        self, store: ResultStore, clock: Clock = CLOCK, on_down: Callable[[bool], None] = lambda _: None
    ) -> None:
        self._store = store
        self._expiry = Expiry(store)
        self._now, self._monotonic = clock
        self._on_down = on_down
        self._waiting: deque[StoredRow] = deque()
        self._aside: deque[StoredRow] = deque()
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
        return not (self._waiting or self._aside or self._is_storing)

    def put(self, row: StoredRow) -> None:
        """Store a row soon."""
        self._waiting.append(row)
        # It locks, and many threads put; the storing thread clears it before it looks for rows.
        if not self._woken.is_set():
            self._woken.set()

    def note(self, row: ResultRow) -> None:
        """Store a row that nothing depends on soon, if the store can be written to then; it is dropped if too many wait."""
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
                self._woken.wait(self._until_alone())

    def store_waiting(self) -> float | None:
        """Store what waits, all at once; return how long to wait before what failed is tried again, None if the store works."""
        self._is_storing = True
        try:
            alone = self._due_alone()
            taken = [alone] if alone is not None else self._taken()
            failed, works = self._store_all(taken, alone is not None) if taken else ([], True)
            if works:
                self._put_aside(failed)
            else:
                self._waiting.extendleft(reversed(failed))
        finally:
            self._is_storing = False
        if works or not failed:
            return None
        self._failures += 1
        return backoff(FIRST_PAUSE, MAX_PAUSE, self._failures) * random.uniform(0.5, 1.0)  # noqa: S311

    def _taken(self) -> list[StoredRow]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]

    def _due_alone(self) -> StoredRow | None:
        """Remove and return the next row that is to be tried alone, None if none is due."""
        one = min(self._aside, key=lambda one: one.again_at, default=None)
        if one is None or not (self._is_draining or one.again_at <= self._monotonic()):
            return None
        self._aside.remove(one)
        return one

    def _put_aside(self, failed: Sequence[StoredRow]) -> None:
        """Try rows alone later: at once if they have failed together with others."""
        for one in failed:
            one.again_at = self._monotonic() + backoff(DOWN_AFTER, MAX_PAUSE_ALONE, one.attempts_alone)
            one.attempts_alone += 1
            self._aside.append(one)

    def _until_alone(self) -> float | None:
        """Return the seconds until a row is tried alone, None if there is none."""
        if not self._aside:
            return None
        return max(0.0, min(one.again_at for one in self._aside) - self._monotonic())

    def _store_all(self, taken: Sequence[StoredRow], alone: bool) -> tuple[list[StoredRow], bool]:
        """Store rows; return those that are to be tried again, and whether the store works."""
        by_id, kept = self._errors_of(taken)
        errors = {one: None if one in kept else by_id.get(one.row.id) for one in taken}
        failed = [one for one, error in errors.items() if _may_pass(one, error)]
        again = {one for one in failed if not self._is_draining and one.is_wanted()}
        for one, error in errors.items():
            if one not in again:
                self._end(one, error)
        return [one for one in failed if one in again], self._note_outcome(errors, failed, kept, alone)

    def _end(self, one: StoredRow, error: ResultStoreError | None) -> None:
        try:
            one.on_stored(error)
        except BaseException as failure:  # other messages wait for this thread
            log.error("internal_error", id=one.row.id, task=one.row.task, exc_info=failure)

    def _note_outcome(
        self,
        errors: Mapping[StoredRow, ResultStoreError | None],
        failed: Sequence[StoredRow],
        kept: set[StoredRow],
        alone: bool,
    ) -> bool:
        """Log what could not be stored, and note and return whether the store works."""
        dropped = [str(error) for one, error in errors.items() if error is not None and not one.needed]
        if dropped:
            self._note_dropped(len(dropped), dropped[0])
        if not failed:
            if len(dropped) < len(errors):
                self._note_success(len(errors))
            return True
        reason = str(errors[failed[0]])
        log.warning("results_not_stored", waiting=len(failed) + len(self._waiting) + len(self._aside), reason=reason)
        some_are_stored = any(error is None for one, error in errors.items() if one not in kept)
        if some_are_stored or self._is_row_at_fault(alone):
            self._note_success(0)
            return True
        self._note_failure(reason)
        return False

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
        kept = set()
        try:
            found = self._store.get([one.row.id for one in rows]) if rows else {}
        except RowsNotReadable as error:
            found = error.rows
        for one in rows:
            row = found.get(one.row.id)
            if row is not None and row.has_reply_of(one.row, self._now()):
                kept.add(one)
        return kept

    def _is_row_at_fault(self, alone: bool) -> bool:
        """Return whether the store works although no row could be stored: for a while, or one alone."""
        since = self._failing_since
        if self._is_draining or not (alone or (since is not None and self._monotonic() - since >= DOWN_AFTER)):
            return False
        now = self._now()
        with suppress(Exception):  # it does not work
            return not self._store.put([ResultRow(PROBE, "done", "", b"", "", now, now + 1.0)])
        return False

    def _note_failure(self, reason: str) -> None:
        now = self._monotonic()
        if self._failing_since is None:
            self._failing_since = now
        if self.problem is None and not self._is_draining and now - self._failing_since >= DOWN_AFTER:
            self.problem = reason
            log.error("result_store_down", reason=reason, effect="nothing new is started until results can be stored")
            self._on_down(True)

    def _note_dropped(self, count: int, reason: str) -> None:
        now = self._monotonic()
        if now >= self._log_dropped_at:
            self._log_dropped_at = now + REPEAT_LOG_AFTER
            log.warning("tracking_not_stored", rows=count, reason=reason, effect="status() may show an earlier state")

    def _note_success(self, count: int) -> None:
        if self._failing_since is not None:
            log.info("results_stored_again", seconds=round(self._monotonic() - self._failing_since, 1))
            self._failing_since, self._failures = None, 0
        if self.problem is not None:
            self.problem = None
            self._on_down(False)
        self._expiry.on_stored(count, self._now())


def _may_pass(one: StoredRow, error: ResultStoreError | None) -> bool:
    """Return whether a row may be stored later."""
    return error is not None and one.needed and not isinstance(error, ResultNotStorable)


def _forget(_: ResultStoreError | None) -> None:
    """Nothing follows."""


def _never() -> bool:
    return False
