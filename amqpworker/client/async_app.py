"""
What coroutines do with an app: send, call, and send many, without blocking their event loop.

The app fills in what it knows of tasks and stores; `async_producer` decides how a coroutine waits.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Self, TypeVar

from amqpworker.client.batch import add_note_of_sent, many_sent, outcome_of
from amqpworker.client.send_errors import require_message, timeout_of_call
from amqpworker.client.sending_app import SendingApp
from amqpworker.client.sent import Sent
from amqpworker.errors import AmqpWorkerError, SendError
from amqpworker.model.message import Message
from amqpworker.policies.durations import duration

if TYPE_CHECKING:
    from amqpworker.broker.address import Address
    from amqpworker.client.async_producer import AsyncProducer

R = TypeVar("R")


class AsyncApp(SendingApp):
    """
    The methods of an `App` that send, for threads and for coroutines.

    Each does what the one without the `a` does, and raises what that raises, except `aclose`.
    """

    _addresses: Sequence[Address]
    # At most one: of several threads that make one `setdefault` keeps the first, without a lock.
    _async_made: dict[None, AsyncProducer]

    @property
    def _async(self) -> AsyncProducer:
        """The sending side for coroutines, imported and made at its first use: most programs have none."""
        made = self._async_made.get(None)
        if made is None:
            from amqpworker.client.async_producer import AsyncProducer
            from amqpworker.client.carriers import Carriers

            carriers = Carriers(self._producer, self._addresses)
            made = self._async_made.setdefault(None, AsyncProducer(self._producer, carriers))
        return made

    async def __aenter__(self) -> Self:
        """
        Give this event loop its own connection, through aio-pika, which uses less CPU than the I/O thread.

        Entering waits at most 2 s for a broker that is unavailable, and continues to connect. It raises AccessRefused (login,
        virtual host) or ConfigError (TLS, another server) if no attempt can succeed. The app may be entered several times; the
        last exit closes the connection.
        """
        await self._async.carriers.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave the app. The last exit waits for calls, and up to `send_timeout` for confirms, then closes the connection."""
        await self._async.carriers.leave()

    async def aclose(self) -> None:
        """
        Close the connection of this event loop, however often it has entered the app; the app stays open.

        It waits up to `send_timeout` for messages that are not confirmed yet.
        """
        await self._async.carriers.close()

    async def asend(self, message: Message[R]) -> Sent[R]:
        """
        Send a message; returns once the broker has confirmed it and not returned it.

        If the caller is cancelled meanwhile, a message that was not written yet is not sent.

        Raises:
            SendError: it was not confirmed in time; the error carries the message, to send it again with the same id.
            InvalidArguments: it is not a message, AMQP cannot carry it, or its `at` is too far away.
            ConfigError: its queue cannot be declared.
        """
        await self._async.send(require_message(message))
        return self._sent(message)

    def asend_each(
        self, messages: Iterable[Message[R]] | AsyncIterable[Message[R]]
    ) -> AsyncGenerator[Sent[R] | SendError, None]:
        """
        Send messages as they are read, in constant memory; yield a `Sent` or the `SendError` for each, in input order.

        Each outcome is yielded as soon as it is known, also while an asynchronous source has no next message. A bounded number
        of messages and bytes is in flight. If the iterator is not read to its end, what was read from `messages` is still sent.
        An asynchronous source is read in a task of its own; an asynchronous generator is ended with the iterator.

        Raises:
            Exception: what reading `messages` raised, after the outcomes of the messages before it.
            InvalidArguments: one of them is not a message.
        """
        # Not a generator around a generator: if both are deleted at once, asyncio closes both at once, which fails.
        return self._async.send_each(messages, self._outcome)

    def _outcome(self, message: Message[R], error: AmqpWorkerError | None) -> Sent[R] | SendError:
        return self._sent(message) if error is None else outcome_of(error, message)

    async def asend_many(self, messages: Iterable[Message[R]] | AsyncIterable[Message[R]]) -> list[Sent[R]]:
        """
        Send messages; returns once all are confirmed.

        Raises:
            BatchFailed: some were not: a group with a `SendError` for each of these; `sent` has the others.
            Exception: what reading `messages` raised, with a note of how many had been sent.
        """
        outcomes: list[Sent[R] | SendError] = []
        try:
            async for outcome in self.asend_each(messages):
                outcomes.append(outcome)  # noqa: PERF401 - an error is raised with what was sent before it
        except Exception as error:
            add_note_of_sent(error, "asend_many", outcomes)
            raise
        return many_sent(outcomes)

    async def acheck(self, timeout: float | timedelta = 2.0) -> None:
        """As `check`, without blocking the event loop."""
        await self._async.check(duration(timeout, "timeout"))

    async def acall(self, message: Message[R], *, timeout: float | timedelta | None = None) -> R:
        """As `call`, without blocking the event loop."""
        seconds = timeout_of_call(require_message(message), timeout, self.settings)
        return self._value_of_reply(message, await self._async.call(message, seconds))
