"""
Calls that wait for their reply, by correlation id.

Decides which call a reply belongs to, and when waiting ends. Each call has a correlation id of its own: the task id may
have been used before, and a late reply to that message is not the reply to this one. Threads and coroutines wait, each in
its own way; where the connection is kept, `resolve` is called for each reply, and `fail_requests_on` when the channel is lost.
"""

from __future__ import annotations

import _thread  # its functions by attribute at each use: gevent may replace them after this import
import itertools
import os
from typing import TypeVar

from amqpworker.errors import AmqpWorkerError, CallTimeout, Unconfirmed

_Call = TypeVar("_Call", bound="PendingCall")


class PendingCall:
    """One call that waits for its reply."""

    __slots__ = ("_body", "_calls", "_error", "correlation_id", "requested_on")

    def __init__(self, calls: Calls) -> None:
        self.correlation_id = calls.new_id()
        self.requested_on = 0  # serial number of the channel on which the broker has confirmed the request
        self._calls = calls
        self._body: bytes | None = None
        self._error: AmqpWorkerError | None = None

    def forget(self) -> bool:
        """Stop waiting, so that a later reply is dropped; return false if the call has already ended."""
        return self._calls.take(self.correlation_id) is not None

    def finish(self, body: bytes | None, error: AmqpWorkerError | None = None) -> None:
        """End the wait with a reply or an error; only what has taken the call out may do this."""
        self._body, self._error = body, error
        self._wake()

    def _wake(self) -> None:
        """Wake what waits."""
        raise NotImplementedError

    @property
    def done(self) -> bool:
        """Whether there is a reply, or an error."""
        return self._body is not None or self._error is not None

    def value(self) -> bytes:
        """Return the reply of a call that has ended; raises the error that it ended with."""
        if self._error is not None:
            raise self._error
        assert self._body is not None
        return self._body

    def timed_out(self, timeout: float) -> CallTimeout:
        """Return the error of a call that did not end within `timeout` seconds."""
        return CallTimeout(f"No reply to call {self.correlation_id} within {timeout:g} s.")


class ThreadCall(PendingCall):
    """
    A call whose reply a thread waits for.

    A bare lock, held until the call has ended, wakes its thread faster than an event or a condition, which consist of
    several.
    """

    __slots__ = ("_lock",)

    def __init__(self, calls: Calls) -> None:
        super().__init__(calls)
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def _wake(self) -> None:
        self._lock.release()

    def wait(self, timeout: float) -> bytes:
        """
        Return the reply. Afterwards the call is not pending any more, however the wait ended.

        Raises the error that the call ended with, CallTimeout if it did not end within `timeout` seconds.
        """
        if not self.done:
            try:
                ended = self._lock.acquire(timeout=min(max(timeout, 0.0), _thread.TIMEOUT_MAX))
            except BaseException:
                self.forget()
                raise
            if not ended and self.forget():
                raise self.timed_out(timeout)
            if not ended:
                # another thread has taken the call and ends it at this moment
                self._lock.acquire()
        return self.value()


class Calls:
    """
    The pending calls of one process.

    Exactly one of its reply, its timeout and the loss of its channel takes a call out of the dictionary: `dict.pop` is
    atomic, so no lock is needed.
    """

    def __init__(self) -> None:
        self._pending: dict[str, PendingCall] = {}
        # not only a number: programs that share a reply queue see each other's replies
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._pending)

    def new_id(self) -> str:
        """Return a correlation id that no other call has had."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def add(self, call: _Call) -> _Call:
        """Add a pending call."""
        self._pending[call.correlation_id] = call
        return call

    def is_pending(self, correlation_id: str) -> bool:
        """Return whether a call with this correlation id waits for its reply."""
        return correlation_id in self._pending

    def take(self, correlation_id: str) -> PendingCall | None:
        """Take a call out, so that no other thread ends it."""
        return self._pending.pop(correlation_id, None)

    def resolve(self, correlation_id: str, body: bytes) -> bool:
        """Pass a reply to its call; return false if no call waits for it: it is late, or of another program."""
        call = self.take(correlation_id)
        if call is None:
            return False
        call.finish(body)
        return True

    def has_requests_on(self, channel: int) -> bool:
        """Return whether a call is pending that was requested on the channel with this serial number."""
        return any(call.requested_on == channel for call in list(self._pending.values()))

    def fail_requests_on(self, channel: int) -> None:
        """
        End all calls that were requested on the channel with this serial number, which was lost.

        The reply address of their requests (direct reply-to) is gone with the channel: no reply can arrive. A call that
        was not requested yet is requested on the next channel.
        """
        for correlation_id, call in list(self._pending.items()):
            if call.requested_on == channel and self.take(correlation_id) is call:
                call.finish(
                    None, Unconfirmed("The connection was lost while waiting for a reply: the task may have run.")
                )
