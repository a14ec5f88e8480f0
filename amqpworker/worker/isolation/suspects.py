"""
Ask the supervisor about messages that were delivered before, and hold them until it answers.

Decides how long to wait for an answer: a message without one runs in an isolated process, which is always safe. The
supervisor finds the answer in the recordings of the processes that have died. After a lost connection or a reload
everything that was prefetched is redelivered at once, so the supervisor is asked in batches.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from amqpworker.ipc.pipes import first_batch
from amqpworker.ipc.recorder import key_of
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery

log = get_logger(__name__)

# The supervisor waits itself: a second for a process that is about to end, and seven for what that leaves.
PATIENCE = 10.0


class SuspectQuery:
    """
    Deliveries about which the supervisor is asked.

    `ask` takes the keys of messages, and returns false if the supervisor cannot be asked now; it is None if there is no
    supervisor. `run` or `isolate` takes a delivery once that is decided. `wake` wakes the I/O thread, which then calls `flush`.
    Any thread may call `on_answer`, only the I/O thread the other methods.
    """

    def __init__(
        self,
        ask: Callable[[tuple[str, ...]], bool] | None,
        run: Callable[[Delivery], None],
        isolate: Callable[[Delivery], None],
        wake: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic = monotonic
        self._ask = ask
        self._wake = wake
        self._run = run
        self._isolate = isolate
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, list[Delivery]]] = {}
        self._unasked: deque[str] = deque()

    def ask_about(self, delivery: Delivery) -> None:
        """Hold a delivery until it is known whether it may have crashed a process."""
        if self._ask is None:
            self._run(delivery)
            return
        key = key_of(delivery).decode("utf-8", "replace")
        with self._lock:
            if key in self._held:
                self._held[key][1].append(delivery)
                return
            self._held[key] = (self._monotonic() + PATIENCE, [delivery])
        if not self._unasked:
            self._wake()
        self._unasked.append(key)

    def flush(self) -> None:
        """Ask about the deliveries that have gathered, as far as the pipe has room."""
        while self._unasked and self._ask is not None:
            batch = first_batch(self._unasked)
            if not self._ask(batch):
                return
            for _ in batch:
                self._unasked.popleft()

    def on_answer(self, keys: Sequence[str], suspect: bool) -> None:
        """Release the deliveries with these keys: isolate them if they are suspects, else run them."""
        take = self._isolate if suspect else self._run
        for key in keys:
            with self._lock:
                _, deliveries = self._held.pop(key, (0.0, []))
            for delivery in deliveries:
                take(delivery)

    def check(self, now: float) -> None:
        """Ask again what could not be asked before, and isolate deliveries without an answer in time (`now` is monotonic)."""
        self.flush()
        with self._lock:
            late = [key for key, (until, _) in self._held.items() if until <= now]
        if late:
            log.warning("supervisor_unresponsive", messages=len(late), effect="they run in isolated processes")
            self.on_answer(late, suspect=True)
