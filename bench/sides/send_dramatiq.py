"""How fast Dramatiq sends, unconfirmed: `python -m bench.sides.send_dramatiq COUNT`; prints messages per second."""

from __future__ import annotations

import sys
import time

from bench.load import arguments
from bench.sides.dramatiq_tasks import broker, empty


def send(count: int) -> None:
    """Send this many."""
    for index in range(count):
        empty.send(**arguments(index))


def main() -> None:
    count = int(sys.argv[1])
    send(100)
    start = time.perf_counter()
    send(count)
    print(count / (time.perf_counter() - start))
    broker.close()


if __name__ == "__main__":
    main()
