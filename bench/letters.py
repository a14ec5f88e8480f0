"""
Dead letters as workers publish them: made by the package's own code, and published by the raw client, which is faster.

Their errors differ in numbers, and are of a few causes; each has a traceback as long as those of real frameworks are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

from amqpworker.broker.amqp.encode import encode_publish
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Failure
from amqpworker.routing.envelope import dead_lettered
from amqpworker.routing.topology import Names

from bench import declare, messages
from bench.load import QUEUE
from bench.wire import FRAME_MAX, Wire

TASK = "bench.sides.ours.empty"
CAUSES = (
    "refused", "timed out", "has no stock", "is unknown", "is closed", "was cancelled", "is not paid", "is a copy",
)  # fmt: skip
FRAME = '  File "/srv/shop/src/orders/delivery/handlers.py", line {line}, in step_{line}\n    return following(order, **rest)\n'
FRAMES = 20
"""Calls in a traceback: about 2 kB of text."""


def publish(url: str, first: int, count: int) -> None:
    """Put letters with the numbers from `first` on into the bench's queue of dead letters, all confirmed."""
    declare.declare(url, declare.ours())
    with closing(Wire(url)) as wire:
        wire.publish(_frames(first, count))


def id_of(index: int) -> str:
    """Return the id of the letter with this number."""
    return f"letter-{index:07d}"


def _frames(first: int, count: int) -> Iterator[bytes]:
    names = Names(declare.NAMESPACE)
    for index in range(first, first + count):
        attributes = {**messages.attributes(TASK), "message_id": id_of(index)}
        delivery = Delivery(1, False, names.tasks, QUEUE, Properties(**attributes), messages.body_of(index))
        error = ConnectionError(f"order {index} of customer {index * 7919:x} {CAUSES[index % len(CAUSES)]}")
        letter = dead_lettered(delivery, _dead(error, index), id_of(index), "bench@host:1", names, time.time())
        yield encode_publish(letter, messages.CHANNEL, FRAME_MAX)


def _dead(error: Exception, index: int) -> Dead:
    calls = "".join(FRAME.format(line=index % 97 + 10 * call) for call in range(FRAMES))
    kind = f"builtins.{type(error).__name__}"
    text = f"Traceback (most recent call last):\n{calls}{kind}: {error}\n"
    return Dead("failed", Failure(kind, str(error), text))
