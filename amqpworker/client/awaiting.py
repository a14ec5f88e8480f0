"""
Confirms and replies that a coroutine awaits.

Decides what a cancelled wait leaves behind: nothing. A message that was not written yet is not sent any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from amqpworker.broker.pending_publish import GRACE, PendingPublish
from amqpworker.client.calls import Calls, PendingCall
from amqpworker.client.carriers import CallInLoop
from amqpworker.client.handover import handover_to_this_loop
from amqpworker.errors import AmqpWorkerError


class AwaitedPublish:
    """A publication whose confirm a coroutine may await; `publish` publishes it with a callback for its end."""

    __slots__ = ("_call_in_loop", "_future", "pending")

    def __init__(self, publish: Callable[..., PendingPublish], call_in_loop: CallInLoop) -> None:
        self._future: asyncio.Future[bool] | None = None
        self._call_in_loop = call_in_loop
        self.pending = publish(on_done=self._on_done)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.pending.done

    @property
    def error(self) -> AmqpWorkerError | None:
        """The error that it ended with."""
        return self.pending.error

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.pending.size

    def _on_done(self, _: AmqpWorkerError | None) -> None:
        if self._future is not None:
            self._call_in_loop(partial(set_done, self._future))

    def abandon(self) -> None:
        """Do not send it if it was not written yet: no caller waits for it any more."""
        self.pending.abandon()

    async def wait(self) -> None:
        """Wait until it has ended, with or without an `error`; abandons it if the caller is cancelled."""
        if self.pending.done:
            return
        try:
            await self.wait_or(asyncio.get_running_loop().create_future())
        except BaseException:
            self.pending.abandon()
            raise

    async def wait_or(self, future: asyncio.Future[bool]) -> None:
        """Wait until it has ended, or until a future is set to true, which its end does too. One coroutine may wait."""
        pending = self.pending
        # It is set before `done` is read: `finish` does the reverse.
        self._future = future
        if pending.done:
            return
        done = await handover_to_this_loop().deadlines.wait(future, pending.deadline + GRACE)
        if not (done or pending.done):
            pending.fail_as_unresponsive()


class AwaitedCall(PendingCall):
    """A call whose reply a coroutine awaits."""

    __slots__ = ("_call_in_loop", "_future")

    def __init__(self, calls: Calls, call_in_loop: CallInLoop) -> None:
        super().__init__(calls)
        self._future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._call_in_loop = call_in_loop

    def _wake(self) -> None:
        self._call_in_loop(partial(set_done, self._future))

    async def wait(self, timeout: float) -> bytes:
        """As `ThreadCall.wait`, but the caller forgets the call if it is cancelled."""
        if not await wait_until_done(self._future, timeout):
            if self.forget():
                raise self.timed_out(timeout)
            # A thread has taken the call and ends it at this moment. It sets the value first, then reads the future.
            self._future = asyncio.get_running_loop().create_future()
            if not self.done:
                await wait_until_done(self._future, GRACE)
        return self.value()


async def wait_until_done(future: asyncio.Future[bool], timeout: float) -> bool:
    """
    Wait for a future that is set to true, and return that; false if it is not set within `timeout` seconds.

    On time, by a timer of its own, which costs more than `Deadlines`: for the timeouts that users set.
    """
    timer = future.get_loop().call_later(max(timeout, 0.0), _set, future, False)
    try:
        return await future
    finally:
        timer.cancel()


def set_done(future: asyncio.Future[bool]) -> None:
    """Set a future to true, unless it is set or cancelled."""
    _set(future, True)


def _set(future: asyncio.Future[bool], value: bool) -> None:
    if not future.done():
        future.set_result(value)
