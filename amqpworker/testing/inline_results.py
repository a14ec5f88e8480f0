"""
Results of an app that runs inline: who waits for one has what is ready run, and then the clock moved.

Decides that a wait ends at once, with a result or without one, unless it is in a coroutine of a task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqpworker.client.result_waits import ResultWait
from amqpworker.client.stored_results import StoredResults

if TYPE_CHECKING:
    from amqpworker.client.result_waits import OnEnd, WantedResult
    from amqpworker.results.row import ResultRow
    from amqpworker.testing.inline_worker import InlineWorker
    from amqpworker.testing.memory_store import MemoryStore
    from amqpworker.testing.virtual_clock import VirtualClock


class InlineResults(StoredResults):
    """The rows of a store in memory, by the clock of the test."""

    def __init__(self, store: MemoryStore, clock: VirtualClock) -> None:
        super().__init__(store)
        self._clock = clock
        self.worker: InlineWorker | None = None
        """What runs messages, once it is made."""

    def row(self, wanted: WantedResult) -> ResultRow | None:
        """Return the row about a message, None if there is none."""
        row = self.store.get((wanted.id,)).get(wanted.id)
        return row if wanted.is_of(row, self._clock.now()) else None

    def wait(self, wanted: WantedResult, seconds: float) -> ResultRow | None:
        """Return the row of a message that has ended, None if that takes longer by the clock of the test."""
        if seconds > 0 and self.worker is not None:
            self.worker.wait_until(lambda: self._ended(wanted) is not None, seconds)
        return self._ended(wanted)

    async def await_row(self, wanted: WantedResult, seconds: float) -> ResultRow | None:
        """As `wait`; in a coroutine of a task, other threads run what is ready meanwhile."""
        row = self.wait(wanted, seconds)
        if row is None and self.worker is not None and self.worker.is_in_its_loop:
            return await super().await_row(wanted, seconds)
        return row

    def begin(self, wanted: WantedResult, on_end: OnEnd, seconds: float) -> ResultWait:
        """Wait for a result by the clock of the test, and call `on_end` now if it is there; in a coroutine of a task, later."""
        row = self.wait(wanted, seconds)
        if self.worker is not None and self.worker.is_in_its_loop:
            return super().begin(wanted, on_end, seconds)
        if row is not None:
            on_end(row)
        return ResultWait(wanted, on_end, is_over=True)

    def note_sent(self, row: ResultRow) -> None:
        """Store that a message was sent, now: a test sees it at once."""
        self.store.put((row,))

    def _ended(self, wanted: WantedResult) -> ResultRow | None:
        row = self.row(wanted)
        return row if row is not None and row.reply else None
