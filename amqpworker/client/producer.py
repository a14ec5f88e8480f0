"""
Send messages and wait for answers, from any thread of any process.

Decides when a connection is made (at the first use, and anew in a forked child), when it ends, from where nothing can be
sent, and which error a caller sees. The connection itself is `broker.publisher`'s.

No lock is taken: a signal handler, or a finalizer, may send or close in the middle of either.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from os import getpid

from amqpworker.broker.address import addresses
from amqpworker.broker.io_thread import CLOSED
from amqpworker.broker.lane import Lane
from amqpworker.broker.pending_publish import PendingPublish
from amqpworker.broker.publisher import Publisher
from amqpworker.client.batch import send_each
from amqpworker.client.calls import Calls
from amqpworker.errors import AmqpWorkerError, CallTimeout, NotConnected, SendError, Unconfirmed
from amqpworker.lifecycle import Living, in_io_thread
from amqpworker.model.message import Message
from amqpworker.routing.envelope import called
from amqpworker.routing.envelope import sent as publication_of
from amqpworker.routing.queues import Plan
from amqpworker.settings import Settings

__all__ = ["Producer"]

EXIT_TIMEOUT = 10.0
# For the question why a call was not answered.
ASK_TIMEOUT = 0.25


class Line:
    """What one process has for one time of its use: a publisher, and the calls that wait for answers on it."""

    def __init__(self, publisher: Publisher | None, calls: Calls, process: int) -> None:
        self.publisher = publisher
        self.calls = calls
        self.process = process
        # What took its place, once it is closed or was inherited by a fork; `setdefault` lets one thread decide.
        self.following: dict[None, Line] = {}


class Producer:
    """The sending side of an app: one publisher for each process that uses it."""

    def __init__(self, url: str, plan: Plan, settings: Settings) -> None:
        self._plan = plan
        self._settings = settings
        self.owner: str | None = None
        """What connections are named after, instead of the program, if the settings name no app."""
        self._line = Line(None, Calls(), 0)
        self._addresses = addresses(url)

    def __del__(self) -> None:
        """Leave nothing behind where it was not closed: what is under way is confirmed, then its thread ends."""
        line = self._line
        if line.publisher is not None and not line.publisher.over and line.process == getpid():
            line.publisher.retire()

    def _current(self) -> Line:
        # For every message: the line as it is, unless it cannot be used any more.
        line = self._line
        publisher = line.publisher
        return self._next(line) if publisher is None or publisher.over or line.process != getpid() else line

    def _next(self, line: Line) -> Line:
        """Return what takes the place of a line: the same for all that ask at the same time."""
        process = getpid()
        while line.publisher is None or line.publisher.over or line.process != process:
            if line.publisher is not None and line.process != process:
                line.publisher.forget()
            line = line.following.setdefault(None, self._make(process))
        self._line = line
        return line

    def _make(self, process: int) -> Line:
        calls = Calls()
        publisher = Publisher(self._addresses, self._settings, self._plan.topology_of, calls.resolve)
        if self.owner is not None:
            publisher.belongs_to(self.owner)
        lost = Unconfirmed("The connection was lost while waiting for an answer: the task may have run.")
        publisher.session.on_channel_lost = lambda serial: calls.fail_requests_on(serial, lost)
        publisher.session.replies_expected = calls.has_requests_on
        PUBLISHERS.add(publisher)
        return Line(publisher, calls, process)

    @property
    def publisher(self) -> Publisher:
        """The publisher of this process, which connects at its first publication."""
        publisher = self._current().publisher
        assert publisher is not None
        return publisher

    @property
    def _calls(self) -> Calls:
        return self._line.calls

    def close(self, timeout: float, spares_calls: Callable[[], bool] = lambda: False) -> None:
        """
        Wait for what is not confirmed yet, then close the connection; a later use opens another.

        Calls that wait for their answers end with it. If they are spared, it stays open until they have ended by
        themselves, which nobody waits for here. From a thread that keeps a connection, nothing is waited for at all.
        """
        line = self._line
        publisher, calls = line.publisher, line.calls
        if publisher is None or line.process != getpid():
            return

        def needed() -> bool:
            return len(calls) > 0 and spares_calls()

        if in_io_thread():
            publisher.retire(needed)
        else:
            publisher.close(min(timeout, threading.TIMEOUT_MAX), needed)

    # ---- sending ----------------------------------------------------------------------------------------------------

    def begin(self, message: Message, urgent: bool = True, timeout: float | None = None) -> PendingPublish:
        """
        Put a message on its way; `timeout` takes the place of `send_timeout`.

        Raises:
            InvalidArguments: a header cannot be carried, its body is too large for the broker, or its `at` is too far away.
            NotConnected: this is a thread that must not wait for it.
        """
        refuse_io_thread(message)
        return self.put(message, self.publisher.sends, urgent, timeout)

    def put(self, message: Message, lane: Lane, urgent: bool, timeout: float | None = None) -> PendingPublish:
        """Put a message on its way by a lane that can be used here; raises what `begin` does."""
        publication = publication_of(message, self._plan.names, time.time(), self._settings.app_id)
        delayed = publication.exchange != self._plan.names.tasks
        needs = self._plan.needs(message.queue, delayed)
        return lane.publish(publication, needs, timeout, None, urgent, message.resend)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """
        Return once the broker has confirmed the message, and not returned it; `timeout` is as in `begin`.

        Raises:
            SendError: it has not, in time; which error tells why.
            ConfigError: its queue cannot be declared.
        """
        until = time.monotonic() + (self._settings.send_timeout if timeout is None else timeout)
        while True:
            outgoing = self.begin(message, timeout=timeout)
            outgoing.wait()
            if outgoing.error is None:
                return
            if not came_too_late(outgoing.error) or time.monotonic() >= until:
                raise about(outgoing.error, message)

    def send_each(self, messages: Iterable[Message]) -> Iterator[tuple[Message, AmqpWorkerError | None]]:
        """
        Send messages as they are read from `messages`, a bounded window ahead; yield how each ended, in order.

        Raises:
            ConfigError: the broker's URL cannot be read, which concerns all messages.
            Exception: what reading them raised, once it is told how those before ended.
        """
        self.publisher.start()
        for message, error in send_each(Batch(self), messages, self._settings.send_timeout):
            yield message, self._again(message) if came_too_late(error) else error

    def _again(self, message: Message) -> AmqpWorkerError | None:
        try:
            self.send(message)
        except AmqpWorkerError as error:
            return error
        return None

    # ---- calling ----------------------------------------------------------------------------------------------------

    def call(self, message: Message, timeout: float) -> bytes:
        """
        Send a message and return the answer's body.

        Raises:
            CallTimeout: none came in time.
            SendError: the message was not sent, or the connection was lost meanwhile.
        """
        refuse_io_thread(message)
        until = time.monotonic() + timeout
        while True:
            try:
                return self._call(message, timeout, until)
            except NotConnected as error:
                if not came_too_late(error) or time.monotonic() >= until:
                    raise

    def _call(self, message: Message, timeout: float, until: float) -> bytes:
        line = self._current()
        assert line.publisher is not None
        lane, calls = line.publisher.calls, line.calls
        pending = calls.open()
        call = (pending.correlation_id, timeout)
        needs = self._plan.needs(message.queue, delayed=False)

        def sent(error: AmqpWorkerError | None) -> None:
            if error is None:
                pending.requested_on = outgoing.channel
            elif (waiting := calls.take(pending.correlation_id)) is not None:
                waiting.set_error(error)

        try:
            publication = called(message, call, self._plan.names, time.time(), self._settings.app_id)
            outgoing = lane.outgoing(publication, needs, min(timeout, self._settings.send_timeout), sent)
            lane.submit(outgoing)
            return pending.wait(until - time.monotonic())
        except CallTimeout:
            if not pending.requested_on:
                # Its own time has passed as well, so the I/O thread says now what kept it.
                outgoing.wait()
                if outgoing.error is not None:
                    raise about(outgoing.error, message) from None
            raise CallTimeout(not_answered(message, timeout, line.publisher)) from None
        except AmqpWorkerError as error:
            raise about(error, message) from None
        finally:
            pending.forget()


class Batch:
    """Puts many messages on their way; whether this process and thread may is asked once for each burst of them."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._lane: Lane | None = None

    def begin(self, message: Message, urgent: bool) -> PendingPublish:
        """Put a message on its way."""
        lane = self._lane
        if urgent or lane is None:
            refuse_io_thread(message)
            lane = self._lane = self._producer.publisher.sends
        return self._producer.put(message, lane, urgent)

    def wake(self) -> None:
        """Have everything that was put on its way written now."""
        self._producer.publisher.wake()


