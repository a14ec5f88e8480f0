"""
What carries the messages of the coroutines of an event loop: the publisher's thread, or a connection of the loop's own.

Decides that a loop has its own connection from `async with app:` until the last that has entered leaves.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Sequence
from os import getpid
from typing import TYPE_CHECKING, Protocol

from amqpworker.broker.address import Address
from amqpworker.broker.publish_core import PublishCore
from amqpworker.client.calls import Calls
from amqpworker.client.handover import handover_to_this_loop
from amqpworker.errors import ConfigError
from amqpworker.lifecycle import LiveObjects
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.broker.loop_publisher import LoopPublisher
    from amqpworker.client.producer import Producer

# A broker that is unavailable is not waited for longer than this by a service that starts.
ENTER_TIMEOUT = 2.0


class Puts(Protocol):
    """Has functions called in an event loop."""

    def put(self, function: Callable[[], None]) -> None:
        """Have a function called soon."""


class Here:
    """Calls functions at once: what ends a wait runs in the loop already."""

    def put(self, function: Callable[[], None]) -> None:
        """Call a function."""
        function()


class Carrier(Protocol):
    """Publishes messages, and wakes the coroutines that wait for them."""

    @property
    def publisher(self) -> PublishCore:
        """What publishes."""

    @property
    def calls(self) -> Calls:
        """The calls that wait for a reply."""

    @property
    def handover(self) -> Puts:
        """What wakes a coroutine."""


class ThreadCarrier:
    """The publisher's thread of the process."""

    def __init__(self, producer: Producer) -> None:
        generation = producer.current()
        assert generation.publisher is not None
        self.publisher: PublishCore = generation.publisher
        self.calls = generation.calls
        self.handover: Puts = handover_to_this_loop()


class LoopCarrier:
    """The connection of one event loop, and how many have entered it."""

    def __init__(self, addresses: Sequence[Address], settings: Settings) -> None:
        from amqpworker.broker.loop_publisher import LoopPublisher  # only here: aio-pika takes 34 ms to import

        self.loop = weakref.ref(asyncio.get_running_loop())
        self.process = getpid()
        self.entered = 0
        self.calls = Calls()
        self.handover: Puts = Here()
        self.publisher: LoopPublisher = LoopPublisher(addresses, settings, self.calls)

    @property
    def is_here(self) -> bool:
        """Whether it belongs to the running loop, and was not closed."""
        return not self.publisher.io.is_leaving and self.loop() is asyncio.get_running_loop()


class _OfThread(threading.local):
    carrier: LoopCarrier | None = None


class Carriers:
    """The carriers of one app."""

    def __init__(self, producer: Producer, addresses: Sequence[Address]) -> None:
        self._producer = producer
        self._addresses = addresses
        self._of_thread = _OfThread()
        self._all: LiveObjects[LoopCarrier] = LiveObjects()

    def current(self) -> Carrier:
        """Return the carrier of the running loop."""
        return self._own() or ThreadCarrier(self._producer)

    def _own(self) -> LoopCarrier | None:
        carrier = self._of_thread.carrier
        if carrier is not None and carrier.process != getpid():
            # A fork that no hook of Python was called for, as uWSGI's.
            carrier.publisher.io.forget()
            carrier = self._of_thread.carrier = None
        return carrier if carrier is not None and carrier.is_here else None

    async def enter(self) -> None:
        """Give the running loop a connection of its own; raises the error of one that no other attempt can make."""
        refuse_other_loops()
        carrier = self._own()
        if carrier is None:
            carrier = LoopCarrier(self._addresses, self._producer.settings)
            carrier.publisher.io.owner = self._producer.owner
            self._of_thread.carrier = carrier
            self._all.add(carrier)
        carrier.entered += 1
        try:
            error = await carrier.publisher.open(ENTER_TIMEOUT)
        except BaseException:
            await self.leave()
            raise
        if error is not None:
            await self.leave()
            raise error

    async def leave(self) -> None:
        """Close the connection of the running loop, if no other has entered."""
        carrier = self._own()
        if carrier is not None:
            carrier.entered -= 1
            if carrier.entered <= 0:
                await self.close()

    async def close(self) -> None:
        """Close the connection of the running loop, however many have entered; their messages go by the thread."""
        carrier = self._own()
        if carrier is not None:
            self._of_thread.carrier = None
            await carrier.publisher.close(self._producer.settings.send_timeout)

    def close_all(self) -> None:
        """Have the connections of all loops closed; this does not wait, since one of the loops may run in this thread."""
        for carrier in self._all.of_this_process():
            loop = carrier.loop()
            if loop is not None and loop.is_running():
                asyncio.run_coroutine_threadsafe(carrier.publisher.close(self._producer.settings.send_timeout), loop)


def refuse_other_loops() -> None:
    """Raise ConfigError unless an event loop of asyncio runs in this thread: trio has another."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigError(
            "No event loop of asyncio runs here: amqpworker's methods for coroutines do not work in trio or without a loop. "
            "Use send() and call() in a thread instead."
        ) from None
