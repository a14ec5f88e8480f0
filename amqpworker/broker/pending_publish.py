"""A publication that is not confirmed yet: its deadline, who waits for it, what is known of it, and how it ended."""

from __future__ import annotations

import _thread
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from amqpworker.broker.amqp.encode import encode_publish
from amqpworker.errors import AmqpWorkerError, NotConnected, Unconfirmed
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Publication
from amqpworker.routing.queues import Requirement

log = get_logger(__name__)

OnDone: TypeAlias = Callable[[AmqpWorkerError | None], None]
"""Called with the error, or with None once the message is confirmed; in the thread or event loop of the connection."""

# What keeps the connection ends it at its deadline; if it has not done so this much later, that is an error of its own.
GRACE = 5.0


@dataclass(slots=True, eq=False)
class PendingPublish:
    """A publication between its caller and the broker's confirm."""

    publication: Publication
    timeout: float
    """The whole time that it has, in seconds."""
    requirements: tuple[Requirement, ...] = ()
    on_done: OnDone | None = None
    resend: bool = False
    """Whether it is published again if its confirm is lost."""
    deadline: float = field(init=False)
    data: bytes = field(init=False)
    """Its frames, for the channel with `channel_number` and frames of up to `frame_max` bytes."""
    channel_number: int = field(init=False)
    frame_max: int = field(init=False)
    size: int = field(init=False)
    """How many bytes it counts for while it is in flight."""
    wanted: Callable[[], bool] | None = None
    """Called before it is written."""
    channel: int = field(init=False, default=0)
    """The serial number of the channel that it was last written on."""
    nacks: int = field(init=False, default=0)
    returned: str | None = field(init=False, default=None)
    lost_reason: str = field(init=False, default="")
    """Why a confirm of it was lost: from then on it is unknown whether it arrived."""
    may_have_closed_channel: bool = field(init=False, default=False)
    """Whether it was in flight only on a channel whose close it may have caused, so that it did not arrive before."""
    problem: AmqpWorkerError | None = field(init=False, default=None)
    """Why it could not be written yet, if that may be temporary: a requirement could not be declared, for example."""
    done: bool = field(init=False, default=False)
    error: AmqpWorkerError | None = field(init=False, default=None)
    _waiter: _thread.LockType | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.timeout

    @property
    def declares(self) -> bool:
        """Whether something that it requires is declared before it is written."""
        return any(one.declares for one in self.requirements)

    @property
    def is_bounded(self) -> bool:
        """Whether it meets a bound of its queue that this app knows."""
        way = (self.publication.exchange, self.publication.routing_key)
        return any(one.bounded == way for one in self.requirements)

    def encode(self, channel_number: int, frame_max: int) -> None:
        """Encode it for a channel that need not be open yet; raises a ValueError that names what cannot be encoded."""
        self.data = encode_publish(self.publication, channel_number, frame_max)
        self.channel_number, self.frame_max = channel_number, frame_max
        self.size = len(self.data)

    def finish(self, error: AmqpWorkerError | None) -> None:
        """End it, once, in the thread or event loop of the connection."""
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
        """Return whether it is still to be written; if not, it ends here. Called where `finish` is."""
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
            self.abandon()  # Ctrl-C
            raise
        if not ended:
            self.fail_as_unresponsive()

    def abandon(self) -> None:
        """End it without an error: it has no caller any more, and `close` must not wait for it either. From any thread."""
        self.done = True

    def fail_as_unresponsive(self) -> None:
        """End it as `Unconfirmed`: the thread or event loop of the connection has not ended it in time. From any thread."""
        self.error = Unconfirmed(
            "The thread, or event loop, of the connection did not respond: the message may have arrived."
        )
        self.done = True
