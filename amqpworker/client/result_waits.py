"""
Wait for results in one thread, however many there are to wait for.

Decides when the thread runs: it starts with the first wait, and ends some seconds after the last one. When rows are read, and
which waits end by them, is decided by `result_reader`.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from amqpworker.client.result_reader import ResultReader
from amqpworker.errors import ResultStoreError
from amqpworker.lifecycle import LiveObjects, ThreadLimitReached, start_thread
from amqpworker.model.headers import time_text
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore, Subscription

IDLE_TIMEOUT = 10.0
"""Seconds without a wait after which the thread ends."""

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
        self.start_anew()
        WAITS.add(self)

    def start_anew(self) -> None:
        """Start without waits, as in a forked child: those that are there are of its parent."""
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
        if self._pid != os.getpid():  # forked in a way that Python does not see
            self.start_anew()
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
        reader = ResultReader(self._store, subscription, self._now, self._open.discard)
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


WAITS: LiveObjects[ResultWaits] = LiveObjects()


def _after_in_child() -> None:
    # not by the first of its threads that waits: another one may wait at the same moment
    for waits in WAITS.all():
        waits.start_anew()


os.register_at_fork(after_in_child=_after_in_child)
