"""
The leash of a worker process: a pipe by which its parent answers it, and whose end tells that the parent is gone.

Decides what happens at its end: before there is anything to drain the process ends at once, later it drains. A process that
hangs with the interpreter's lock held does not notice: it is ended by its supervisor's heir.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from amqpworker.logs import get_logger
from amqpworker.worker.report import STOPPED, answers_in

__all__ = ["Leash"]

READ_BYTES = 65536

# Not `__name__`: its lines are the process's.
log = get_logger("amqpworker.worker.process")


class Leash:
    """Reads the descriptor of a leash in a thread of its own; `None` reads nothing."""

    def __init__(self, descriptor: int | None) -> None:
        self._drain: Callable[[], None] | None = None
        self._answered: Callable[[str, bool], None] = lambda *_: None
        self._lock = threading.Lock()
        if descriptor is not None:
            # What a task starts must not hold it.
            os.set_inheritable(descriptor, False)
            watching = threading.Thread(target=self._watch, args=(descriptor,), name="amqpworker-parent", daemon=True)
            watching.start()

    def heard_by(self, drain: Callable[[], None], answered: Callable[[str, bool], None]) -> None:
        """Have `drain` called at its end, from now on, and `answered` with each answer; until then the process just ends."""
        with self._lock:
            self._drain, self._answered = drain, answered

    def _watch(self, descriptor: int) -> None:
        unread = b""
        try:
            while data := os.read(descriptor, READ_BYTES):
                answers, unread = answers_in(unread + data)
                for answer in answers:
                    self._answered(answer.key, answer.suspect)
        except OSError as error:
            log.debug("parent_pipe_error", error=repr(error))
        with self._lock:
            if self._drain is None:
                log.warning("parent_gone", effect="ending: nothing has begun")
                os._exit(STOPPED)
            self._drain()
