"""
Read the rows that are waited for.

Decides when: after a wait has begun, when the store reports a change, and from time to time in any case. A store that cannot be
read, and a row that cannot, end no wait: its caller has a timeout.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amqpworker.errors import ResultStoreError
from amqpworker.log.logger import get_logger
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore, RowsNotReadable, Subscription

if TYPE_CHECKING:
    from amqpworker.client.result_waits import ResultWait

log = get_logger(__name__)

POLL_WITHOUT_HINTS = 0.1
"""Seconds between reads as long as the subscription fails."""

RETRY_AFTER = 0.5
"""Seconds after which a store that could not be read is read again."""

READ_AT_ONCE = 1000


@dataclass(slots=True)
class ResultReader:
    """Reads the rows that are waited for; used by the thread of the waits only."""

    store: ResultStore
    subscription: Subscription
    now: Callable[[], float]
    on_closed: Callable[[ResultWait], None]
    waits: dict[str, list[ResultWait]] = field(default_factory=dict)
    _read_all_at: float = 0.0
    _is_polling: bool = False
    _has_failed: bool = False
    _is_away: bool = False
    _at_once: int = READ_AT_ONCE

    def add(self, waits: Iterable[ResultWait]) -> None:
        """Wait for these, too; their rows may be there already."""
        taken = list(waits)
        for wait in taken:
            self.waits.setdefault(wait.wanted.id, []).append(wait)
        if taken:
            added = {wait.wanted.id for wait in taken}
            with suppress(Exception):  # a failure shows again when it waits for a change
                self.subscription.watch(added)
            self._read(added)
        for wait in taken:
            wait.is_read = True

    def read_changed(self) -> None:
        """Wait for a change of rows, and read those that may have changed; all of them from time to time."""
        hint: Collection[str] | None
        try:
            hint = self.subscription.wait(max(0.0, self._read_all_at - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
            self._note_polling(error)
            # a server that is away, or starts, is not asked by each process ten times a second
            time.sleep(RETRY_AFTER if self._is_away else POLL_WITHOUT_HINTS)
            hint = None
        if hint is None or time.monotonic() >= self._read_all_at:
            self._read_all_at = time.monotonic() + self.subscription.poll_every
            self.forget_abandoned()
            self._read(set(self.waits))
        else:
            self._read({one for one in hint if one in self.waits})

    def _note_polling(self, error: Exception) -> None:
        """Log once that the store reports no changes."""
        if not self._is_polling:
            self._is_polling = True
            log.warning("results_polled", reason=str(error) or type(error).__name__, every=POLL_WITHOUT_HINTS)

    def forget_abandoned(self) -> None:
        """End waits whose callers have ended."""
        for task_id, waits in list(self.waits.items()):
            self._replace_waits(task_id, [wait for wait in waits if not wait.is_abandoned])

    def _replace_waits(self, task_id: str, waits: list[ResultWait]) -> None:
        """Replace the waits for a row; without any, its changes need not be reported."""
        if waits:
            self.waits[task_id] = waits
        elif self.waits.pop(task_id, None) is not None:
            with suppress(Exception):  # it only reports more than is needed
                self.subscription.unwatch((task_id,))

    def _read(self, ids: set[str]) -> None:
        waiting = list(ids)
        if self._at_once < READ_AT_ONCE:
            # one that takes too long alone does not keep the same others from being read
            random.shuffle(waiting)
        self._is_away = False
        while waiting:
            portion, waiting = waiting[: self._at_once], waiting[self._at_once :]
            try:
                rows = self._rows_of(portion)
            except ResultStoreError as error:
                self._note_error(portion + waiting, error)
                self._read_later()
                return
            except Exception as error:  # noqa: BLE001 - as above; each caller raises it
                for task_id in portion:
                    self._end(task_id, error)
            else:
                for task_id, row in rows.items():
                    self._end(task_id, row)
        self._at_once = min(2 * self._at_once, READ_AT_ONCE)

    def _read_later(self) -> None:
        """Read again soon, fewer rows at once: perhaps all of them took too long."""
        self._is_away = True
        self._at_once = max(1, self._at_once // 2)
        self._read_all_at = min(self._read_all_at, time.monotonic() + RETRY_AFTER)

    def _rows_of(self, ids: list[str]) -> Mapping[str, ResultRow]:
        """Return rows; those that cannot be read keep no other wait from its row."""
        foreign = None
        try:
            rows = self.store.get(ids)
        except RowsNotReadable as error:
            foreign, rows = error, error.rows
        if self._has_failed:
            self._note_error(ids, None)
        if foreign is not None:
            self._note_error(foreign.ids, foreign)
        return rows

    def _note_error(self, ids: Iterable[str], error: ResultStoreError | None) -> None:
        """Keep the error of a read, None if it has succeeded, for callers whose time is over before the next one."""
        self._has_failed = self._has_failed or error is not None
        for wait in [wait for one in ids for wait in self.waits.get(one, ())]:
            wait.error = error

    def _end(self, task_id: str, result: ResultRow | Exception) -> None:
        """End the waits for a row that it is about, or all of them with an error."""
        kept = []
        for wait in self.waits.get(task_id, ()):
            if isinstance(result, ResultRow) and not (result.reply and wait.wanted.is_of(result, self.now())):
                kept.append(wait)
            else:
                self.on_closed(wait)
                wait.on_end(result)
        self._replace_waits(task_id, kept)
