"""
One publication on its way: who waits for it, until when, what is known of it so far, and how it ended.

Decides nothing; its `lane` moves it on.
"""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from typing import TypeAlias

from amqpworker.broker.channel import Prepared
from amqpworker.errors import AmqpWorkerError, NotConnected, Unconfirmed
from amqpworker.log.logger import get_logger
from amqpworker.routing.queues import Requirement

__all__ = ["PendingPublish", "WhenDone"]

log = get_logger(__name__)

WhenDone: TypeAlias = Callable[[AmqpWorkerError | None], None]
"""Called in the I/O thread with the error, or None once the broker confirmed and did not return the message."""

# The I/O thread keeps the deadlines; this much later its silence is an error of its own.
GRACE = 5.0


class PendingPublish:
    """
    A publication between its caller and the broker's confirm.

    With `resend` it is published again if its confirm was lost. `wanted` is asked before it is written, if it is set.
    `channel` is the serial number of the channel that it was written on last, 0 before. `lost` is why a confirm of it
    was lost ("" if none was): from then on it is unknown whether it arrived. `publish_errors` counts the broker's nacks.
    """

    __slots__ = (
        "_waiter",
        "alone",
        "channel",
        "deadline",
        "done",
        "error",
        "lost",
        "prepared",
        "problem",
        "refusals",
        "requirements",
        "resend",
        "returned",
        "size",
        "wanted",
        "when_done",
    )

    def __init__(
        self,
        prepared: Prepared,
        deadline: float,
        requirements: tuple[Requirement, ...] = (),
        when_done: WhenDone | None = None,
        resend: bool = False,
    ) -> None:
        self.prepared = prepared
        self.size = len(prepared.data)
        self.deadline = deadline
        self.requirements = requirements
        self.when_done = when_done
        self.resend = resend
        self.wanted: Callable[[], bool] | None = None
        self.done = False
        self.error: AmqpWorkerError | None = None
        self.returned: str | None = None
        self.lost = ""
        self.alone = False
        """Whether all that may have gone wrong with it before was the end of a channel that it may have caused itself."""
        self.problem: AmqpWorkerError | None = None
        """Why it could not be written yet, if that may pass: what it needs could not be declared, for example."""
        self.refusals = self.channel = 0
        self._waiter: _thread.LockType | None = None

    def finish(self, error: AmqpWorkerError | None) -> None:
        """End it, once; in the I/O thread."""
        if self.done:
            return
        self.error = error
        self.done = True
        waiter = self._waiter
        if waiter is not None:
            waiter.release()
        if self.when_done is not None:
            try:
                self.when_done(error)
            except Exception as mistake:
                # Others end in the same step, and what is counted as written is written next.
                log.error("io_callback_error", exc_info=mistake)

    def is_wanted(self) -> bool:
        """Tell whether it is still to be written; if not, it has ended; in the I/O thread."""
        if self.wanted is None or self.wanted():
            return True
        self.finish(NotConnected("The message is not needed any more."))
        return False

    def wait(self) -> None:
        """Wait until it has ended; `error` then tells how. One thread may wait."""
        if self.done:
            return
        # A bare lock costs a tenth of an Event. Set it first and look again after: `finish` does the reverse.
        waiter = _thread.allocate_lock()
        waiter.acquire()
        self._waiter = waiter
        if self.done:
            return
        patience = max(0.0, self.deadline - time.monotonic()) + GRACE
        try:
            ended = waiter.acquire(timeout=min(patience, _thread.TIMEOUT_MAX))
        except BaseException:
            # Ctrl-C: it has no caller any more, and closing must not wait for it either.
            self.done = True
            raise
        if not ended:
            self.error = Unconfirmed("The thread that talks to RabbitMQ did not answer: the message may have arrived.")
            self.done = True
