"""
Results of an app that runs inline: a wait for one first runs what is ready, and then moves the clock.

Decides that a wait ends at once, with a result or without one, unless it is in a coroutine of a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpworker.client.result_waits import ResultWait
from amqpworker.client.stored_results import StoredResults, WaitingTime

if TYPE_CHECKING:
    from amqpworker.client.result_waits import OnEnd, WantedResult
    from amqpworker.results.row import ResultRow
    from amqpworker.testing.inline_worker import InlineWorker
    from amqpworker.testing.memory_store import MemoryStore
    from amqpworker.testing.virtual_clock import VirtualClock


class InlineResults(StoredResults):
    """The rows of a store in memory, by the clock of the test."""

    def __init__(self, store: MemoryStore, clock: VirtualClock) -> None:
        super().__init__(store, clock.now)
        self._clock = clock
        self.worker: InlineWorker | None = None
        """What runs messages, once it is made."""

    def wait(self, wanted: WantedResult, seconds: float) -> ResultRow | None:
        """Return the row of a message that has ended, None if that takes longer by the clock of the test."""
        row = self._run_for(wanted, seconds)
        return super().wait(wanted, seconds) if row is None and self._is_run_by_others else row

    async def await_row(self, wanted: WantedResult, seconds: float) -> ResultRow | None:
        """As `wait`; in a coroutine of a task, other threads run what is ready meanwhile."""
        row = self._run_for(wanted, seconds)
        return await super().await_row(wanted, seconds) if row is None and self._is_run_by_others else row

    def _run_for(self, wanted: WantedResult, seconds: float) -> ResultRow | None:
        """Run what is ready and what falls due, until a message has ended; return its row, None if it has not."""
        if seconds > 0 and self.worker is not None:
            self.worker.wait_until(lambda: self._ended(wanted) is not None, seconds)
        return self._ended(wanted)

    @property
    def _is_run_by_others(self) -> bool:
        """Whether the caller is a coroutine of a task: another thread runs what is ready then."""
        return self.worker is not None and self.worker.is_in_its_loop

    def waiting_time(self, seconds: float) -> WaitingTime:
        """Return how long waits last, by the clock of the test."""
        return WaitingTime(seconds, self._clock.monotonic)

    def begin(self, wanted: WantedResult, on_end: OnEnd, seconds: float) -> ResultWait:
        """Begin to wait for a result: it ends now if the message ends within `seconds` by the clock of the test."""
        row = self._run_for(wanted, seconds)
        if row is None:
            return super().begin(wanted, on_end, seconds)
        on_end(row)
        return ResultWait(wanted, on_end)

    def note_sent(self, row: ResultRow) -> None:
        """Store that a message was sent, now: a test sees it at once."""
        self.store.put((row,))

    def _ended(self, wanted: WantedResult) -> ResultRow | None:
        row = self.row(wanted)
        return row if row is not None and row.reply else None
