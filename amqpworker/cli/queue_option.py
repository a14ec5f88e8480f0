"""
A queue on the command line of a worker: `NAME`, or `NAME:[THREADS][,prefetch=N]`.

Decides which part is the name, which can contain any character: settings start at the last colon, and only if everything
after it is settings.
"""

from __future__ import annotations

import re

from amqpworker.worker.options import QueueOptions

# `.*` is greedy, and settings contain no colon: so the colon is the last one.
WITH_SETTINGS = re.compile(r"(?P<name>.*):(?P<threads>[0-9]{0,9})(?:,prefetch=(?P<prefetch>[0-9]{1,9}))?", re.DOTALL)


def parse_queue(text: str) -> QueueOptions:
    """
    Return the options of a queue.

    Raises:
        ValidationError: of pydantic; the name is empty, or a number is out of range.
    """
    found = WITH_SETTINGS.fullmatch(text)
    if found is None:
        return QueueOptions(name=text)
    threads, prefetch = found["threads"], found["prefetch"]
    return QueueOptions(
        name=found["name"],
        threads=int(threads) if threads else None,
        prefetch=None if prefetch is None else int(prefetch),
    )
