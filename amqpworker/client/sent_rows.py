"""
Store that messages were sent, for tasks with `track=True`: in one thread, which stores all rows that wait with one commit.

Decides what is dropped: a row that cannot be stored is logged and forgotten, since the message itself is confirmed. The sender
does not wait for the store. No lock is taken: a signal handler or a finalizer may send in the middle of another sending.
"""

from __future__ import annotations

import atexit
import threading
import time
from os import getpid
from queue import Empty, SimpleQueue

from amqpworker.lifecycle import LiveObjects, ThreadLimitReached, start_thread
from amqpworker.log.logger import get_logger
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore

log = get_logger(__name__)

MOST_AT_ONCE = 1000
MOST_WAITING = 20_000
"""Rows of a process; further ones are dropped."""

PAUSE = 1.0
"""Seconds after a failure, in which further rows gather."""

REPEAT_LOG_AFTER = 60.0
EXIT_TIMEOUT = 2.0


class SentRows:
    """Stores rows in the order in which they were put, in a thread of each process that puts any; safe to use from many."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        # At most one of each process: `setdefault` lets one thread decide which.
        self._writers: dict[int, _Writer] = {}

    def __del__(self) -> None:
        """End the threads of an app that was dropped without a close, once what was put is stored."""
        for writer in self._writers.values():
            writer.end_soon()

    def put(self, row: ResultRow) -> None:
        """Store a row soon, if the store can be written then; it never raises."""
        process = getpid()
        writer = self._writers.get(process)
        if writer is None:
            made = _Writer(self._store)
            writer = self._writers.setdefault(process, made)
            if writer is made:
                try:
                    start_thread(threading.Thread(target=made.run, name="amqpworker-sent-rows", daemon=True))
                except ThreadLimitReached as error:
                    self._writers.pop(process, None)
                    made.note_lost(1, str(error))
                    return
                SENT_ROWS.add(self)
        writer.put(row)

    def close(self, timeout: float) -> None:
        """Wait up to `timeout` seconds until what was put is stored, and end the thread; a later `put` starts another."""
        writer = self._writers.pop(getpid(), None)
        if writer is not None:
            writer.end(timeout)


class _Writer:
    """The thread of one process, and what waits for it."""

    def __init__(self, store: ResultStore) -> None:
        self._store = store
        self._waiting: SimpleQueue[ResultRow | None] = SimpleQueue()
        self._hurry: SimpleQueue[None] = SimpleQueue()
        self._ended: SimpleQueue[None] = SimpleQueue()
        self._log_at = 0.0

    def put(self, row: ResultRow) -> None:
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(row)
        else:
            self.note_lost(1, f"{MOST_WAITING} rows wait for the store already")

    def end_soon(self) -> None:
        self._waiting.put(None)
        self._hurry.put(None)

    def end(self, timeout: float) -> None:
        self.end_soon()
        try:
            self._ended.get(timeout=max(0.0, timeout))
        except Empty:
            self.note_lost(self._waiting.qsize(), f"the store has not stored them within {timeout:g} s")

    def run(self) -> None:
        """Store what waits, until `end` is called; one thread does."""
        while (first := self._waiting.get()) is not None:
            rows, is_last = self._gathered(first)
            reason = self._store_all(rows)
            if reason:
                self.note_lost(len(rows), reason)
            if is_last:
                break
            if reason:
                self._pause()
        self._ended.put(None)

    def _gathered(self, first: ResultRow) -> tuple[list[ResultRow], bool]:
        """Return the rows that wait, and whether no more follow."""
        rows = [first]
        while len(rows) < MOST_AT_ONCE:
            try:
                row = self._waiting.get_nowait()
            except Empty:
                break
            if row is None:
                return rows, True
            rows.append(row)
        return rows, False

    def _store_all(self, rows: list[ResultRow]) -> str:
        """Store rows; return why some are not stored, "" if all are."""
        try:
            errors = self._store.put(rows)
        except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
            return f"{type(error).__name__}: {error}"
        return next((str(error) for error in errors.values()), "")

    def _pause(self) -> None:
        try:
            self._hurry.get(timeout=PAUSE)
        except Empty:
            return
        self._hurry.put(None)  # for the next pause, too

    def note_lost(self, count: int, reason: str) -> None:
        """Log that rows are not stored, not more often than once a minute."""
        now = time.monotonic()
        if count and now >= self._log_at:
            self._log_at = now + REPEAT_LOG_AFTER
            log.warning("tracking_not_stored", rows=count, reason=reason, effect="status() may show an earlier state")


SENT_ROWS: LiveObjects[SentRows] = LiveObjects()


def _close_all() -> None:
    """At the exit of the interpreter: wait a little for what was put."""
    until = time.monotonic() + EXIT_TIMEOUT
    for rows in SENT_ROWS.of_this_process():
        rows.close(until - time.monotonic())


atexit.register(_close_all)
