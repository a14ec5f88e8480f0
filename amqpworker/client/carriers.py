"""
What carries the messages of the coroutines of an event loop: the publisher's thread, or a connection of the loop's own.

Decides that a loop has its own connection from `async with app:` until the last that has entered leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from os import getpid
from typing import TYPE_CHECKING, Protocol, TypeAlias

from amqpworker.broker.address import Address
from amqpworker.broker.publish_core import PublishCore
from amqpworker.client.calls import Calls
from amqpworker.client.event_loop_warning import require_event_loop
from amqpworker.client.handover import handover_to_this_loop
from amqpworker.errors import ConfigError
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.broker.loop_publisher import LoopPublisher
    from amqpworker.client.producer import Producer

# A broker that is unavailable is not waited for longer than this by a service that starts.
ENTER_TIMEOUT = 2.0


CallInLoop: TypeAlias = Callable[[Callable[[], None]], None]
"""Calls a function in an event loop, soon or at once."""


class Carrier(Protocol):
    """Publishes messages, and wakes the coroutines that wait for them."""

    @property
    def publisher(self) -> PublishCore:
        """What publishes."""

    @property
    def calls(self) -> Calls:
        """The calls that wait for a reply."""

    @property
    def call_in_loop(self) -> CallInLoop:
        """Calls what wakes a coroutine, in its event loop."""

    def wake(self) -> None:
        """Write what was published, once for all messages of this turn of the loop."""


class ThreadCarrier:
    """The publisher's thread of the process."""

    def __init__(self, producer: Producer) -> None:
        generation = producer.current()
        assert generation.publisher is not None
        self.publisher: PublishCore = generation.publisher
        self.calls = generation.calls
        self._handover = handover_to_this_loop()
        self.call_in_loop: CallInLoop = self._handover.put

    def wake(self) -> None:
        """Write what was published, once for all messages of this turn of the loop."""
        self._handover.wake(self.publisher.keeper)


class LoopCarrier:
    """The connection of one event loop; once it is retired, new messages go by the thread."""

    def __init__(self, addresses: Sequence[Address], settings: Settings, owner: str | None) -> None:
        from amqpworker.broker.loop_publisher import LoopPublisher  # only here: aio-pika takes 34 ms to import

        self.process = getpid()
        self.calls = Calls()
        self.call_in_loop: CallInLoop = _call_now
        self.publisher: LoopPublisher = LoopPublisher(addresses, settings, self.calls)
        self.publisher.keeper.owner = owner
        self.wake = self.publisher.keeper.wake

    @property
    def is_usable(self) -> bool:
        """Whether it is that of this process, and is not closing."""
        return not self.publisher.keeper.is_retired and self.process == getpid()


class LoopState:
    """How often an event loop has entered the app and not left it, and its connection, if it has one."""

    def __init__(self) -> None:
        self.entered = 0
        self.carrier: LoopCarrier | None = None


class Carriers:
    """The carriers of one app."""

    def __init__(self, producer: Producer, addresses: Sequence[Address]) -> None:
        self._producer = producer
        self._addresses = addresses
        # Of the loops that have entered. A carrier refers to its loop, so weak keys would keep both for ever.
        self._states: dict[asyncio.AbstractEventLoop, LoopState] = {}

    def current(self) -> Carrier:
        """Return the carrier of the running loop."""
        state = self._states.get(asyncio.get_running_loop())
        return (state and self._usable(state)) or ThreadCarrier(self._producer)

    def _usable(self, state: LoopState) -> LoopCarrier | None:
        carrier = state.carrier
        if carrier is None or carrier.is_usable:
            return carrier
        if carrier.process != getpid():
            carrier.publisher.keeper.forget()  # after a fork that no hook of Python was called for, as uWSGI's
        state.carrier = None
        return None

    async def enter(self) -> None:
        """Give the running loop a connection of its own; raises the error if no attempt to make it can succeed."""
        require_event_loop()
        self._forget_closed_loops()
        loop = asyncio.get_running_loop()
        state = self._states.setdefault(loop, LoopState())
        carrier = self._usable(state)
        if carrier is None:
            carrier = state.carrier = LoopCarrier(self._addresses, self._producer.settings, self._producer.owner)
        state.entered += 1
        try:
            await carrier.publisher.open(ENTER_TIMEOUT)
        except asyncio.CancelledError:
            self._leave(loop)  # not awaited: others may wait for their messages on this connection
            raise
        except BaseException:
            await self.leave()
            raise

    async def leave(self) -> None:
        """Close the connection of the running loop after its calls have ended, if no other is inside."""
        try:
            require_event_loop()
        except ConfigError:
            if self._has_forked():
                return  # a child ends inside a block that its parent has entered
            raise
        closing = self._leave(asyncio.get_running_loop())
        if closing is not None:
            await asyncio.shield(closing)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
        state = self._states.get(loop)
        if state is None:
            return None
        state.entered = max(0, state.entered - 1)
        if state.entered:
            return None
        del self._states[loop]
        return self._close(state, waits_for_calls=True)

    async def close(self) -> None:
        """Close the connection of the running loop, however many are inside; later messages go by the thread."""
        require_event_loop()
        state = self._states.get(asyncio.get_running_loop())
        closing = None if state is None else self._close(state, waits_for_calls=False)
        if closing is not None:
            await asyncio.shield(closing)

    def _close(self, state: LoopState, waits_for_calls: bool) -> asyncio.Task[None] | None:
        carrier = self._usable(state)
        if carrier is None:
            return None
        state.carrier = None
        return carrier.publisher.close(self._producer.settings.send_timeout, waits_for_calls)

    def close_all(self) -> None:
        """Close the connections of all loops, without waiting for that, since one of the loops may run in this thread."""
        self._forget_closed_loops()
        for loop, state in list(self._states.items()):
            if self._usable(state) is not None:
                with suppress(RuntimeError):  # it was closed just now
                    loop.call_soon_threadsafe(self._close, state, False)

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in list(self._states) if loop.is_closed()]:
            self._states.pop(loop, None)

    def _has_forked(self) -> bool:
        carriers = [state.carrier for state in list(self._states.values())]
        return any(carrier is not None and carrier.process != getpid() for carrier in carriers)


def _call_now(function: Callable[[], None]) -> None:
    function()  # what ends a wait runs in the loop already
