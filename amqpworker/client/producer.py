"""
Send messages and wait for replies, from any thread of any process.

Decides when to make a publisher (at first use, after it was closed, and in a forked child) and when to close it; `send_errors`
decides which threads must not send, and which error a caller sees.

No lock is taken: a signal handler or a finalizer may send or close in the middle of either.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from os import getpid
from typing import TypeAlias

from amqpworker.broker.lane import Lane
from amqpworker.broker.pending_publish import OnDone, PendingPublish
from amqpworker.broker.publisher import Publisher
from amqpworker.client.batch import Ended, send_each
from amqpworker.client.calls import Calls, PendingCall, ThreadCall
from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.client.send_errors import (
    may_send_again,
    no_reply,
    raise_unless_ready,
    refuse_io_thread,
    was_closed_before,
    with_message,
)
from amqpworker.errors import AmqpWorkerError, CallTimeout, NotConnected
from amqpworker.lifecycle import LiveObjects, in_io_thread
from amqpworker.model.message import Message, Publication
from amqpworker.routing.envelope import publication_of_call, publication_of_check, publication_of_send
from amqpworker.routing.queues import Plan, Requirement
from amqpworker.settings import Settings

EXIT_TIMEOUT = 10.0
# To find out why a call was not replied to.
COUNT_TIMEOUT = 0.25


MakePublisher: TypeAlias = Callable[[Calls], Publisher]
"""Makes a publisher that passes replies to these calls."""


class PublisherGeneration:
    """A publisher of one process and the calls that wait for replies on it, until it is closed or inherited by a fork."""

    def __init__(self, publisher: Publisher | None, calls: Calls, process: int) -> None:
        self.publisher = publisher
        self.calls = calls
        self.process = process
        # The next generation; `setdefault` lets one thread decide.
        self.successor: dict[None, PublisherGeneration] = {}


class Producer:
    """The sending side of an app: one publisher for each process that uses it. `now` is the clock of the headers."""

    def __init__(
        self, plan: Plan, settings: Settings, make_publisher: MakePublisher, now: Callable[[], float] = time.time
    ) -> None:
        self._plan = plan
        self._names, self._undelayed = plan.names, plan.names.tasks
        self.settings = settings
        self._make_publisher = make_publisher
        self.now = now
        """Returns the time of what is sent, in seconds since the epoch."""
        self.owner: str | None = None
        """The owner of connections in the broker's lists, instead of the program, if the settings name no app."""
        self._generation = PublisherGeneration(None, Calls(), 0)

    def __del__(self) -> None:
        """If it was not closed, its thread ends once everything is confirmed."""
        last = self._generation
        if last.publisher is not None and not last.publisher.keeper.is_over and last.process == getpid():
            last.publisher.keeper.retire()

    def current(self) -> PublisherGeneration:
        """Return the generation of this process, another one if the last was closed."""
        # For every message: the present generation, unless it cannot be used any more.
        present = self._generation
        publisher = present.publisher
        if publisher is None or publisher.keeper.is_over or present.process != getpid():
            return self._next(present)
        return present

    def _next(self, generation: PublisherGeneration) -> PublisherGeneration:
        """Return the generation that follows: the same one for simultaneous callers."""
        process = getpid()
        while generation.publisher is None or generation.publisher.keeper.is_over or generation.process != process:
            if generation.publisher is not None and generation.process != process:
                generation.publisher.keeper.forget()
            generation = generation.successor.setdefault(None, self._make_generation(process))
        self._generation = generation
        return generation

    def _make_generation(self, process: int) -> PublisherGeneration:
        calls = Calls()
        publisher = self._make_publisher(calls)
        publisher.keeper.owner = self.owner
        PUBLISHERS.add(publisher)
        return PublisherGeneration(publisher, calls, process)

    @property
    def publisher(self) -> Publisher:
        """The publisher of this process, which connects at its first publication."""
        publisher = self.current().publisher
        assert publisher is not None
        return publisher

    def close(self, timeout: float, spares_calls: Callable[[], bool] = lambda: False) -> None:
        """
        Wait for outstanding confirms, then close the connection; a later use opens another.

        Calls that wait for their replies fail. If they are spared, the connection stays open until they have ended, and
        this does not wait for them. An I/O thread does not wait at all.
        """
        present = self._generation
        publisher, calls = present.publisher, present.calls
        if publisher is None or present.process != getpid():
            return

        def needed() -> bool:
            return len(calls) > 0 and spares_calls()

        if in_io_thread():
            publisher.keeper.retire(needed)
        else:
            publisher.close(min(timeout, threading.TIMEOUT_MAX), needed)

    # ---- sending ----------------------------------------------------------------------------------------------------

    def publish(
        self,
        message: Message,
        lane: Lane,
        urgent: bool = True,
        timeout: float | None = None,
        on_done: OnDone | None = None,
    ) -> PendingPublish:
        """Publish a message on a lane without waiting for its confirm; raises InvalidArguments if it cannot be encoded."""
        publication = publication_of_send(message, self._names, self.now(), self.settings.app_id)
        requirements = self._plan.requirements(message.queue, publication.exchange != self._undelayed)
        return lane.publish(publication, requirements, timeout, on_done, urgent, message.resend)

    def send(self, message: Message, timeout: float | None = None) -> None:
        """Return once the broker has confirmed the message and not returned it; `timeout` overrides `send_timeout`."""
        until = time.monotonic() + (self.settings.send_timeout if timeout is None else timeout)
        warn_in_event_loop("send")
        while True:
            refuse_io_thread(message)
            pending = self.publish(message, self.publisher.sends, timeout=timeout)
            pending.wait()
            if pending.error is None:
                return
            if not may_send_again(pending.error, until):
                raise with_message(pending.error, message)

    def publish_all(
        self, publications: Sequence[Publication], requirements: tuple[Requirement, ...], until: float
    ) -> None:
        """
        Publish what may be doubled, and return once all of it is confirmed; raises the first error.

        If the publisher had just been closed, another one publishes it, unless it is later than `until` (monotonic).
        """
        while True:
            refuse_io_thread(None)
            lane = self.publisher.sends
            pending = [lane.publish(one, requirements, urgent=False, resend=True) for one in publications]
            self.wake()
            for one in pending:
                one.wait()
            error = next((one.error for one in pending if one.error is not None), None)
            if error is None:
                return
            if not may_send_again(error, until):
                raise error

    def send_each(self, messages: Iterable[Message]) -> Iterator[Ended]:
        """Send messages as `batch.send_each` does; raises ConfigError if the URL's files cannot be read, which affects all."""
        self.publisher.start()
        lane = self.publisher.sends

        def publish(message: Message, urgent: bool) -> PendingPublish:
            nonlocal lane
            if urgent:  # once for each burst: whether this thread may send, and by which publisher
                refuse_io_thread(message)
                lane = self.publisher.sends
            return self.publish(message, lane, urgent)

        for message, error in send_each(publish, self.wake, messages, self.settings.send_timeout):
            yield message, self._send_again(message) if was_closed_before(error) else error

    def wake(self) -> None:
        """Write everything that was published now."""
        self.publisher.keeper.wake()

    def _send_again(self, message: Message) -> AmqpWorkerError | None:
        try:
            self.send(message)
        except AmqpWorkerError as error:
            return error
        return None

    # ---- checking ---------------------------------------------------------------------------------------------------

    def check(self, timeout: float) -> None:
        """Return if messages can be sent; raises the error of a message that was published within `timeout` seconds."""
        until = time.monotonic() + timeout
        refuse_io_thread(None)
        warn_in_event_loop("check")
        while True:
            publisher = self.publisher
            pending = self.publish_check(publisher.checks, timeout)
            pending.wait()
            if not may_send_again(pending.error, until):
                raise_unless_ready(pending, publisher, timeout)
                return

    def publish_check(self, lane: Lane, timeout: float, on_done: OnDone | None = None) -> PendingPublish:
        """Publish what no queue takes, without waiting for its return."""
        return lane.publish(publication_of_check(self._names), self._plan.requirements_of_check(), timeout, on_done)

    # ---- calling ----------------------------------------------------------------------------------------------------

    def call(self, message: Message, timeout: float) -> bytes:
        """Send a message and return the body of the reply; raises CallTimeout or a SendError."""
        refuse_io_thread(message)
        warn_in_event_loop("call")
        until = time.monotonic() + timeout
        while True:
            try:
                return self._call(message, timeout, until)
            except NotConnected as error:
                if not may_send_again(error, until):
                    raise

    def _call(self, message: Message, timeout: float, until: float) -> bytes:
        present = self.current()
        assert present.publisher is not None
        call = present.calls.add(ThreadCall(present.calls))
        try:
            request = self.request(present.publisher.calls, call, message, timeout)
            return call.wait(until - time.monotonic())
        except CallTimeout:
            if not call.requested_on:
                # Its own deadline has passed as well, so it ends now, with the reason.
                request.wait()
                if request.error is not None:
                    raise with_message(request.error, message) from None
            consumers = present.publisher.consumers_of(message.queue, COUNT_TIMEOUT)
            raise CallTimeout(no_reply(message, timeout, consumers)) from None
        except AmqpWorkerError as error:
            raise with_message(error, message) from None
        finally:
            call.forget()

    def request(
        self,
        lane: Lane,
        call: PendingCall,
        message: Message,
        timeout: float,
        on_done: OnDone | None = None,
        urgent: bool = True,
    ) -> PendingPublish:
        """Publish the request of a call, which ends with its error if it is not confirmed; raises as `publish` does."""
        publication = publication_of_call(
            message, call.correlation_id, timeout, self._names, self.now(), self.settings.app_id
        )
        requirements = self._plan.requirements(message.queue, delayed=False)
        pending = make_request(lane, call, publication, requirements, min(timeout, self.settings.send_timeout), on_done)
        lane.submit(pending, urgent)
        return pending


def make_request(
    lane: Lane,
    call: PendingCall,
    publication: Publication,
    requirements: tuple[Requirement, ...],
    timeout: float,
    on_done: OnDone | None = None,
) -> PendingPublish:
    """Encode the request of a call, to be submitted later; the call ends with its error if it is not confirmed."""

    def on_sent(error: AmqpWorkerError | None) -> None:
        if error is None:
            call.requested_on = pending.channel
        elif call.forget():
            call.finish(None, error)
        if on_done is not None:
            on_done(error)

    pending = lane.make_pending(publication, requirements, timeout, on_sent)
    return pending


PUBLISHERS: LiveObjects[Publisher] = LiveObjects()


def _close_all() -> None:
    """At the exit of the interpreter: wait for the confirms of everything that was published."""
    until = time.monotonic() + EXIT_TIMEOUT
    for publisher in PUBLISHERS.of_this_process():
        publisher.close(until - time.monotonic())


atexit.register(_close_all)
