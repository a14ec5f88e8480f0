"""
Letters that were read, kept until they are used: in memory if they are few, else in a file that no one else can open.

So that a walk of a queue ends before the program that asked for its letters acts on them.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Generator, Iterator
from contextlib import closing

from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.message import Delivery

MAX_MEMORY = 16 * 1024 * 1024


def read_first(letters: Generator[DeadLetter, None, None]) -> Iterator[DeadLetter]:
    """Read all letters, then yield them one by one; an error or an interrupt ends the reading at once."""
    with tempfile.SpooledTemporaryFile(MAX_MEMORY) as file:
        count = 0
        with closing(letters):
            for letter in letters:
                message = letter.message
                # Without the channel of the delivery, which belongs to its connection.
                place = (letter.queue, letter.position, message.exchange, message.routing_key)
                pickle.dump((place, message.redelivered, message.properties, message.body, message.problem), file)
                count += 1
        file.seek(0)
        for _ in range(count):
            place, redelivered, properties, body, problem = pickle.load(file)  # noqa: S301 - written above
            queue, position, exchange, routing_key = place
            message = Delivery(position, redelivered, exchange, routing_key, properties, body, problem)
            yield DeadLetter.of(message, queue, position)
