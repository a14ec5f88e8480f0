"""
Send messages and wait for answers, from any thread of any process.

Decides when a connection is made (at the first use, and anew in a forked child) and which error a caller sees. The
connection itself is `broker.publisher`'s.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable, Iterator

from amqpworker.broker.address import addresses
from amqpworker.broker.outgoing import Outgoing
from amqpworker.broker.publisher import REPLIES, Publisher
from amqpworker.errors import AmqpWorkerError, CallTimeout, InvalidArguments, SendError, Unconfirmed
from amqpworker.message import Message
from amqpworker.plan import Plan
from amqpworker.publication import called
from amqpworker.publication import sent as publication_of
from amqpworker.results.rpc import Calls
from amqpworker.settings import Settings

__all__ = ["Producer"]

WINDOW = 2000
WINDOW_BYTES = 16 * 1024 * 1024
EXIT_TIMEOUT = 10.0
BURST = 128
BURST_SECONDS = 0.005


class Producer:
    """The sending side of an app: one publisher for each process that uses it."""

    def __init__(self, url: str, plan: Plan, settings: Settings) -> None:
        self._url = url
        self._plan = plan
        self._settings = settings
        self._publisher: Publisher | None = None
        self._calls = Calls()
        self._lock = threading.Lock()
        me = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: on_fork(me))
        atexit.register(lambda: on_exit(me))

    def forked(self) -> None:
        """In a forked child: begin without the parent's connection, calls and locks."""
        self._publisher = None
        self._calls = Calls()
        self._lock = threading.Lock()

    @property
    def publisher(self) -> Publisher:
        """The publisher of this process, which connects at its first publication."""
        publisher = self._publisher
        if publisher is None or publisher.broken:
            with self._lock:
                if self._publisher is None or self._publisher.broken:
                    self._publisher = self._make()
                publisher = self._publisher
        return publisher

    def _make(self) -> Publisher:
        calls = self._calls
        publisher = Publisher(addresses(self._url), self._settings, self._plan.topology_of, calls.resolve)
        publisher.on_channel_lost = lambda: self._fail_calls(calls)
        return publisher

    def _fail_calls(self, calls: Calls) -> None:
        calls.fail_asked(Unconfirmed("The connection was lost while waiting for an answer: the task may have run."))

    def close(self, timeout: float) -> None:
        """Wait for what is not confirmed yet, then close the connection; a later use opens another."""
        with self._lock:
            publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close(min(timeout, threading.TIMEOUT_MAX))

    # ---- sending ----------------------------------------------------------------------------------------------------

    def begin(self, message: Message, urgent: bool = True, timeout: float | None = None) -> Outgoing:
        """
        Put a message on its way; `timeout` takes the place of `send_timeout`.

        Raises:
            InvalidArguments: a header cannot be carried, or the message's `at` is too far away.
        """
        now = time.time()
        publication = publication_of(message, self._plan.names, now, self._settings.app_id)
        delayed = publication.exchange != self._plan.names.tasks
        return self.publisher.publish(publication, self._plan.needs(message.queue, delayed), timeout, urgent=urgent)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """
        Return once the broker has confirmed the message, and not returned it; `timeout` is as in `begin`.

        Raises:
            SendError: it has not, in time; which error tells why.
            ConfigError: its queue cannot be declared.
        """
        outgoing = self.begin(message, timeout=timeout)
        outgoing.wait()
        if outgoing.error is not None:
            raise about(outgoing.error, message)

    def send_each(self, messages: Iterable[Message]) -> Iterator[tuple[Message, AmqpWorkerError | None]]:
        """
        Send messages as they are read from `messages`, a bounded window ahead; yield how each ended, in order.

        Raises:
            Exception: what reading them raised, once it is told how those before ended.
        """
        window: deque[tuple[Message, Outgoing]] = deque()
        size = woken = 0
        next_wake = 0.0
        failure: Exception | None = None
        try:
            for message in messages:
                # The first of a burst goes at once, then one write for many; a slow source is never kept waiting.
                woken += 1
                urgent = woken >= BURST or time.monotonic() >= next_wake
                outgoing = self.begin(message, urgent)
                if urgent:
                    woken, next_wake = 0, time.monotonic() + BURST_SECONDS
                window.append((message, outgoing))
                size += outgoing.size
                if len(window) >= WINDOW or size >= WINDOW_BYTES:
                    # For the middle first: one wake-up for half a window, and the rest goes on.
                    self._wait(window[len(window) // 2][1])
                    self._wait(window[0][1])
                while window and window[0][1].done:
                    first, ended = window.popleft()
                    size -= ended.size
                    yield first, ended.error
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
        while window:
            first, ended = window.popleft()
            self._wait(ended)
            yield first, ended.error
        if failure is not None:
            raise failure

    def _wait(self, outgoing: Outgoing) -> None:
        """Wait until it has ended, and have everything before it written now."""
        if not outgoing.done:
            self.publisher.wake()
            outgoing.wait()

    # ---- calling ----------------------------------------------------------------------------------------------------

    def call(self, message: Message, timeout: float) -> bytes:
        """
        Send a message and return the answer's body.

        Raises:
            CallTimeout: none came in time.
            SendError: the message was not sent, or the connection was lost meanwhile.
        """
        until = time.monotonic() + timeout
        publisher, calls = self.publisher, self._calls
        publication = called(message, timeout, self._plan.names, time.time(), self._settings.app_id)
        needs = (*self._plan.needs(message.queue, delayed=False), REPLIES)
        try:
            pending = calls.open(message.id)
        except ValueError as error:
            raise InvalidArguments(f"options(id=…): {error}") from None

        def sent(error: AmqpWorkerError | None) -> None:
            if error is None:
                pending.asked = True
            elif (waiting := calls.take(message.id)) is not None:
                waiting.settle(None, error)

        outgoing: Outgoing | None = None
        try:
            outgoing = publisher.publish(publication, needs, min(timeout, self._settings.send_timeout), sent)
            return pending.wait(until - time.monotonic())
        except CallTimeout:
            if outgoing is not None and not pending.asked:
                # Its own time has passed as well, so the I/O thread says now what kept it.
                outgoing.wait()
                if outgoing.error is not None:
                    raise about(outgoing.error, message) from None
            raise CallTimeout(f"Task {message.task!r} did not answer within {timeout:g} s (id {message.id}).") from None
        except AmqpWorkerError as error:
            raise about(error, message) from None
        finally:
            pending.forget()


def about(error: AmqpWorkerError, message: Message) -> AmqpWorkerError:
    """Return the error with the message that it is about, so that it can be sent again."""
    if isinstance(error, SendError):
        error.message = message
    return error


def on_fork(producer: weakref.ref[Producer]) -> None:
    """In a forked child: have a producer that is still in use begin anew."""
    if (alive := producer()) is not None:
        alive.forked()


def on_exit(producer: weakref.ref[Producer]) -> None:
    """At the interpreter's exit: have a producer that is still in use wait for its confirms."""
    if (alive := producer()) is not None:
        alive.close(EXIT_TIMEOUT)
