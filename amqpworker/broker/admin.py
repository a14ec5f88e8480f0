"""What tools do with a topology: declare it, and compare it with what the broker has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Literal

from amqpworker.broker.channel_errors import access_refused, channel_error, does_not_exist
from amqpworker.broker.connection import ChannelError, ChannelListener, ConnectionEnded
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.tool_connection import Action, Answers, ToolConnection
from amqpworker.errors import AmqpWorkerError, ConfigError, NotConnected
from amqpworker.routing.topology import Binding, Exchange, Queue, Topology

AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """
    What is wrong with an exchange or a queue, or why that is `unknown`.

    `why` is the missing permission; the text is the same for all parts that lack the same one.
    """

    kind: Literal["missing", "differs", "unknown"]
    text: str
    why: str = ""


class Admin(ToolConnection):
    """Declares a topology, compares it with what the broker has, and purges queues."""

    def declare(self, topology: Topology, on_declared: Callable[[Exchange | Queue | Binding], None]) -> None:
        """
        Declare everything, in order; `on_declared` is called for each part once it exists.

        Raises ConfigError for what exists with other arguments or what the broker does not have, AccessRefused if the user lacks
        a permission.
        """
        parts = list(topology)
        answers: Answers = SimpleQueue()

        def on_opened(channel: PikaChannel) -> None:
            for part in parts:
                channel.declare(part, lambda part=part: answers.put(part))  # type: ignore[misc]

        self.send(lambda connection: connection.open_channel(ChannelListener(), on_opened, answers.put), answers)
        for _ in parts:
            try:
                on_declared(self.wait_for(answers))
            except ConnectionEnded:
                self.wait_for(answers)  # raises why
            except ChannelError as error:
                raise channel_error(error, "declaring the topology", "configure") from error

    def check_all(self, parts: Sequence[Exchange | Queue]) -> list[tuple[Exchange | Queue, Problem]]:
        """
        Compare several with those on the broker, and return those that have a problem, each with it.

        Several are compared at once: while a node is frozen, RabbitMQ takes a while to answer for each queue. After a missing
        answer nothing more is asked.
        """
        lost: list[NotConnected] = []

        def compare(part: Exchange | Queue) -> Problem | None:
            if not lost:
                try:
                    return self._compare(part)
                except NotConnected as error:
                    lost.append(error)
            return Problem("unknown", f"{part.name!r} was not compared: {lost[0]}", str(lost[0]))

        most = (self.connection.params.channel_max if self.connection is not None else 0) or AT_ONCE
        with ThreadPoolExecutor(min(most, AT_ONCE)) as pool:
            problems = list(pool.map(compare, parts))
        return [(part, found) for part, found in zip(parts, problems, strict=True) if found is not None]

    def purge(self, queue: str) -> int:
        """
        Drop the messages that are ready in a queue, and return how many; what workers hold stays.

        Raises Unroutable if the queue does not exist, AccessRefused if the user may not read from it.
        """
        what = f"purging queue {queue!r}"
        answer = self.on_channel(lambda channel, on_done: channel.pika.queue_purge(queue, callback=on_done), what)
        return int(answer.method.message_count)

    def _compare(self, part: Exchange | Queue) -> Problem | None:
        kind = "exchange" if isinstance(part, Exchange) else "queue"
        if (error := self._error_of(lambda channel, on_done: _exists(channel, part, on_done))) is not None:
            if does_not_exist(error.__cause__, kind):
                return Problem("missing", f"The {kind} {part.name!r} does not exist.")
            return Problem("unknown", f"The {kind} {part.name!r} cannot be checked: {error}")
        # A passive declaration compares nothing; an active one of what exists changes nothing.
        error = self._error_of(lambda channel, on_done: channel.declare(part, lambda: on_done(None)))
        if isinstance(error, ConfigError):
            return Problem("differs", str(error))
        return _not_compared(kind, part.name, error) if error is not None else None

    def _error_of(self, action: Action) -> AmqpWorkerError | None:
        """Return the error for which the broker closes the channel of an action, if it does."""
        try:
            self.on_channel(action, "checking the topology")
        except NotConnected:
            raise
        except AmqpWorkerError as error:
            return error
        return None


def _not_compared(kind: str, name: str, error: AmqpWorkerError) -> Problem:
    refused = access_refused(error.__cause__)
    if refused is None:
        return Problem("unknown", f"The {kind} {name!r} cannot be compared: {error}")
    why = f"user {refused.user!r} lacks the permission `{refused.permission or 'configure'}` in virtual host {refused.vhost!r}"
    return Problem("unknown", f"The {kind} {name!r} cannot be compared: {why}.", why)


def _exists(channel: PikaChannel, part: Exchange | Queue, on_done: Callable[[Any], None]) -> None:
    if isinstance(part, Exchange):
        channel.pika.exchange_declare(part.name, passive=True, callback=on_done)
    else:
        channel.pika.queue_declare(part.name, passive=True, callback=on_done)
