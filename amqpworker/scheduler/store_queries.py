"""
Asks the result store whether tasks have ended, in a thread of its own.

A store that does not respond holds up only the schedules that need it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

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
        self._changed = threading.Condition()
        self._term = 0
        self._wanted: dict[tuple[str, int], None] = {}
        self._log_at = 0.0
        start_thread(threading.Thread(target=self._run, name="amqpworker-store", daemon=True))

    def ask(self, term: int, ticks: Sequence[tuple[str, int]]) -> None:
        """Ask whether the tasks of these ticks have ended; what is asked while the store is busy is one query."""
        with self._changed:
            if term != self._term:
                self._term, self._wanted = term, {}
            self._wanted.update(dict.fromkeys(ticks))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted)
                term, ticks, self._wanted = self._term, tuple(self._wanted), {}
            self._on_answer(StoreAnswered(term, self._answers(ticks)))

    def _answers(self, ticks: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bool | None]:
        ids = {self._id_of(*tick): tick for tick in ticks}
        try:
            rows = self._store.get(tuple(ids))
        except Exception as error:  # noqa: BLE001 - a store of another package may raise anything
            self._log(str(error) or type(error).__name__)
            return dict.fromkeys(ticks)
        return {tick: task_id in rows and bool(rows[task_id].reply) for task_id, tick in ids.items()}

    def _log(self, reason: str) -> None:
        if time.monotonic() >= self._log_at:
            self._log_at = time.monotonic() + LOG_EVERY
            log.warning("results_unavailable", reason=reason, effect="schedules with overlap='skip' wait for it")
