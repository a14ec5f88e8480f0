"""
Wait for results in one thread, however many there are to wait for.

Decides when rows are read: after a wait has begun, when the store reports a change, and from time to time in any case. The thread
starts with the first wait, and ends some seconds after the last one.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from amqpworker.errors import ResultStoreError
from amqpworker.lifecycle import ThreadLimitReached, start_thread
from amqpworker.log.logger import get_logger
from amqpworker.model.headers import time_text
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore, RowsNotReadable, Subscription

log = get_logger(__name__)

IDLE_TIMEOUT = 10.0
"""Seconds without a wait after which the thread ends."""

POLL_WITHOUT_HINTS = 0.1
"""Seconds between reads as long as the subscription fails."""

RETRY_AFTER = 0.5
"""Seconds after which a store that could not be read is read again."""

READ_AT_ONCE = 1000
CLOSE_TIMEOUT = 5.0

OnEnd: TypeAlias = Callable[[ResultRow | Exception], None]
"""Called once, in the thread of the waits: it must return soon."""


@dataclass(frozen=True, slots=True)
class WantedResult:
    """
    The result of one message.

    `first_sent` (milliseconds since the epoch) distinguishes it from that of another message with this id; None if it is not known.
    With `or_done`, another message of this id that is done counts as well: its task does not run again.
    """

    id: str
    first_sent: int | None = None
    or_done: bool = False

    def is_of(self, row: ResultRow | None, now: float) -> bool:
        """Return whether a row is about this message, and has not expired at `now`."""
        if row is None or row.expires_at <= now:
            return False
        # The id may have been used before: the row of another message is not that of this one.
        if self.first_sent is None or row.first_sent in ("", time_text(self.first_sent)):
            return True
        return self.or_done and row.state == "done"


@dataclass(slots=True, eq=False)
class ResultWait:
    """
    One wait for a result; after `is_abandoned` was set, `on_end` may still be called once.

    `error` is why the store could not be read the last time; it may work again before the caller's time is over. `is_read` is
    whether an attempt to read the row has ended.
    """

    wanted: WantedResult
    on_end: OnEnd
    is_abandoned: bool = False
    error: ResultStoreError | None = None
    is_read: bool = False


class ResultWaits:
    """The waits for results in one store; safe to use from many threads, and after a fork."""

    def __init__(self, store: ResultStore, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._start_anew()

    def _start_anew(self) -> None:
        self._pid = os.getpid()
        self._incoming: deque[ResultWait] = deque()
        self._open: set[ResultWait] = set()
        self._woken = threading.Event()
        self._is_closing = False
        self._subscription: Subscription | None = None
        # At most one: of several threads that start one `setdefault` keeps the first, without a lock.
        self._threads: dict[str, threading.Thread] = {}

    def add(self, wanted: WantedResult, on_end: OnEnd) -> ResultWait:
        """
        Begin to wait for a result: `on_end` gets its row, or an error that will not pass.

        Raises:
            ResultStoreError: the system refuses the thread that waits.
        """
        if self._pid != os.getpid():
            self._start_anew()
        wait = ResultWait(wanted, on_end)
        self._open.add(wait)
        self._incoming.append(wait)
        self._start()
        self._wake()
        return wait

    def abandon(self, wait: ResultWait) -> None:
        """End a wait: its caller does not wait any more."""
        wait.is_abandoned = True
        self._open.discard(wait)

    def close(self) -> None:
        """End the thread, and the connection that it waits with, unless other threads still wait."""
        thread = self._threads.get("") if self._pid == os.getpid() else None
        if thread is None or self._open or thread is threading.current_thread():
            return
        self._is_closing = True
        self._wake()
        thread.join(CLOSE_TIMEOUT)

    def _wake(self) -> None:
        self._woken.set()
        if (subscription := self._subscription) is not None:
            subscription.wake()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="amqpworker-results", daemon=True)
        if self._threads.setdefault("", thread) is not thread:
            return
        try:
            start_thread(thread)
        except ThreadLimitReached as error:
            del self._threads[""]
            raise ResultStoreError(f"No thread can wait for results: {error}") from error

    def _run(self) -> None:
        try:
            self._read_until_idle()
        finally:
            self._subscription, self._is_closing = None, False
            del self._threads[""]
            # One that came after the last look has found this thread, and has started none.
            if self._incoming:
                self._start_again()

    def _start_again(self) -> None:
        try:
            self._start()
        except ResultStoreError as error:
            self._end_incoming(error)

    def _read_until_idle(self) -> None:
        try:
            subscription = self._subscription = self._store.subscribe()
        except Exception as error:  # noqa: BLE001 - too many files are open, or anything in a store of another package
            self._end_incoming(ResultStoreError(f"Results cannot be waited for: {error}"))
            return
        reader = _Reader(self._store, subscription, self._now, self._open.discard)
        while True:
            self._woken.clear()
            reader.add(self._taken())
            if self._is_closing:
                reader.forget_abandoned()
            if reader.waits:
                reader.read_changed()
            elif self._is_closing or not self._woken.wait(IDLE_TIMEOUT):
                break
        with suppress(Exception):
            subscription.close()

    def _end_incoming(self, error: ResultStoreError) -> None:
        for wait in self._taken():
            self._open.discard(wait)
            wait.on_end(error)

    def _taken(self) -> Iterable[ResultWait]:
        while self._incoming:
            yield self._incoming.popleft()


@dataclass(slots=True)
class _Reader:
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
        self._is_away = False
        for start in range(0, len(waiting), READ_AT_ONCE):
            portion = waiting[start : start + READ_AT_ONCE]
            try:
                rows = self._rows_of(portion)
            except ResultStoreError as error:
                self._is_away = True
                self._note_error(portion, error)
                self._read_all_at = min(self._read_all_at, time.monotonic() + RETRY_AFTER)
            except Exception as error:  # noqa: BLE001 - as above; each caller raises it
                for task_id in portion:
                    self._end(task_id, error)
            else:
                for task_id, row in rows.items():
                    self._end(task_id, row)

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
