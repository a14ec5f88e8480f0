"""
Ask the supervisor about messages that were delivered before, and hold them until it answers.

Decides how long an answer is waited for: a message without one is run in an isolated process, which is safe whatever
it has done. What the answer is, the supervisor finds out from the processes that have died.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from amqpworker.logs import get_logger
from amqpworker.message import Delivery
from amqpworker.worker.recorder import key_of

__all__ = ["Inquiry"]

log = get_logger(__name__)

# The supervisor waits a second itself for a process that is about to end.
PATIENCE = 3.0


class Inquiry:
    """
    Deliveries that are asked about.

    `ask` is given what a message is known by, and returns false where it cannot be asked now; it is None where nobody can
    be. `run` and `isolate` take a delivery once that is decided. `on_verdict` may be called from any thread, the others by
    the one that takes deliveries.
    """

    def __init__(
        self, ask: Callable[[str], bool] | None, run: Callable[[Delivery], None], isolate: Callable[[Delivery], None]
    ) -> None:
        self._ask = ask
        self._run = run
        self._isolate = isolate
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, list[Delivery]]] = {}
        self._unasked: deque[str] = deque()

    def ask_about(self, delivery: Delivery) -> None:
        """Hold a delivery until it is known whether it may have taken a process down."""
        if self._ask is None:
            self._run(delivery)
            return
        key = key_of(delivery).decode("utf-8", "replace")
        with self._lock:
            if key in self._held:
                self._held[key][1].append(delivery)
                return
            self._held[key] = (time.monotonic() + PATIENCE, [delivery])
        if self._unasked or not self._ask(key):
            self._unasked.append(key)

    def on_verdict(self, key: str, suspect: bool) -> None:
        """Let go of what was asked about under this key: to be isolated where it is a suspect, else to run."""
        with self._lock:
            _, deliveries = self._held.pop(key, (0.0, []))
        for delivery in deliveries:
            (self._isolate if suspect else self._run)(delivery)

    def look(self, now: float) -> None:
        """Ask what could not be asked before, and isolate what was not answered in time (`now` is monotonic)."""
        while self._unasked and self._ask is not None and self._ask(self._unasked[0]):
            self._unasked.popleft()
        with self._lock:
            late = [key for key, (until, _) in self._held.items() if until <= now]
        if late:
            log.warning("supervisor_silent", messages=len(late), effect="they run in isolated processes")
        for key in late:
            self.on_verdict(key, suspect=True)
