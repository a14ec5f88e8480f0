"""
The three ways to use an app: in threads, in an event loop, and in an event loop that has entered the app.

A test of the contract of sending and calling uses the fixture `client` or `make_client` and runs once with each.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, TypeVar

from amqpworker import AmqpWorkerError, App, Message, SendError, Sent, Status
from amqpworker.broker.publish_core import PublishCore
from tests.leftovers import publisher_of

T = TypeVar("T")
R = TypeVar("R")

PATIENCE = 60.0

Failure: TypeAlias = tuple[type[BaseException], str, Message[Any] | None]
"""What users see of an error: its class, its text and its message."""


def result_of(future: Future[T]) -> T:
    """Return what something ends with."""
    return future.result(PATIENCE)


def failure_of(future: Future[Any]) -> Failure:
    """Return the error that something ends with."""
    return seen(future.exception(PATIENCE))


def seen(error: BaseException | object | None) -> Failure:
    """Return what users see of an error."""
    assert isinstance(error, BaseException), f"it ended with {error!r}"
    return type(error), str(error), error.message if isinstance(error, SendError) else None


class Client:
    """
    Uses an app in one of the three ways, from any thread of a test.

    Each method begins at once; its future has what the app returned or raised.
    """

    is_entered = False

    def __init__(self, app: App) -> None:
        self.app = app

    def begin(
        self, in_thread: Callable[..., T], in_loop: Callable[..., Coroutine[Any, Any, T]], *arguments: Any
    ) -> Future[T]:
        """Call the first of two methods in a thread, or the second in an event loop."""
        raise NotImplementedError

    def close(self) -> None:
        """End the thread, or leave the app and close the loop."""
        raise NotImplementedError

    def publisher(self) -> PublishCore:
        """Return what publishes the messages."""
        raise NotImplementedError

    def send(self, message: Message[R]) -> Future[Sent[R]]:
        return self.begin(self.app.send, self.app.asend, message)

    def send_many(self, messages: Iterable[Message[R]]) -> Future[list[Sent[R]]]:
        return self.begin(self.app.send_many, self.app.asend_many, messages)

    def send_each(self, messages: Iterable[Message[R]]) -> Future[list[Sent[R] | SendError]]:
        """Send messages and collect the outcomes."""

        async def collect() -> list[Sent[R] | SendError]:
            return [outcome async for outcome in self.app.asend_each(messages)]

        return self.begin(lambda: list(self.app.send_each(messages)), collect)

    def call(self, message: Message[R], timeout: float | None = None) -> Future[R]:
        async def call() -> R:
            return await self.app.acall(message, timeout=timeout)

        return self.begin(lambda: self.app.call(message, timeout=timeout), call)

    def check(self, timeout: float = 5.0) -> Future[None]:
        return self.begin(self.app.check, self.app.acheck, timeout)

    def result(self, sent: Sent[R], timeout: float = 10.0) -> Future[R]:
        return self.begin(sent.result, sent.aresult, timeout)

    def status(self, sent: Sent[Any]) -> Future[Status]:
        return self.begin(sent.status, sent.astatus)

    def can_send(self, message: Message[Any]) -> bool:
        """Try to send a message; return whether it was confirmed."""
        return not isinstance(self.send(message).exception(PATIENCE), AmqpWorkerError)

    def waiting_calls(self) -> int:
        """Return how many calls wait for their reply."""
        return len(self.publisher().session.calls)


class ThreadClient(Client):
    """Uses the app in threads."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._pool = ThreadPoolExecutor(64)

    def begin(
        self,
        in_thread: Callable[..., T],
        in_loop: Callable[..., Coroutine[Any, Any, T]],  # noqa: ARG002 - for a loop
        *arguments: Any,
    ) -> Future[T]:
        return self._pool.submit(in_thread, *arguments)

    def close(self) -> None:
        self._pool.shutdown()

    def publisher(self) -> PublishCore:
        return self.app.producer.publisher


class LoopClient(Client):
    """Uses the app in an event loop, which runs in a thread of its own."""

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="loop-of-client")
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.get_loop().run_forever()

    def begin(
        self,
        in_thread: Callable[..., T],  # noqa: ARG002 - for a thread
        in_loop: Callable[..., Coroutine[Any, Any, T]],
        *arguments: Any,
    ) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(self._in_loop(in_loop, arguments), self.loop)

    async def _in_loop(self, function: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[Any, ...]) -> T:
        return await function(*arguments)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    def publisher(self) -> PublishCore:
        async def current() -> PublishCore:
            return publisher_of(self.app)

        return asyncio.run_coroutine_threadsafe(self._in_loop(current, ()), self.loop).result(PATIENCE)


class EnteredLoopClient(LoopClient):
    """Uses the app in an event loop that enters it before the first use; an error of entering is that of the use."""

    is_entered = True

    def __init__(self, app: App) -> None:
        super().__init__(app)
        self._entering: asyncio.Task[App] | None = None

    async def _in_loop(self, function: Callable[..., Coroutine[Any, Any, T]], arguments: tuple[Any, ...]) -> T:
        await self.enter()
        return await function(*arguments)

    async def enter(self) -> None:
        """Enter the app, once."""
        if self._entering is None:
            self._entering = asyncio.create_task(self.app.__aenter__())
        await asyncio.shield(self._entering)

    async def _leave(self) -> None:
        if self._entering is not None and self._entering.exception() is None:
            await self.app.__aexit__()

    def close(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run_coroutine_threadsafe(self._leave(), self.loop).result(PATIENCE)
        super().close()


CLIENTS: dict[str, type[Client]] = {
    "in threads": ThreadClient,
    "in a loop": LoopClient,
    "in a loop that has entered": EnteredLoopClient,
}


@contextmanager
def clients_of(kind: type[Client]) -> Iterator[Callable[[App], Client]]:
    """Make clients of one kind, which are closed at the end."""
    made: list[Client] = []

    def make(app: App) -> Client:
        made.append(kind(app))
        return made[-1]

    yield make
    for client in made:
        client.close()
