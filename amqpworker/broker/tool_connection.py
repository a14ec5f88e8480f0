"""
The connection of a command line tool: a request from the caller's thread, done in the I/O thread, answered within bounded time.

Decides how long an answer may take, and what a lost connection means for the requests that wait. What is asked is decided by
its users: `admin` for the topology, `queue_walk` for the content of queues.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self, TypeAlias

from amqpworker.broker.address import addresses
from amqpworker.broker.channel_errors import channel_error
from amqpworker.broker.connection import (
    ChannelClosedByBroker,
    ChannelError,
    ChannelListener,
    QueueState,
)
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.errors import AccessRefused, NotConnected, Unroutable
from amqpworker.settings import Settings

TIMEOUT = 10.0
MIN_TIMEOUT = 0.5
LAST_TIMEOUT = 2.0
ACCESS_REFUSED = 403

Request: TypeAlias = Callable[[PikaConnection], None]
Answers: TypeAlias = "SimpleQueue[Any]"
Action: TypeAlias = Callable[[PikaChannel, Callable[[Any], None]], None]


class Depth(NamedTuple):
    """How many messages are ready in a queue, and how many consumers it has."""

    messages: int
    consumers: int


class ToolConnection:
    """
    A connection for a tool, as a context manager that connects when it is entered; `name` is shown in the broker's lists.

    `timeout` limits each wait for an answer, after which NotConnected is raised. After `within` seconds in total, each wait is
    limited to `MIN_TIMEOUT`: a slow broker gets time, but one that hardly answers any more does not.
    """

    def __init__(
        self, url: str, settings: Settings, timeout: float = TIMEOUT, within: float = math.inf, name: str = "admin"
    ) -> None:
        self._addresses = addresses(url)
        self.timeout = timeout
        self._until = time.monotonic() + within
        self._io = IOThread(name, self._addresses, settings, self, user_reports_errors=True)
        self._connect_timeout = settings.connect_timeout * len(self._addresses) + 1.0
        self.connection: PikaConnection | None = None
        """The present connection; `None` while there is none."""
        self._problems: list[ConnectionProblem] = []
        self._opened: Answers = SimpleQueue()
        self._requests: deque[tuple[Request, Answers]] = deque()
        self._waiting: set[Answers] = set()

    def __enter__(self) -> Self:
        self._io.start()
        try:
            self.wait_for(self._opened, self._connect_timeout)
        except BaseException:
            self._io.stop(LAST_TIMEOUT)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._io.stop(LAST_TIMEOUT)

    # ---- from the caller's thread -----------------------------------------------------------------------------------

    def depth(self, queue: str) -> Depth | None:
        """Return how full a queue is; `None` if it does not exist."""
        try:
            state = self.state_of(queue)
        except Unroutable:
            return None
        return Depth(state.ready or 0, state.consumers)

    def state_of(self, queue: str) -> QueueState:
        """Return the state of a queue; raises Unroutable if it does not exist."""
        what = f"reading queue {queue!r}"
        try:
            answer: QueueState = self.on_channel(lambda channel, on_done: channel.ask(queue, on_done), what)
        except AccessRefused as error:
            raise channel_error(needs_read(error.__cause__ or error), what, "read") from error
        return answer

    def on_channel(self, action: Action, what: str) -> Any:
        """Return the broker's answer to what `action` does on a channel of its own; `what` is that, for errors."""
        answers: Answers = SimpleQueue()

        def on_opened(channel: PikaChannel) -> None:
            def on_done(frame: Any) -> None:
                answers.put(frame)
                channel.close()

            action(channel, on_done)

        self.send(lambda connection: connection.open_channel(ChannelListener(), on_opened, answers.put), answers)
        try:
            return self.wait_for(answers)
        except ChannelError as error:
            raise channel_error(error, what, "read") from error
        finally:
            self.forget(answers)

    def send(self, request: Request, answers: Answers) -> None:
        """Have the I/O thread send a request; if the connection is lost, `answers` gets the error."""
        self._requests.append((request, answers))
        self._io.wake()

    def wait_for(self, answers: Answers, timeout: float | None = None) -> Any:
        """Return the next answer, or raise the error that was put there; raises NotConnected if there is none in time."""
        seconds = self.timeout if timeout is None else timeout
        seconds = min(seconds, max(MIN_TIMEOUT, self._until - time.monotonic()))
        try:
            answer = answers.get(timeout=seconds)
        except Empty:
            raise NotConnected(f"RabbitMQ did not answer within {seconds:.2g} s.") from None
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def forget(self, answers: Answers) -> None:
        """Expect no more answers."""
        self._waiting.discard(answers)

    # ---- in the I/O thread ------------------------------------------------------------------------------------------

    def on_opened(self, connection: PikaConnection) -> None:
        """Let the caller begin; it does not use a later connection."""
        self.connection = connection
        self._opened.put(None)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Fail the waiting requests, and the first connection once every address was tried."""
        self.connection = None
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
            if self.connection is None or not self.connection.is_open:
                answers.put(NotConnected("The connection to RabbitMQ was lost."))
            else:
                self._waiting.add(answers)
                request(self.connection)

    def on_tick(self) -> bool:
        """Return false: the callers keep the deadlines."""
        return False


def needs_read(error: BaseException) -> BaseException:
    """Return a refusal with the missing permission: from 4.3 on `configure` is named although `read` would be enough."""
    if not isinstance(error, ChannelClosedByBroker) or error.reply_code != ACCESS_REFUSED:
        return error
    text = error.reply_text.replace("configure access to queue", "read access to queue", 1)
    return ChannelClosedByBroker(error.reply_code, text)
