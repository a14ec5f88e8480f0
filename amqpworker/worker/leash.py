"""
The leash of a worker process: a pipe that its parent holds open, so that its end tells that the parent is gone.

Decides what happens then: before there is anything to drain the process ends at once, later it drains. A process that
hangs with the interpreter's lock held does not notice: it is ended by its supervisor's heir.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from amqpworker.logs import get_logger
from amqpworker.worker.report import STOPPED

__all__ = ["Leash"]

# Not `__name__`: its lines are the process's.
log = get_logger("amqpworker.worker.process")


class Leash:
    """Watches the descriptor of a leash in a thread of its own; `None` watches nothing."""

    def __init__(self, descriptor: int | None) -> None:
        self._drain: Callable[[], None] | None = None
        self._lock = threading.Lock()
        if descriptor is not None:
            # What a task starts must not hold it.
            os.set_inheritable(descriptor, False)
            watching = threading.Thread(target=self._watch, args=(descriptor,), name="amqpworker-parent", daemon=True)
            watching.start()

    def drain_by(self, drain: Callable[[], None]) -> None:
        """Have `drain` called at its end, from now on; until then the process just ends."""
        with self._lock:
            self._drain = drain

    def _watch(self, descriptor: int) -> None:
        try:
            while os.read(descriptor, 1024):
                pass
        except OSError as error:
            log.debug("parent_pipe_error", error=repr(error))
        with self._lock:
            if self._drain is None:
                log.warning("parent_gone", effect="ending: nothing has begun")
                os._exit(STOPPED)
            self._drain()
