"""
Send messages and wait for replies, for coroutines in any event loop, over what carries them there.

Decides only how a coroutine waits; all else is the producer's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from functools import partial
from typing import TypeVar

from amqpworker.client.awaiting import AwaitedCall, AwaitedPublish, set_done, wait_until_done
from amqpworker.client.batch import Batch, Ended, FailedToPublish
from amqpworker.client.carriers import Carrier, Carriers
from amqpworker.client.event_loop_warning import require_event_loop
from amqpworker.client.producer import COUNT_TIMEOUT, Producer
from amqpworker.client.send_errors import (
    may_send_again,
    no_reply,
    raise_unless_ready,
    refuse_io_thread,
    was_closed_before,
    with_message,
)
from amqpworker.client.source import source_of
from amqpworker.errors import AmqpWorkerError, CallTimeout, NotConnected
from amqpworker.model.message import Message

R = TypeVar("R")
T = TypeVar("T")


class AsyncProducer:
    """The sending side of an app for coroutines."""

    def __init__(self, producer: Producer, carriers: Carriers) -> None:
        self._producer = producer
        self.carriers = carriers

    async def send(self, message: Message) -> None:
        """Return once the broker has confirmed the message and not returned it."""
        producer = self._producer
        until = time.monotonic() + producer.settings.send_timeout
        require_event_loop()
        while True:
            refuse_io_thread(message)
            carrier = self.carriers.current()
            publish = partial(producer.publish, message, carrier.publisher.sends, urgent=False)
            sending = AwaitedPublish(publish, carrier.call_in_loop)
            carrier.wake()  # not urgent: one wake-up for all that is sent in this turn of the loop
            await sending.wait()
            if sending.error is None:
                return
            if not may_send_again(sending.error, until):
                raise with_message(sending.error, message)

    async def send_each(
        self,
        messages: Iterable[Message[R]] | AsyncIterable[Message[R]],
        outcome: Callable[[Message[R], AmqpWorkerError | None], T],
    ) -> AsyncGenerator[T, None]:
        """Send messages as `batch.send_each` does, and yield an outcome for each; what was read when the caller stops is sent."""
        require_event_loop()
        burst = _Burst(self._producer, self.carriers)
        batch = Batch(burst, self._producer.settings.send_timeout)
        source = source_of(messages, batch, burst.wake)
        try:
            while await source.read():
                if batch.is_full:
                    for in_flight in batch.to_wait_for():
                        await burst.wait_for(in_flight)
                    batch.adapt()
                for ended in batch.ended():
                    yield outcome(*await self._again_if_closed(ended))
            for message, in_flight in batch.rest():
                await burst.wait_for(in_flight)
                yield outcome(*await self._again_if_closed((message, in_flight.error)))
        except asyncio.CancelledError:
            for _, in_flight in batch.rest():
                in_flight.abandon()
            raise
        finally:
            await source.close()
        if source.failure is not None:
            raise source.failure

    async def _again_if_closed(self, ended: Ended) -> Ended:
        message, error = ended
        if not was_closed_before(error):
            return ended
        try:
            await self.send(message)
        except AmqpWorkerError as another:
            return message, another
        return message, None

    async def check(self, timeout: float) -> None:
        """As `Producer.check`."""
        until = time.monotonic() + timeout
        require_event_loop()
        refuse_io_thread(None)
        while True:
            carrier = self.carriers.current()
            publish = partial(self._producer.publish_check, carrier.publisher.checks, timeout)
            check = AwaitedPublish(publish, carrier.call_in_loop)
            await check.wait()
            if not may_send_again(check.error, until):
                raise_unless_ready(check.pending, carrier.publisher, timeout)
                return

    # ---- calling ----------------------------------------------------------------------------------------------------

    async def call(self, message: Message, timeout: float) -> bytes:
        """Send a message and return the body of the reply; raises CallTimeout or a SendError."""
        require_event_loop()
        refuse_io_thread(message)
        until = time.monotonic() + timeout
        while True:
            try:
                return await self._call(message, timeout, until)
            except NotConnected as error:
                if not may_send_again(error, until):
                    raise

    async def _call(self, message: Message, timeout: float, until: float) -> bytes:
        carrier = self.carriers.current()
        call = carrier.calls.add(AwaitedCall(carrier.calls, carrier.call_in_loop))
        try:
            publish = partial(self._producer.request, carrier.publisher.calls, call, message, timeout, urgent=False)
            request = AwaitedPublish(publish, carrier.call_in_loop)
            carrier.wake()
            return await call.wait(until - time.monotonic())
        except asyncio.CancelledError:
            request.abandon()
            raise
        except CallTimeout:
            if not call.requested_on:
                # Its own deadline has passed as well, so it ends now, with the reason.
                await request.wait()
                if request.error is not None:
                    raise with_message(request.error, message) from None
            consumers = await _consumers_of(carrier, message.queue)
            raise CallTimeout(no_reply(message, timeout, consumers)) from None
        except AmqpWorkerError as error:
            raise with_message(error, message) from None
        finally:
            call.forget()


class _Burst:
    """Publishes the messages of a batch; once for each burst it checks whether this thread may, and by which carrier."""

    def __init__(self, producer: Producer, carriers: Carriers) -> None:
        self._producer = producer
        self._carriers = carriers
        self._carrier = carriers.current()

    def __call__(self, message: Message, urgent: bool) -> AwaitedPublish:
        """Publish a message, at once if it is urgent."""
        if urgent:
            refuse_io_thread(message)
            self._carrier = self._carriers.current()
        carrier = self._carrier
        publish = partial(self._producer.publish, message, carrier.publisher.sends, urgent)
        return AwaitedPublish(publish, carrier.call_in_loop)

    def wake(self) -> None:
        """Write everything that was published now."""
        self._carrier.publisher.keeper.wake()

    async def wait_for(self, in_flight: AwaitedPublish | FailedToPublish) -> None:
        """Wait until a message has ended, after everything that was published is written."""
        if isinstance(in_flight, AwaitedPublish) and not in_flight.done:
            self.wake()
            await in_flight.wait()


async def _consumers_of(carrier: Carrier, queue: str) -> int | None:
    """Return how many consumers a queue has, None if that is not known in time."""
    if not carrier.publisher.connected:
        return None
    counts: list[int | None] = []
    future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def on_count(count: int | None) -> None:
        counts.append(count)
        carrier.call_in_loop(partial(set_done, future))

    carrier.publisher.count_consumers(queue, on_count)
    return counts[0] if await wait_until_done(future, COUNT_TIMEOUT) else None
