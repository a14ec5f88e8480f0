"""
Asks the result store whether tasks have ended, in a thread of its own.

A store that does not respond holds up only the schedules that need it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from amqpworker.errors import AmqpWorkerError
from amqpworker.lifecycle import start_thread
from amqpworker.log.logger import get_logger
from amqpworker.results.store import ResultStore
from amqpworker.scheduler.scheduler_events import StoreAnswered

log = get_logger(__name__)

LOG_EVERY = 60.0


class StoreQueries:
    """The queries of one scheduler; `id_of` returns the task id of a tick."""

    def __init__(
        self, store: ResultStore, id_of: Callable[[str, int], str], on_answer: Callable[[StoreAnswered], None]
    ) -> None:
        self._store = store
        self._id_of = id_of
        self._on_answer = on_answer
        self._queries: queue.SimpleQueue[tuple[int, Sequence[tuple[str, int]]]] = queue.SimpleQueue()
        self._log_at = 0.0
        start_thread(threading.Thread(target=self._run, name="amqpworker-store", daemon=True))

    def ask(self, term: int, ticks: Sequence[tuple[str, int]]) -> None:
        """Ask whether the tasks of these ticks have ended."""
        self._queries.put((term, ticks))

    def _run(self) -> None:
        while True:
            term, ticks = self._queries.get()
            ids = {self._id_of(*tick): tick for tick in ticks}
            try:
                rows = self._store.get(tuple(ids))
            except AmqpWorkerError as error:
                self._log(str(error))
                self._on_answer(StoreAnswered(term, dict.fromkeys(ticks)))
            else:
                ended = {tick: task_id in rows and bool(rows[task_id].reply) for task_id, tick in ids.items()}
                self._on_answer(StoreAnswered(term, ended))

    def _log(self, reason: str) -> None:
        if time.monotonic() >= self._log_at:
            self._log_at = time.monotonic() + LOG_EVERY
            log.warning("results_unavailable", reason=reason, effect="schedules with overlap='skip' wait for it")
