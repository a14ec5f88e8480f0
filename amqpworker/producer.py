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
from collections.abc import Iterable, Iterator

from amqpworker.batch import send_each
from amqpworker.broker.address import addresses
from amqpworker.broker.outgoing import Outgoing
from amqpworker.broker.publisher import Publisher
from amqpworker.errors import AmqpWorkerError, CallTimeout, SendError, Unconfirmed
from amqpworker.message import Message
from amqpworker.plan import Plan
from amqpworker.publication import called
from amqpworker.publication import sent as publication_of
from amqpworker.results.rpc import Calls
from amqpworker.settings import Settings

__all__ = ["Producer"]

EXIT_TIMEOUT = 10.0


class Producer:
    """The sending side of an app: one publisher for each process that uses it."""

    def __init__(self, url: str, plan: Plan, settings: Settings) -> None:
        self._url = url
        self._plan = plan
        self._settings = settings
        self.owner: str | None = None
        """What connections are named after, instead of the program, if the settings name no app."""
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
        if self.owner is not None:
            publisher.belongs_to(self.owner)
        lost = Unconfirmed("The connection was lost while waiting for an answer: the task may have run.")
        publisher.session.on_channel_lost = lambda serial: calls.fail_asked(serial, lost)
        publisher.session.replies_expected = calls.are_expected
        return publisher

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
            InvalidArguments: a header cannot be carried, its body is too large for the broker, or its `at` is too far away.
        """
        now = time.time()
        publication = publication_of(message, self._plan.names, now, self._settings.app_id)
        delayed = publication.exchange != self._plan.names.tasks
        needs = self._plan.needs(message.queue, delayed)
        return self.publisher.sends.publish(publication, needs, timeout, None, urgent, message.resend)

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
            ConfigError: the broker's URL cannot be read, which is no matter of one message.
            Exception: what reading them raised, once it is told how those before ended.
        """
        self.publisher.start()
        return send_each(self, messages, self._settings.send_timeout)

    def wake(self) -> None:
        """Have everything that was put on its way written now."""
        self.publisher.wake()

    # ---- calling ----------------------------------------------------------------------------------------------------

    def call(self, message: Message, timeout: float) -> bytes:
        """
        Send a message and return the answer's body.

        Raises:
            CallTimeout: none came in time.
            SendError: the message was not sent, or the connection was lost meanwhile.
        """
        until = time.monotonic() + timeout
        lane, calls = self.publisher.calls, self._calls
        pending = calls.open()
        call = (pending.correlation_id, timeout)
        needs = self._plan.needs(message.queue, delayed=False)

        def sent(error: AmqpWorkerError | None) -> None:
            if error is None:
                pending.asked = outgoing.channel
            elif (waiting := calls.take(pending.correlation_id)) is not None:
                waiting.settle(None, error)

        try:
            publication = called(message, call, self._plan.names, time.time(), self._settings.app_id)
            outgoing = lane.outgoing(publication, needs, min(timeout, self._settings.send_timeout), sent)
            lane.submit(outgoing)
            return pending.wait(until - time.monotonic())
        except CallTimeout:
            if not pending.asked:
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
