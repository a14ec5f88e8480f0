"""
A queue as it stands on the command line of a worker: `NAME`, or `NAME:[THREADS][,prefetch=N]`.

Decides what of it is the name, which may hold any character: settings begin at the last colon, and only where everything
behind it is settings.
"""

from __future__ import annotations

import re

from amqpworker.worker.options import QueueOptions

__all__ = ["parsed"]

# `.*` is greedy, and settings hold no colon: so the colon is the last one.
WITH_SETTINGS = re.compile(r"(?P<name>.*):(?P<threads>[0-9]{0,9})(?:,prefetch=(?P<prefetch>[0-9]{1,9}))?", re.DOTALL)


def parsed(text: str) -> QueueOptions:
    """
    Return what is said of a queue.

    Raises:
        ValidationError: of pydantic; a number that cannot be, or no name.
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
