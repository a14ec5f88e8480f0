"""A publication that is not confirmed yet: its deadline, who waits for it, what is known of it, and how it ended."""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from typing import TypeAlias

from amqpworker.broker.amqp.encode import encode_publish
from amqpworker.errors import AmqpWorkerError, NotConnected, Unconfirmed
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Publication
from amqpworker.routing.queues import Requirement

log = get_logger(__name__)

OnDone: TypeAlias = Callable[[AmqpWorkerError | None], None]
"""Called in the I/O thread with the error, or with None once the broker has confirmed and not returned the message."""

# The I/O thread keeps the deadlines; if it has not done so this much later, that is an error of its own.
GRACE = 5.0


class PendingPublish:
    """
    A publication between its caller and the broker's confirm.

    `data` are its frames, for the channel with `channel_number` and frames of up to `frame_max` bytes, and `size` is how many
    bytes they count for. With `resend` it is published again if its confirm is lost. `wanted`, if set, is called before it is
    written. `channel` is the serial number of the channel that it was last written on, 0 before. `lost_reason` is why a
    confirm of it was lost ("" if none was): from then on it is unknown whether it arrived. `nacks` counts the broker's nacks.
    `timeout` is the whole time that it had, in seconds, for error texts.
    """

    __slots__ = (
        "_waiter",
        "channel",
        "channel_number",
        "data",
        "deadline",
        "done",
        "error",
        "frame_max",
        "lost_reason",
        "may_have_closed_channel",
        "nacks",
        "on_done",
        "problem",
        "publication",
        "requirements",
        "resend",
        "returned",
        "size",
        "timeout",
        "wanted",
    )

    def __init__(
        self,
        publication: Publication,
        timeout: float,
        requirements: tuple[Requirement, ...] = (),
        on_done: OnDone | None = None,
        resend: bool = False,
    ) -> None:
        self.publication = publication
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self.requirements = requirements
        self.on_done = on_done
        self.resend = resend
        self.wanted: Callable[[], bool] | None = None
        self.done = False
        self.error: AmqpWorkerError | None = None
        self.returned: str | None = None
        self.lost_reason = ""
        self.may_have_closed_channel = False
        """Whether it was in flight only on a channel whose close it may have caused, so that it did not arrive before."""
        self.problem: AmqpWorkerError | None = None
        """Why it could not be written yet, if that may be temporary: a requirement could not be declared, for example."""
        self.nacks = self.channel = 0
        self._waiter: _thread.LockType | None = None

    def encode(self, channel_number: int, frame_max: int) -> None:
        """Encode it for a channel that need not be open yet; raises a ValueError that names what cannot be encoded."""
        self.data = encode_publish(self.publication, channel_number, frame_max)
        self.channel_number, self.frame_max = channel_number, frame_max
        self.size = len(self.data)

    def finish(self, error: AmqpWorkerError | None) -> None:
        """End it, once, in the I/O thread."""
        if self.done:
            return
        self.error = error
        self.done = True
        waiter = self._waiter
        if waiter is not None:
            waiter.release()
        if self.on_done is not None:
            try:
                self.on_done(error)
            except Exception as mistake:
                # Others end in the same step, and what is counted as written is written after it.
                log.error("io_callback_error", exc_info=mistake)

    def is_wanted(self) -> bool:
        """Return whether it is still to be written; if not, it ends here. In the I/O thread."""
        if self.wanted is None or self.wanted():
            return True
        self.finish(NotConnected("The message is no longer needed."))
        return False

    def wait(self) -> None:
        """Wait until it has ended, with or without an `error`. One thread may wait."""
        if self.done:
            return
        # A bare lock costs a tenth of an Event. It is set before `done` is read again: `finish` does the reverse.
        waiter = _thread.allocate_lock()
        waiter.acquire()
        self._waiter = waiter
        if self.done:
            return
        patience = max(0.0, self.deadline - time.monotonic()) + GRACE
        try:
            ended = waiter.acquire(timeout=min(patience, _thread.TIMEOUT_MAX))
        except BaseException:
            # Ctrl-C: it has no caller any more, and `close` must not wait for it either.
            self.done = True
            raise
        if not ended:
            self.error = Unconfirmed("The I/O thread of the connection did not respond: the message may have arrived.")
            self.done = True
