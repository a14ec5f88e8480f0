"""
What a batch of a coroutine reads its messages from: an iterable, or an asynchronous one, which may be idle.

Decides that an asynchronous one is read from start to end by one task, so that no outcome is kept back while it is idle, and
what it holds open, such as `asyncio.timeout`, is left by the task that entered it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Protocol, cast

from amqpworker.client.awaiting import AwaitedPublish, set_done
from amqpworker.client.batch import Batch
from amqpworker.client.handover import handover_to_this_loop
from amqpworker.client.send_errors import require_message
from amqpworker.model.message import Message


class Source(Protocol):
    """Adds messages to a batch as they are read."""

    @property
    def failure(self) -> BaseException | None:
        """What reading has raised."""

    async def read(self) -> bool:
        """Read on until a message has ended or the window may be full; return whether there may be more to read."""

    async def close(self) -> None:
        """Stop reading."""


def source_of(
    messages: Iterable[Message] | AsyncIterable[Message], batch: Batch[AwaitedPublish], wake: Callable[[], None]
) -> Source:
    """Return what reads messages; `wake` writes everything that was published now."""
    if isinstance(messages, AsyncIterable):
        return AsyncSource(messages, batch, wake)
    return PlainSource(messages, batch)


class PlainSource:
    """Reads an iterable, in the task of the caller."""

    def __init__(self, messages: Iterable[Message], batch: Batch[AwaitedPublish]) -> None:
        self.failure: BaseException | None = None
        self._messages = iter(messages)
        self._batch = batch

    async def read(self) -> bool:
        """Read on until the end of a burst, or until the window is full; return whether there may be more to read."""
        batch = self._batch
        try:
            for message in self._messages:
                if batch.add(require_message(message)):
                    return True
                if batch.was_urgent:
                    # Perhaps neither messages nor confirms are waited for: other coroutines run, and the burst is written.
                    await asyncio.sleep(0)
                    return True
        except Exception as error:  # noqa: BLE001 - raised by the producer, after the outcomes of those before
            self.failure = error
        return False

    async def close(self) -> None:
        """It is not being read."""


class AsyncSource:
    """Reads an asynchronous iterable in a task of its own, while the caller waits for what comes first: a message or an end."""

    def __init__(
        self, messages: AsyncIterable[Message], batch: Batch[AwaitedPublish], wake: Callable[[], None]
    ) -> None:
        self._batch = batch
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[bool] = self._loop.create_future()
        """Set once the caller has something to do. Until then the task reads."""
        self._resumed = asyncio.Event()
        self._is_closing = self._is_watching = self._has_added = False
        self._task = self._loop.create_task(self._read_all(messages))
        self._task.add_done_callback(self._on_end)
        handover_to_this_loop().keep(self._task)

    @property
    def failure(self) -> BaseException | None:
        """What reading has raised."""
        return self._task.exception()

    async def read(self) -> bool:
        """Read on until a message has ended or the window may be full; return whether there may be more to read."""
        if not self._task.done():
            self._news = self._loop.create_future()
            self._resumed.set()
            oldest = self._batch.oldest
            if isinstance(oldest, AwaitedPublish):
                await oldest.wait_or(self._news)
            else:
                await self._news
        if not self._task.done():
            return True
        if self._task.cancelled():
            raise asyncio.CancelledError  # by the source
        return False

    async def close(self) -> None:
        """End the task and wait for that, however often the caller is cancelled; raises what the source raises then."""
        if self._task.done():
            return
        self._is_closing = True
        self._task.cancel()
        cancelled: asyncio.CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.wait((self._task,))
            except asyncio.CancelledError as error:
                cancelled = error
        with suppress(asyncio.CancelledError):
            self._task.result()
        if cancelled is not None:
            raise cancelled

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # else asyncio complains if the caller has left
        set_done(self._news)

    async def _read_all(self, messages: AsyncIterable[Message]) -> None:
        reading = aiter(messages)
        thrown: asyncio.CancelledError | None = None
        try:
            while True:
                try:
                    message = await (anext(reading) if thrown is None else _throw(reading, thrown))
                except StopAsyncIteration:
                    return
                if self._is_closing:
                    return
                self._add(message)
                thrown = await self._pause()
        finally:
            await _end(reading)

    def _add(self, message: Message) -> None:
        batch = self._batch
        is_full = batch.add(require_message(message))
        self._has_added = True
        if not self._is_watching:
            self._is_watching = True
            self._loop.call_soon(self._write_once_idle)
        # The caller waits for the oldest, so it has to know the first. At the end of a burst, other coroutines run.
        if is_full or batch.was_urgent or len(batch) == 1:
            set_done(self._news)

    def _write_once_idle(self) -> None:
        """Write what was added if nothing was added in the last turn of the loop; else look again after the next."""
        if self._has_added:
            self._has_added = False
            self._loop.call_soon(self._write_once_idle)
        else:
            self._is_watching = False
            self._wake()

    async def _pause(self) -> asyncio.CancelledError | None:
        """Wait until the caller reads on; return what the source has cancelled the task with, as `asyncio.timeout` does."""
        try:
            if self._news.done():
                self._resumed.clear()
                await self._resumed.wait()
        except asyncio.CancelledError as error:
            if self._is_closing:
                raise
            return error
        return None


async def _throw(reading: AsyncIterator[Message], error: asyncio.CancelledError) -> Message:
    if isinstance(reading, AsyncGenerator):
        return cast("Message", await reading.athrow(error))
    raise error


async def _end(reading: AsyncIterator[Message]) -> None:
    """End a generator as the cancel of its task does: a TaskGroup in it would take GeneratorExit for an error."""
    if isinstance(reading, AsyncGenerator):
        with suppress(asyncio.CancelledError, StopAsyncIteration):
            await reading.athrow(asyncio.CancelledError())
        await reading.aclose()
