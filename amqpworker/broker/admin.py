"""A connection for command line tools: one request after the other, each waits a bounded time for its answer."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from amqpworker.broker.address import addresses
from amqpworker.broker.channel_errors import access_refused, channel_error, does_not_exist
from amqpworker.broker.connection import ChannelError, ChannelListener
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.peek import End, PeekSession, needs_read
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError, NotConnected, Unroutable
from amqpworker.model.message import Delivery
from amqpworker.routing.topology import Binding, Exchange, Queue, Topology
from amqpworker.settings import Settings

TIMEOUT = 10.0
MIN_TIMEOUT = 0.5
AT_ONCE = 8
LAST_TIMEOUT = 2.0
QUIET = 1.0
BACK_PAUSE = 0.02

Request: TypeAlias = Callable[[PikaConnection], None]
Answers: TypeAlias = "SimpleQueue[Any]"
Action: TypeAlias = Callable[[PikaChannel, Callable[[Any], None]], None]


class Depth(NamedTuple):
    """How many messages are ready in a queue, and how many consumers it has."""

    messages: int
    consumers: int


@dataclass(frozen=True, slots=True)
class Problem:
    """
    What is wrong with an exchange or a queue, or why that is `unknown`.

    `why` is the missing permission; the text is the same for all parts that lack the same one.
    """

    kind: Literal["missing", "differs", "unknown"]
    text: str
    why: str = ""


class Admin:
    """
    A connection for a tool, as a context manager that connects when it is entered.

    `timeout` limits each wait for an answer, after which NotConnected is raised. After `within` seconds in total, each wait is
    limited to `MIN_TIMEOUT`: a slow broker gets time, but one that hardly answers any more does not.
    """

    def __init__(self, url: str, settings: Settings, timeout: float = TIMEOUT, within: float = math.inf) -> None:
        self._addresses = addresses(url)
        self._timeout = timeout
        self._until = time.monotonic() + within
        self._io = IOThread("admin", self._addresses, settings, self, user_reports_errors=True)
        self._connect_timeout = settings.connect_timeout * len(self._addresses) + 1.0
        self._connection: PikaConnection | None = None
        self._problems: list[ConnectionProblem] = []
        self._opened: Answers = SimpleQueue()
        self._requests: deque[tuple[Request, Answers]] = deque()
        self._waiting: list[Answers] = []

    def __enter__(self) -> Self:
        self._io.start()
        try:
            self._wait(self._opened, self._connect_timeout)
        except BaseException:
            self._io.stop(LAST_TIMEOUT)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._io.stop(LAST_TIMEOUT)

    # ---- requests ---------------------------------------------------------------------------------------------------

    def declare(self, topology: Topology, on_declared: Callable[[Exchange | Queue | Binding], None]) -> None:
        """
        Declare everything, in order; `on_declared` is called for each part once it exists.

        Raises ConfigError for what exists with other arguments, AccessRefused if the user lacks a permission.
        """
        parts = list(topology)
        answers: Answers = SimpleQueue()

        def on_opened(channel: PikaChannel) -> None:
            for part in parts:
                channel.declare(part, lambda part=part: answers.put(part))  # type: ignore[misc]

        self._send(lambda connection: connection.open_channel(ChannelListener(), on_opened, answers.put), answers)
        for _ in parts:
            try:
                on_declared(self._wait(answers))
            except ChannelError as error:
                raise channel_error(error, "declaring the topology", "configure") from error

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

        most = (self._connection.params.channel_max if self._connection is not None else 0) or AT_ONCE
        with ThreadPoolExecutor(min(most, AT_ONCE)) as pool:
            problems = list(pool.map(compare, parts))
        return [(part, found) for part, found in zip(parts, problems, strict=True) if found is not None]

    def depth(self, queue: str) -> Depth | None:
        """Return how full a queue is; `None` if it does not exist."""
        try:
            answer = self._on_channel(lambda channel, on_done: _exists(channel, Queue(queue), on_done)).method
        except Unroutable:
            return None
        except AccessRefused as error:
            refused = needs_read(error.__cause__ or error)
            raise channel_error(refused, f"peeking into queue {queue!r}", "read") from error
        return Depth(answer.message_count, answer.consumer_count)

    def purge(self, queue: str) -> int:
        """
        Drop the messages that are ready in a queue, and return how many; what workers hold stays.

        Raises Unroutable if the queue does not exist, AccessRefused if the user may not read from it.
        """
        what = f"purging queue {queue!r}"
        answer = self._on_channel(lambda channel, on_done: channel.pika.queue_purge(queue, callback=on_done), what)
        return int(answer.method.message_count)

    def peek(self, queue: str, most: int, matches: Callable[[Delivery], bool] | None = None) -> list[Delivery]:
        """
        Return the first messages of a queue for which `matches` is true (default: all), up to `most`, and requeue everything.

        A queue of up to `FULL_SCAN_LIMIT` messages keeps their order, if no other process consumes from it meanwhile; in a
        longer one, those that were consumed may be requeued behind the rest. Raises Unroutable if the queue does not exist.
        """
        answers: Answers = SimpleQueue()
        session = PeekSession(queue, most, matches, answers)
        self._send(session.start, answers)
        kept: list[Delivery] = []
        try:
            while (answer := self._next_of(session, queue, answers)) is not End:
                if answer is not None:
                    kept.append(answer)
        except ChannelError as error:
            raise channel_error(error, f"peeking into queue {queue!r}", "read") from error
        except BaseException:
            self._end_early(session, answers)
            raise
        self._wait_until_requeued(queue, session.held)
        return kept

    def _next_of(self, session: PeekSession, queue: str, answers: Answers) -> Any:
        """Return the next answer; if no more messages arrive, finish, since other consumers hold the rest."""
        if answers.empty():
            try:
                return self._wait(answers, min(QUIET, self._timeout))
            except NotConnected:
                # It raises if the broker does not answer at all; else everything that it sent before is here.
                self.depth(queue)
                if answers.empty():
                    self._send(lambda _: session.finish(), SimpleQueue())
        return self._wait(answers)

    def _wait_until_requeued(self, queue: str, held: int) -> None:
        """Wait until what was requeued is ready: else the next peek would take a part of it, and change the order."""
        until = time.monotonic() + LAST_TIMEOUT
        pause = threading.Event()
        while held and time.monotonic() < until:
            depth = self.depth(queue)
            if depth is None or depth.messages >= held:
                return
            pause.wait(BACK_PAUSE)

    def _end_early(self, session: PeekSession, answers: Answers) -> None:
        """Finish early, after a Ctrl-C or if the broker has become slow: what is held is requeued."""
        self._send(lambda _: session.finish(), SimpleQueue())
        try:
            while self._wait(answers, LAST_TIMEOUT) is not End:
                pass
        except (AmqpWorkerError, ChannelError):
            return  # the connection was lost: the broker requeues by itself

    # ---- requests, from the caller's thread -------------------------------------------------------------------------

    def _error_of(self, action: Action) -> AmqpWorkerError | None:
        """Return the error for which the broker closes the channel of an action, if it does."""
        try:
            self._on_channel(action)
        except NotConnected:
            raise
        except AmqpWorkerError as error:
            return error
        return None

    def _on_channel(self, action: Action, what: str = "checking the topology") -> Any:
        """Return the broker's answer to what `action` does on a channel of its own; `what` is that, for errors."""
        answers: Answers = SimpleQueue()

        def on_opened(channel: PikaChannel) -> None:
            def on_done(frame: Any) -> None:
                answers.put(frame)
                channel.close()

            action(channel, on_done)

        self._send(lambda connection: connection.open_channel(ChannelListener(), on_opened, answers.put), answers)
        try:
            return self._wait(answers)
        except ChannelError as error:
            raise channel_error(error, what, "read") from error

    def _send(self, request: Request, answers: Answers) -> None:
        self._requests.append((request, answers))
        self._io.wake()

    def _wait(self, answers: Answers, timeout: float | None = None) -> Any:
        """Return the next answer; an error that was put there is raised here."""
        seconds = self._timeout if timeout is None else timeout
        seconds = min(seconds, max(MIN_TIMEOUT, self._until - time.monotonic()))
        try:
            answer = answers.get(timeout=seconds)
        except Empty:
            raise NotConnected(f"RabbitMQ did not answer within {seconds:.2g} s.") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def on_opened(self, connection: PikaConnection) -> None:
        """Let the caller begin; it does not use a later connection."""
        self._connection = connection
        self._opened.put(None)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Fail the waiting requests, and the first connection once every address was tried."""
        self._connection = None
        self._problems.append(problem)
        if len(self._problems) >= len(self._addresses):
            permanent = [one for one in self._problems if one.kind != "unreachable"] or [problem]
            self._opened.put(permanent[0].error())
        while self._waiting:
            self._waiting.pop().put(problem.error())

    def on_wake(self) -> None:
        """Send the waiting requests."""
        while self._requests:
            request, answers = self._requests.popleft()
            if self._connection is None or not self._connection.is_open:
                answers.put(NotConnected("The connection to RabbitMQ was lost."))
            else:
                self._waiting.append(answers)
                request(self._connection)

    def on_tick(self) -> bool:
        """Return false: the callers keep the deadlines."""
        return False


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
