"""
What threads do with an app: send, send many, call, and check whether messages can be sent.

The app fills in what it knows of tasks and stores; `producer` decides how a thread waits. `async_app` is the same for coroutines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from amqpworker.client.batch import add_note_of_sent, many_sent, outcome_of
from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.client.send_errors import require_message, timeout_of_call
from amqpworker.client.sent import Sent
from amqpworker.errors import SendError
from amqpworker.model.message import Message
from amqpworker.policies.durations import duration
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.client.producer import Producer

R = TypeVar("R")


class SendingApp:
    """The methods of an `App` that send."""

    settings: Settings
    _producer: Producer

    def _sent(self, message: Message[R]) -> Sent[R]:
        """Return what `send` returns for a message."""
        raise NotImplementedError

    def _value_of_reply(self, message: Message[R], body: bytes) -> R:
        """Return the value of the reply to a message."""
        raise NotImplementedError

    def send(self, message: Message[R]) -> Sent[R]:
        """
        Send a message; returns once the broker has confirmed it and not returned it.

        Raises:
            SendError: it was not confirmed in time; the error carries the message, to send it again with the same id.
            InvalidArguments: it is not a message, AMQP cannot carry it, or its `at` is too far away.
            ConfigError: its queue cannot be declared.
        """
        self._producer.send(require_message(message))
        return self._sent(message)

    def send_each(self, messages: Iterable[Message[R]]) -> Iterator[Sent[R] | SendError]:
        """
        Send messages as they are read, in constant memory; yield a `Sent` or the `SendError` for each, in input order.

        A bounded number of messages and bytes is in flight. If the iterator is not read to its end, what was read from
        `messages` is still sent. A message that can never be sent is a `SendError` too, with the reason as its cause: its
        queue cannot be declared, its `at` is too far away, or AMQP cannot carry it.

        Raises:
            Exception: what reading `messages` raised, after the outcomes of the messages before it.
            InvalidArguments: one of them is not a message.
        """
        warn_in_event_loop("send_each")
        yield from self._send_each(messages)

    def _send_each(self, messages: Iterable[Message[R]]) -> Iterator[Sent[R] | SendError]:
        for message, error in self._producer.send_each(map(require_message, messages)):
            yield self._sent(message) if error is None else outcome_of(error, message)

    def send_many(self, messages: Iterable[Message[R]]) -> list[Sent[R]]:
        """
        Send messages; returns once all are confirmed.

        Raises:
            BatchFailed: some were not: a group with a `SendError` for each of these; `sent` has the others.
            Exception: what reading `messages` raised, with a note of how many had been sent.
        """
        warn_in_event_loop("send_many")
        outcomes: list[Sent[R] | SendError] = []
        try:
            outcomes.extend(self._send_each(messages))
        except Exception as error:
            add_note_of_sent(error, "send_many", outcomes)
            raise
        return many_sent(outcomes)

    def call(self, message: Message[R], *, timeout: float | timedelta | None = None) -> R:
        """
        Run a task in a worker and return what it returned; without a `timeout` the setting `call_timeout` holds.

        Raises:
            InvalidArguments: it is not a message, it has options that a call cannot have, or `timeout` is not a duration.
            CallTimeout: no reply came in time.
            TaskFailed: the task ended without a result.
            MalformedReply: the reply cannot be read.
            InvalidResult: the reply does not fit the task's return hint.
            SendError: the message was not sent, or the connection was lost meanwhile.
            ConfigError: its queue cannot be declared.
        """
        seconds = timeout_of_call(require_message(message), timeout, self.settings)
        return self._value_of_reply(message, self._producer.call(message, seconds))

    def check(self, timeout: float | timedelta = 2.0) -> None:
        """
        Return if messages can be sent, for a readiness probe: the broker returns a message that no queue takes.

        Raises:
            NotConnected: the broker is not connected, or does not respond within `timeout` seconds.
            ConnectionBlocked: the broker has a memory or disk alarm.
            AccessRefused: the user may not log in, or not write to the exchange for tasks.
            ConfigError: the exchanges cannot be declared.
            InvalidArguments: `timeout` is not a duration.
        """
        self._producer.check(duration(timeout, "timeout"))
