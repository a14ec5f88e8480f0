"""
Commands to the schedulers of one name: sent to their queue, and the replies of the one that leads.

Decides what a missing queue and a missing reply mean. The queue is never declared here: if no scheduler of this name has
run, the name is probably a typo, and a command in a queue of that name would wait for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from amqpworker.client.calls import ThreadCall
from amqpworker.client.producer import COUNT_TIMEOUT, Producer, make_request
from amqpworker.errors import AmqpWorkerError, CallTimeout, Unconfirmed, Unroutable
from amqpworker.model.reply import Reply, decode_reply
from amqpworker.routing.schedule_messages import Command, publication_of_command
from amqpworker.routing.topology import Names

if TYPE_CHECKING:
    from amqpworker.broker.pending_publish import PendingPublish
    from amqpworker.broker.publisher import Publisher


def send_commands(
    producer: Producer, names: Names, commands: Sequence[Command], timeout: float
) -> list[Reply | AmqpWorkerError]:
    """
    Send commands, and return what became of each within `timeout` seconds in total: the leader's reply, or an error.

    CallTimeout means that the command is in the queue, or was, and no reply of a leader has arrived.
    """
    until = time.monotonic() + timeout
    present = producer.current()
    publisher = present.publisher
    assert publisher is not None
    requests: list[tuple[Command, ThreadCall, PendingPublish]] = []
    with _forgotten_after(requests):
        for command in commands:
            call = present.calls.add(ThreadCall(present.calls))
            publication = publication_of_command(command, call.correlation_id, timeout, names, time.time())
            pending = make_request(publisher.calls, call, publication, (), timeout)
            requests.append((command, call, pending))
            publisher.calls.submit(pending)
        return [_outcome(publisher, names, request, until) for request in requests]


@contextmanager
def _forgotten_after(requests: list[tuple[Command, ThreadCall, PendingPublish]]) -> Iterator[None]:
    """Drop replies that arrive after the block."""
    try:
        yield
    finally:
        for _, call, _ in requests:
            call.forget()


def _outcome(
    publisher: Publisher, names: Names, request: tuple[Command, ThreadCall, PendingPublish], until: float
) -> Reply | AmqpWorkerError:
    command, call, pending = request
    queue = names.schedule_queue(command.scheduler)
    try:
        return decode_reply(call.wait(until - time.monotonic()))
    except CallTimeout:
        if not call.requested_on:
            # Its own deadline has passed as well, so it ends now, with the reason.
            pending.wait()
        error = pending.error or CallTimeout(
            _no_leader(command.scheduler, publisher.consumers_of(queue, COUNT_TIMEOUT))
        )
    except AmqpWorkerError as failed:
        error = failed
    if isinstance(error, Unroutable):
        return Unroutable(
            f"No scheduler {command.scheduler!r} has run on this broker: the queue {queue!r} does not exist or is not bound. "
            f"Start a scheduler, which declares it, or check its name, the namespace and the broker's URL."
        )
    if isinstance(error, Unconfirmed):
        if call.requested_on:
            return CallTimeout("the connection was lost before a reply")
        return Unconfirmed(f"It is not known whether the command is in the queue {queue!r}: {error}")
    return error


def _no_leader(scheduler: str, consumers: int | None) -> str:
    if consumers == 0:
        return f"no scheduler {scheduler!r} is running"
    return f"no scheduler {scheduler!r} has replied"
