"""
Calls that wait for their answer, by correlation id.

Decides who gets which answer and when waiting ends. A correlation id is made for each call: the task id may be one that
was used before, whose late answer must not be taken for this one's. Knows no connection: the one who reads the replies calls
`resolve`, the one who loses the connection `fail_asked`, any thread opens calls and waits.
"""

from __future__ import annotations

import copy
import itertools
import os
from _thread import allocate_lock
from threading import TIMEOUT_MAX

from amqpworker.errors import AmqpWorkerError, CallTimeout

__all__ = ["Calls", "PendingCall"]


class PendingCall:
    """
    One call that waits for its answer.

    A bare lock, held until the answer is there, wakes its thread in less time than an event or condition, which are
    made of several.
    """

    __slots__ = ("_body", "_calls", "_ended", "_error", "_lock", "asked", "correlation_id")

    def __init__(self, calls: Calls, correlation_id: str) -> None:
        self.correlation_id = correlation_id
        self.asked = 0  # the channel on which the broker has confirmed the question, by its serial number
        self._calls = calls
        self._body: bytes | None = None
        self._error: AmqpWorkerError | None = None
        self._ended = False
        self._lock = allocate_lock()
        self._lock.acquire()

    def wait(self, timeout: float) -> bytes:
        """
        Return the answer; whatever the end, the call is forgotten.

        Raises:
            CallTimeout: none came within `timeout` seconds.
            AmqpWorkerError: what `fail_asked` was told.
        """
        if self._body is None and self._error is None:
            try:
                answered = self._lock.acquire(timeout=min(max(timeout, 0.0), TIMEOUT_MAX))
            except BaseException:
                self.forget()
                raise
            if not answered and self.forget():
                raise CallTimeout(f"No answer to call {self.correlation_id} within {timeout:g} s.")
            if not answered:
                # taken out by the one who answers at this very moment
                self._lock.acquire()
        if self._error is not None:
            # one instance must not be raised by many threads
            raise copy.copy(self._error)
        assert self._body is not None
        return self._body

    def forget(self) -> bool:
        """Wait no more, so that an answer is dropped; false where the call has ended already."""
        if self._ended:
            return False
        self._ended = True
        return self._calls.take(self.correlation_id) is not None

    def settle(self, body: bytes | None, error: AmqpWorkerError | None = None) -> None:
        """Give the answer, once: the one who took the call out does it."""
        self._ended = True
        self._body = body
        self._error = error
        self._lock.release()


class Calls:
    """
    The calls of one process that wait for an answer.

    Each call is taken out of the dictionary by exactly one of its answer, its time-out and the loss of the
    connection: `dict.pop` is atomic, so no further lock is needed.
    """

    def __init__(self) -> None:
        self._pending: dict[str, PendingCall] = {}
        # Not only counted: in a queue that programs share for their answers, each sees those of the others.
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._pending)

    def open(self) -> PendingCall:
        """Begin to wait for an answer; its correlation id is one that no call had before."""
        call = PendingCall(self, f"{self._prefix}-{next(self._numbers):x}")
        self._pending[call.correlation_id] = call
        return call

    def take(self, correlation_id: str) -> PendingCall | None:
        """Take a call out, so that nobody else answers it."""
        return self._pending.pop(correlation_id, None)

    def resolve(self, correlation_id: str, body: bytes) -> bool:
        """Hand an answer to the call that waits for it; false where none does: it is late, or not ours."""
        call = self.take(correlation_id)
        if call is None:
            return False
        call.settle(body)
        return True

    def are_expected(self, channel: int) -> bool:
        """Tell whether a call waits that was asked on the channel with this serial number."""
        return any(call.asked == channel for call in list(self._pending.values()))

    def fail_asked(self, channel: int, error: AmqpWorkerError) -> None:
        """
        End all calls that have been asked on the channel with this serial number.

        With the channel, the reply address that their requests carried is gone (direct reply-to): no answer can come.
        What has not been asked yet will be on the next channel.
        """
        for correlation_id, call in list(self._pending.items()):
            if call.asked == channel and self.take(correlation_id) is call:
                call.settle(None, error)
