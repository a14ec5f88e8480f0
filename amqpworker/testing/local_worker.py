"""
A worker in a thread of the test: the parts of a worker process, without its signals and its supervisor.

Decides that a worker which does not start or stop as it should fails the test.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from amqpworker.testing.waiting import wait_until

if TYPE_CHECKING:
    from amqpworker.app import App


class LocalWorker:
    """
    A worker of an app; making the object starts nothing.

    `options` are those of `amqpworker worker`, such as `queues=["emails"], threads=2, drain_timeout=5`. `target` is the
    MODULE:APP from which a child process of an isolated task imports the app.
    """

    def __init__(self, app: App, *, target: str = "tests:app", **options: Any) -> None:
        # Loaded only here: the private node does not need it.
        from amqpworker.worker.assembly import assemble
        from amqpworker.worker.options import WorkerOptions

        self.app = app
        self.process = assemble(app, WorkerOptions(app=target, **options))
        self.code: int | None = None
        self._thread = threading.Thread(target=self._run, name="local-worker", daemon=True)

    def _run(self) -> None:
        self.code = self.process.run()

    def start(self) -> None:
        """Start the worker, and return at once."""
        self._thread.start()

    def wait_until_consuming(self, timeout: float = 15.0) -> None:
        """Wait until the worker consumes from all its queues; raises AssertionError if that takes longer."""
        wait_until(lambda: self.process.consumer.consuming, timeout, "the worker consumes from all its queues")

    def stop(self, timeout: float = 40.0) -> int:
        """
        Stop as SIGTERM does, and return the exit code.

        Raises:
            AssertionError: it does not stop within `timeout` seconds, or an exception has ended it.
        """
        self.process.stop_requested.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise AssertionError(f"The worker did not stop within {timeout:g} s.")
        if self.code is None:
            raise AssertionError("The worker raised an exception.")
        return self.code


@contextmanager
def running_worker(app: App, *, wait: bool = True, code: int = 0, **options: Any) -> Iterator[LocalWorker]:
    """
    Run a worker during a block, then close the app; the worker must end with this exit code.

    With `wait`, the block starts when the worker consumes. `options` are those of `LocalWorker`.
    """
    worker = LocalWorker(app, **options)
    worker.start()
    try:
        if wait:
            worker.wait_until_consuming()
        yield worker
    finally:
        ended_with = worker.stop()
        app.close()
    if ended_with != code:
        raise AssertionError(f"The worker ended with exit code {ended_with}, not {code}.")
