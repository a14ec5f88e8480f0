"""
The results of an app's messages in its store: read at once, waited for in a thread, or awaited.

Decides what a caller gets: the row of a message that has ended, nothing if the time is over, or the error of the store. A store
that does not answer keeps no caller for longer than its timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from queue import Empty, SimpleQueue

from amqpworker.client.awaiting import set_done, wait_until_done
from amqpworker.client.handover import handover_to_this_loop
from amqpworker.client.result_waits import OnEnd, ResultWait, ResultWaits, WantedResult
from amqpworker.client.sent_rows import SentRows
from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.model.headers import EARLIEST, EPOCH, LATEST, MILLISECOND, time_of
from amqpworker.model.message_status import Status
from amqpworker.model.progress import decode_progress
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore

LONGEST_SLICE = 0.5
"""Seconds that the main thread waits at once: handlers of signals that another thread receives run only between such waits."""

LOOK_EVERY = 0.005
FIRST_READ = 1.0
"""Seconds that a wait takes at least if its row was not read yet: one that is there is found, however short the timeout is."""


class StoredResults:
    """The rows of one store, and the waits for them; safe to use from many threads."""

    def __init__(self, store: ResultStore, now: Callable[[], float] = time.time) -> None:
        self.store = store
        self._now = now
        self._waits = ResultWaits(store, now)
        self._sent_rows = SentRows(store)

    def row(self, wanted: WantedResult) -> ResultRow | None:
        """Return the row about a message, None if there is none; raises what `ResultStore.get` raises."""
        row = self.store.get((wanted.id,)).get(wanted.id)
        return row if wanted.is_of(row, self._now()) else None

    def wait(self, wanted: WantedResult, seconds: float) -> ResultRow | None:
        """
        Return the row of a message that has ended, None if that takes longer.

        A store that cannot be read is read again until the time is over; raises what `ResultStore.get` raises then. Another
        thread reads it: it may take longer than that to answer.
        """
        if seconds <= 0:
            return _ended(self.row(wanted))
        ended: SimpleQueue[ResultRow | Exception] = SimpleQueue()
        waiting, wait = WaitingTime(seconds), self._waits.add(wanted, ended.put)
        try:
            while not waiting.is_over(wait):
                try:
                    return row_or_raise(ended.get(timeout=waiting.slice()))
                except Empty:
                    pass
        finally:
            self._waits.abandon(wait)
        raise_last_error(wait)
        return None

    async def await_row(self, wanted: WantedResult, seconds: float) -> ResultRow | None:
        """As `wait`, without blocking the event loop."""
        if seconds <= 0:
            return _ended(await asyncio.to_thread(self.row, wanted))
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        handover, ended = handover_to_this_loop(), list[ResultRow | Exception]()

        def on_end(result: ResultRow | Exception) -> None:
            ended.append(result)
            handover.put(partial(set_done, future))

        waiting, wait = WaitingTime(seconds), self._waits.add(wanted, on_end)
        try:
            await wait_until_done(future, seconds)
            while not (ended or waiting.is_over(wait)):
                await asyncio.sleep(LOOK_EVERY)
        finally:
            self._waits.abandon(wait)
        if ended:
            return row_or_raise(ended[0])
        raise_last_error(wait)
        return None

    def waiting_time(self, seconds: float) -> WaitingTime:
        """Return how long waits last that begin now."""
        return WaitingTime(seconds)

    def begin(self, wanted: WantedResult, on_end: OnEnd, seconds: float) -> ResultWait:  # noqa: ARG002 - of inline tests
        """Begin to wait for a result, for `seconds`: `on_end` is called in another thread, once, with its row or an error."""
        return self._waits.add(wanted, on_end)

    def abandon(self, wait: ResultWait) -> None:
        """End a wait: its caller does not wait any more."""
        self._waits.abandon(wait)

    def status(self, wanted: WantedResult) -> Status:
        """Return how far a message has come; raises what `ResultStore.get` raises."""
        sent_at = None if wanted.first_sent is None else moment(wanted.first_sent)
        row = self.row(wanted)
        if row is None:
            return Status(state="pending", sent_at=sent_at)
        first_sent = time_of(row.first_sent)
        return Status(
            state=row.state,
            attempt=row.attempt,
            worker=row.worker,
            sent_at=sent_at if first_sent is None else moment(first_sent),
            started_at=moment(row.started_at * 1000) if row.started_at else None,
            stored_at=moment(row.stored_at * 1000) if row.stored_at else None,
            progress=decode_progress(row.progress) if row.progress else None,
        )

    def note_sent(self, row: ResultRow) -> None:
        """Store soon, in another thread, that a message was sent; it never raises."""
        self._sent_rows.put(row)

    def close(self, timeout: float = 0.0) -> None:
        """
        Close what the waits use, then the store. Both can still be used: they connect again.

        Rows about sent messages are waited for up to `timeout` seconds.
        """
        self._waits.close()
        self._sent_rows.close(timeout)
        self.store.close()


class WaitingTime:
    """How long waits for results last, by a clock."""

    def __init__(self, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        now = monotonic()
        self._until, self._first_read_until = now + seconds, now + FIRST_READ

    @property
    def left(self) -> float:
        """The seconds that are left, 0 if the time is over."""
        return max(0.0, self._until - self._monotonic())

    def is_over(self, *waits: ResultWait) -> bool:
        """Return whether the time is over; a while later if the rows of some waits were not read yet."""
        now = self._monotonic()
        return now >= self._until and (now >= self._first_read_until or all(wait.is_read for wait in waits))

    def slice(self) -> float:
        """Return for how long to wait before the next look."""
        return min(max(self.left, LOOK_EVERY), LONGEST_SLICE)


def moment(milliseconds: float) -> datetime:
    """Return a time (milliseconds since the epoch) in UTC, the nearest one that `datetime` has."""
    return EPOCH + min(max(milliseconds, EARLIEST), LATEST) * MILLISECOND


def _ended(row: ResultRow | None) -> ResultRow | None:
    """Return a row if it has a reply."""
    return row if row is not None and row.reply else None


def raise_last_error(wait: ResultWait) -> None:
    """Raise why the store could not be read the last time, if it could not."""
    if wait.error is not None:
        raise ResultStoreError(str(wait.error)) from wait.error


def row_or_raise(result: ResultRow | Exception) -> ResultRow:
    """Return the row that a wait has ended with, or raise its error."""
    if isinstance(result, ResultRow):
        return result
    # A new one: many waits may have ended with the same.
    if type(result) in (ConfigError, ResultStoreError):
        raise type(result)(str(result)) from result
    raise result
