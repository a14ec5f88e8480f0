"""
How fast amqpworker sends: `python -m bench.sides.send_ours one|threads|many COUNT`; prints messages per second.

Everything is confirmed and mandatory. The connection and the topology are there before the clock starts.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from bench.load import arguments
from bench.sides.ours import app, empty

THREADS = 32


def one(count: int) -> None:
    """Send one after the other."""
    for index in range(count):
        empty.send(**arguments(index))


def threads(count: int) -> None:
    """Send from many threads, each one after the other."""
    each = count // THREADS
    started = [threading.Thread(target=one, args=(each,)) for _ in range(THREADS)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()


def many(count: int) -> None:
    """Send as one batch."""
    app.send_many(empty.message(**arguments(index)) for index in range(count))


MODES: dict[str, Callable[[int], None]] = {"one": one, "threads": threads, "many": many}


def main() -> None:
    mode, count = sys.argv[1], int(sys.argv[2]) // THREADS * THREADS
    one(100)
    start = time.perf_counter()
    MODES[mode](count)
    print(count / (time.perf_counter() - start))
    app.close()


if __name__ == "__main__":
    main()
