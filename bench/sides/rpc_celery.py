"""
Celery's `rpc://` with 256 calls in flight: `python -m bench.sides.rpc_celery COUNT`; prints figures, as JSON.

One thread keeps the window full: its result backend has one reply queue per thread, so that more threads are slower.
"""

from __future__ import annotations

import json
import sys
from collections import deque

from bench.sides.celery_tasks import app, echo
from bench.stopwatch import measured

IN_FLIGHT = 256


def calls(count: int) -> None:
    """Call this many times and take each answer."""
    waiting = deque()
    with app.producer_or_acquire() as producer:
        for index in range(count):
            if len(waiting) == IN_FLIGHT:
                take(waiting)
            waiting.append((index, echo.apply_async(kwargs={"index": index}, producer=producer)))
        while waiting:
            take(waiting)


def take(waiting: deque) -> None:
    """Wait for the oldest answer."""
    index, result = waiting.popleft()
    if result.get(timeout=60) != index:
        raise SystemExit("a wrong answer")


def main() -> None:
    count = int(sys.argv[1])
    calls(100)
    with measured("call", count) as figures:
        calls(count)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
