"""
The workers of a test: what the fixture `amqp_worker` returns.

Decides that a worker which fails, or does not stop as it should, fails the test.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from amqpworker.errors import ConfigError
from amqpworker.testing.local_worker import LocalWorker
from amqpworker.testing.moved_app import POOLED
from amqpworker.testing.worker_pool import WorkerPool

if TYPE_CHECKING:
    from amqpworker.app import App


class Workers:
    """Starts workers of one app, and stops them at the end."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._started: list[LocalWorker | WorkerPool] = []

    def __call__(self, processes: int = 0, threads: int = 4, *, queues: Sequence[str] = ()) -> LocalWorker | WorkerPool:
        """
        Run a worker until the test's end: in a thread of this process if `processes` is 0; return once it consumes.

        `queues` are those that it consumes, by default all of the app.

        Raises:
            ConfigError: the number of processes or threads is not valid, or the app has no such queue.
            AssertionError: it does not start.
        """
        for name, given, least in (("processes", processes, 0), ("threads", threads, 1)):
            if type(given) is not int or given < least:
                raise ConfigError(f"amqp_worker({name}={given!r:.60}): it must be a whole number from {least} on.")
        for queue in queues:
            self._app.plan.check_known(queue)
        if processes:
            return self._run_pool(WorkerPool(processes, threads, queues))
        return self._run_here(LocalWorker(self._app, target=POOLED, threads=threads, queues=tuple(queues)))

    def _run_pool(self, pool: WorkerPool) -> WorkerPool:
        self._started.append(pool)
        pool.start()
        return pool

    def _run_here(self, worker: LocalWorker) -> LocalWorker:
        self._started.append(worker)
        worker.start()
        worker.wait_until_consuming()
        return worker

    def stop(self) -> None:
        """Stop all of them, the last one first; raises AssertionError if one does not stop, or its exit code is not 0."""
        with ExitStack() as ends:
            for worker in self._started:
                ends.callback(_stop, worker)
            self._started.clear()


def _stop(worker: LocalWorker | WorkerPool) -> None:
    code = worker.stop()
    if code:
        raise AssertionError(f"A worker ended with exit code {code}, not 0: the log shows why.")