def about(error: AmqpWorkerError, message: Message) -> AmqpWorkerError:
    """Return the error with the message that it is about, so that it can be sent again."""
    if isinstance(error, SendError):
        error.message = message
    return error


def not_answered(message: Message, timeout: float, publisher: Publisher) -> str:
    """Return what is known of a call that was not answered in time: whether there is a worker that could."""
    text = f"Task {message.task!r} did not answer within {timeout:g} s (id {message.id})"
    if publisher.consumers_of(message.queue, ASK_TIMEOUT) == 0:
        return f"{text}: queue {message.queue!r} has no consumers, so no worker runs its tasks now."
    return f"{text}."


def came_too_late(error: AmqpWorkerError | None) -> bool:
    """Tell whether a message did not leave since its publisher was closed a moment before."""
    return isinstance(error, NotConnected) and error.args == (CLOSED,)


def refuse_io_thread(message: Message | None) -> None:
    """
    Refuse to wait for a broker in a thread that keeps a connection to one: it might wait for itself.

    Raises:
        NotConnected: it is such a thread.
    """
    if in_io_thread():
        name = threading.current_thread().name
        raise NotConnected(
            f"Nothing can be sent from the thread {name!r}, which keeps a connection to RabbitMQ and would wait for itself: "
            "a finalizer (__del__), a log filter or a callback that runs there has to leave it to another thread. The "
            "message never left this process.",
            message,
        )


PUBLISHERS: Living[Publisher] = Living()


def close_all() -> None:
    """At the interpreter's exit: wait for the confirms of all that was published, whoever still knows its publisher."""
    until = time.monotonic() + EXIT_TIMEOUT
    for publisher in PUBLISHERS.of_this_process():
        publisher.close(until - time.monotonic())


atexit.register(close_all)
